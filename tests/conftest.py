"""Shared set-up: shapes and types of every signature in `lm` are checked while testing."""

from jaxtyping import install_import_hook

install_import_hook("lm", "typechecking.typecheck")
