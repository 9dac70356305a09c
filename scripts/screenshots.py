"""Pictures of TensorBoard on a folder of runs, each checked in the browser before it is kept.

python scripts/screenshots.py runs/cells [docs/pictures]
"""

import argparse
import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from browsing import tabs
from browsing.server import browser, missing, tensorboard
from PIL import Image

SIZE = (1280, 720)
SIZES = {"custom scalars": (1500, 960), "hparams": (1720, 620)}
"""Pixels of the window: all of the layout, all columns of the table."""
PINNED = ("valid/loss", "train/loss")
# Enough for text and lines; a full palette is three times as large.
_COLOURS = 128


def main() -> int:
    """Take the pictures that the runs have something to show in."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, help="a folder with runs below it")
    parser.add_argument("folder", type=Path, nargs="?", default=Path("docs/pictures"))
    arguments = parser.parse_args()
    if fault := missing():
        print(fault, file=sys.stderr)
        return 2
    if not any(arguments.runs.rglob("events.out.tfevents.*")):
        print(f"no event files below {arguments.runs}: give a folder of runs", file=sys.stderr)
        return 4
    arguments.folder.mkdir(parents=True, exist_ok=True)
    with tensorboard(arguments.runs) as address, browser() as page:
        there = tabs.tabs(page, address)
        for tab, look in LOOKS.items():
            if tab not in there:
                print(f"{tab}: these runs have none")
                continue
            page.set_viewport_size(
                dict(zip(("width", "height"), SIZES.get(tab, SIZE), strict=True))
            )
            seen = look(page, address)
            path = arguments.folder / f"{tab.replace(' ', '_')}.png"
            size = keep(page, path)
            print(f"{path}  {size // 1000} kB  {seen}")
    return 0


def keep(page: Any, path: Path) -> int:
    """Write what the page shows as a small PNG; its size in bytes."""
    with Image.open(io.BytesIO(page.screenshot())) as image:
        image.convert("RGB").quantize(_COLOURS).save(path, optimize=True)
    return path.stat().st_size


def time_series(page: Any, address: str) -> str:
    """Loss curves on top."""
    cards = tabs.time_series(page, address, PINNED)
    require(set(PINNED) <= set(cards), f"no cards of {PINNED} among {cards}")
    return f"{len(cards)} cards"


def custom_scalars(page: Any, address: str) -> str:
    """The layout, every chart of which has lines."""
    charts = tabs.custom_scalars(page, address)
    require("loss (nats per token) and floor" in charts, f"no chart of the loss among {charts}")
    require(charts["gradient norm and clipping threshold"] > 0, "no gradient norm is drawn")
    return f"{len(charts)} charts, {sum(charts.values())} lines"


def hparams(page: Any, address: str) -> str:
    """The table of runs, with what was measured."""
    rows = tabs.hparams(page, address)
    require(len(rows) > 0, "the table has no rows")
    wanted = {"validation perplexity", "test perplexity"}
    require(wanted <= rows[0].keys(), f"no {wanted} among the columns {list(rows[0])}")
    return f"{len(rows)} runs, columns {', '.join(rows[0])}"


def text(page: Any, address: str) -> str:
    """Samples over time."""
    found = tabs.texts(page, address, "samples")
    require(any(found), "no sample is shown")
    return f"{len(found)} samples"


def images(page: Any, address: str) -> str:
    """Pictures that were written beside the scalars."""
    return f"{tabs.images(page, address)} pictures"


def histograms(page: Any, address: str) -> str:
    """Distributions over time."""
    return f"{tabs.histograms(page, address)} charts"


LOOKS: dict[str, Callable[[Any, str], str]] = {
    "time series": time_series,
    "custom scalars": custom_scalars,
    "hparams": hparams,
    "text": text,
    "images": images,
    "histograms": histograms,
}
"""Tab, as TensorBoard calls it → what has to be seen there, in words."""


def require(condition: bool, fault: str) -> None:
    """End at a page that does not show what it is to show: its picture would be wrong."""
    if not condition:
        raise SystemExit(f"not what TensorBoard is to show: {fault}")


if __name__ == "__main__":
    sys.exit(main())
