"""Write the tables and the picture of docs/scaling.md: what up to 4,096 GPUs would do.

python scripts/scaling_model.py             # counts traffic, computes the rest: seconds
python scripts/scaling_model.py --measure   # and times two processes of this machine anew
"""

import argparse
import json
from pathlib import Path

from scaling import measured, picture, report

DOCS = Path(__file__).parents[1] / "docs"
PAGE, RECORD = DOCS / "scaling.md", DOCS / "scaling/measured.json"


def main() -> None:
    """Count, compute, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--measure", action="store_true", help="two processes, two cores, minutes")
    if parser.parse_args().measure:
        RECORD.parent.mkdir(exist_ok=True)
        RECORD.write_text(json.dumps(measured.measure(), indent=1) + "\n", encoding="utf-8")
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    found = {"traffic": report.traffic(), **report.sections(record)}
    PAGE.write_text(report.written(PAGE.read_text(encoding="utf-8"), found), encoding="utf-8")
    picture.draw(DOCS / "pictures/scaling.png")
    print("\n\n".join("\n".join(lines) for lines in found.values()))


if __name__ == "__main__":
    main()
