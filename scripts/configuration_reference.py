"""Write docs/configuration.md anew, from the schemas of `lm`.

python scripts/configuration_reference.py
"""

import sys
from pathlib import Path

from documentation.reference import Reference

PAGE = Path(__file__).parents[1] / "docs/configuration.md"


def main() -> int:
    """Write the page; fail where a field has no description."""
    reference = Reference()
    PAGE.write_text(reference.page(), encoding="utf-8")
    for name in reference.undescribed:
        print(f"{name} has no line in an `Attributes:` section", file=sys.stderr)
    return 1 if reference.undescribed else 0


if __name__ == "__main__":
    sys.exit(main())
