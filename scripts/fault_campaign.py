"""Run the fault campaign and write docs/reliability.md from what it showed.

    python scripts/fault_campaign.py                 # every row as often as the plan asks for
    python scripts/fault_campaign.py R2 C1 --few     # some rows, a few repetitions
    python scripts/fault_campaign.py --soak --costs  # the long run, and what safety costs
    python scripts/fault_campaign.py --render        # the document alone

Each row's result is kept in docs/reliability/rows.json as soon as it is there, so that the campaign
can be run in parts. The document is made of those files and of nothing else. The exit code is 1
where a row does not hold.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / folder) for folder in ("src", "tests", "tests/faults", "tests/training")]

from campaign import costs, document, records, soak  # noqa: E402


def main() -> None:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("rows", nargs="*", help="keys of rows, such as R2; all by default")
    parser.add_argument("--few", action="store_true", help="as few repetitions as the tests do")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--soak", action="store_true", help="the long run instead of rows")
    parser.add_argument("--costs", action="store_true", help="what safety costs instead of rows")
    parser.add_argument("--render", action="store_true", help="nothing but the document")
    parser.add_argument("--folder", type=Path, default=ROOT / "docs" / "reliability")
    given = parser.parse_args()
    held = True
    with tempfile.TemporaryDirectory() as place:
        os.environ.setdefault("LM_CACHE", f"{place}/cache")
        if given.soak:
            soak.run(Path(place), given.folder)
        if given.costs:
            costs.run(Path(place), given.folder)
        if not (given.soak or given.costs or given.render):
            held = records.run(
                given.rows, Path(place), given.folder, few=given.few, seed=given.seed
            )
    document.write(given.folder)
    if not held:
        sys.exit(1)


if __name__ == "__main__":
    main()
