"""One file per verb: what happens, in order."""

from keyword import iskeyword


def module_of(verb: str) -> str:
    """`lm.commands.verify_resume` of `verify-resume`, `lm.commands.import_` of `import`."""
    name = verb.replace("-", "_")
    return f"lm.commands.{name}_" if iskeyword(name) else f"lm.commands.{name}"
