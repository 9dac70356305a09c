"""Check shapes and types of every signature in `lm` while testing; an int is a float (PEP 484).

jaxtyping's import hook wraps each function such that its arguments are bound once, checked twice
and checked again with the result, whether or not there is a tensor among them: a third of the
tests' time. Here the hook's decorator is one that does what the signature asks for and no more.
"""

import inspect
from types import FunctionType
from typing import Any, get_args

import jaxtyping
from beartype import BeartypeConf, beartype
from jaxtyping import AbstractArray, install_import_hook

typecheck = beartype(conf=BeartypeConf(is_pep484_tower=True))

_jaxtyped = jaxtyping.jaxtyped


def install() -> None:
    """Decorate what is imported from `lm` from now on."""
    jaxtyping.jaxtyped = lambda *, typechecker: checked
    install_import_hook("lm", "typechecking.typecheck")


def checked(decorated: Any) -> Any:
    """A function or class whose signatures are checked when called."""
    hints = getattr(decorated, "__annotations__", {}).values()
    # Strings are left to jaxtyping, which takes those that name nothing as Any.
    if not isinstance(decorated, FunctionType) or any(isinstance(hint, str) for hint in hints):
        return _jaxtyped(decorated, typechecker=typecheck)
    if any(map(_has_shapes, hints)):
        # One scope of dimensions for arguments and result, which are checked together.
        return _jaxtyped(typecheck(decorated), typechecker=None)
    return typecheck(decorated)


def _has_shapes(annotation: Any) -> bool:
    if isinstance(annotation, list):  # the arguments of a Callable
        return any(map(_has_shapes, annotation))
    if inspect.isclass(annotation) and issubclass(annotation, AbstractArray):
        return True
    return any(map(_has_shapes, get_args(annotation)))
