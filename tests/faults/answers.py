"""How `lm` answers what is wrong: one line of cause and one of remedy, and no traceback."""

ERROR = "lm: error: "


def cause_and_remedy(said: str) -> tuple[str, str] | None:
    """The last error in what was said on standard error, where it is as it has to be."""
    if "Traceback" in said or ERROR not in said:
        return None
    cause, *rest = said[said.rfind(ERROR) :].splitlines()
    if len(rest) != 1 or not rest[0].startswith("  ") or not rest[0].strip():
        return None
    return cause, rest[0].strip()
