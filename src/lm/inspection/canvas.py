"""Figures without a window, as images and files; matplotlib is imported where one is drawn."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")

Figure = Any


def colour(k: int) -> str:
    """Of the k-th curve; colours that those who do not see red and green apart can tell apart."""
    return _COLOURS[k % len(_COLOURS)]


def figure(width: float, height: float) -> Figure:
    """An empty figure that belongs to no window."""
    from matplotlib.figure import Figure as MatplotlibFigure

    return MatplotlibFigure(figsize=(width, height), layout="constrained", dpi=110)


def pixels(drawn: Figure) -> NDArray[np.uint8]:
    """The figure as an image [height, width, RGB]."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(drawn)
    canvas.draw()  # type: ignore[no-untyped-call]
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()  # type: ignore[no-untyped-call]


def save(path: Path, image: NDArray[np.uint8]) -> None:
    """Write an image as PNG."""
    from matplotlib.image import imsave

    imsave(path, image)
