"""Scalars to TensorBoard and, the same ones, to `metrics.jsonl`."""

import json
import math
import os
import threading
from collections.abc import Collection
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Num, UInt8
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import _AsyncWriterThread
from torch.utils.tensorboard import SummaryWriter

from lm.metrics import board

_unhandled = threading.excepthook


def _except_in_thread(arguments: threading.ExceptHookArgs) -> None:
    """Leave out what is raised again: TensorBoard's thread hands a full disk to its caller."""
    if not (
        isinstance(arguments.thread, _AsyncWriterThread)
        and isinstance(arguments.exc_value, OSError)
    ):
        _unhandled(arguments)


class MetricsWriter:
    """Writes one run's metrics; a resumed run continues both files as if never interrupted.

    Args:
        tokens_axis: put tokens instead of steps on TensorBoard's x-axis.
        resume: step, tokens and size of `metrics.jsonl` at the checkpoint that is continued.
    """

    def __init__(
        self, folder: Path, *, tokens_axis: bool, resume: tuple[int, int, int] | None = None
    ) -> None:
        self.tokens_axis = tokens_axis
        self._resumed = resume is not None
        path = folder / "metrics.jsonl"
        purge_step = None
        if resume is not None:
            step, tokens, size = resume
            # What was written after the checkpoint will be written again.
            purge_step = (tokens if tokens_axis else step) + 1
            if path.exists() and path.stat().st_size > size:
                os.truncate(path, size)
        threading.excepthook = _except_in_thread
        self._lines = path.open("a", encoding="utf-8")
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=purge_step)

    def _x(self, step: int, tokens: int) -> int:
        return tokens if self.tokens_axis else step

    def scalars(self, step: int, tokens: int, values: dict[str, float]) -> None:
        """Write scalars by tag."""
        for tag, value in values.items():
            self._board.add_scalar(tag, value, self._x(step, tokens))
        # JSON has no infinity and no NaN; null is what every reader understands.
        clean = {tag: value if math.isfinite(value) else None for tag, value in values.items()}
        self._lines.write(json.dumps({"step": step, "tokens": tokens, **clean}) + "\n")
        self._lines.flush()  # somebody may be watching

    def text(self, step: int, tokens: int, tag: str, text: str) -> None:
        """Write text, shown verbatim in TensorBoard's text tab."""
        verbatim = "\n".join("    " + line for line in text.splitlines())
        self._board.add_text(tag, verbatim, self._x(step, tokens))

    def image(
        self, step: int, tokens: int, tag: str, image: UInt8[np.ndarray, "height width channels"]
    ) -> None:
        """Write a picture of 1 (grey), 3 (RGB) or 4 (RGBA) channels to TensorBoard alone."""
        self._board.add_image(tag, image, self._x(step, tokens), dataformats="HWC")

    def histogram(
        self,
        step: int,
        tokens: int,
        tag: str,
        values: Num[np.ndarray, "..."] | Num[torch.Tensor, "..."],
    ) -> None:
        """Write how values are distributed to TensorBoard alone; those not finite have no bin."""
        array = torch.as_tensor(values).detach().to("cpu", torch.float64).flatten()
        finite = array[array.isfinite()]
        if finite.numel():
            self._board.add_histogram(tag, finite.numpy(), self._x(step, tokens))

    def begin(
        self, values: board.HyperParameters, given: Collection[str], swept: Collection[str]
    ) -> None:
        """Lay out the charts, and enter the run into the table of runs, once in its life.

        In this very run rather than in a sub-run, as torch's `add_hparams` has it.

        Args:
            given: names in `values` that the user gave.
            swept: names in `values` that a multirun varies; none for a single run.
        """
        if not self._resumed:
            self._board.add_custom_scalars(board.layout())
            self._add(*board.session_start(values, given, swept))

    def end(self) -> None:
        """Say in the table of runs that this one is done."""
        self._add(board.session_end())

    def _add(self, *summaries: Summary) -> None:
        for summary in summaries:
            self._board._get_file_writer().add_summary(summary)  # type: ignore[no-untyped-call]

    def flush(self) -> int:
        """Hand everything to the system; the size of `metrics.jsonl` for the checkpoint."""
        self._lines.flush()
        self._board.flush()
        return self._lines.tell()

    def close(self) -> None:
        """Flush and close both files."""
        try:
            self._lines.close()
        finally:
            self._board.close()


class SilentWriter(MetricsWriter):
    """Writes nothing: of several processes one speaks for all."""

    def __init__(self) -> None:
        pass  # no files

    def scalars(self, step: int, tokens: int, values: dict[str, float]) -> None:
        pass

    def text(self, step: int, tokens: int, tag: str, text: str) -> None:
        pass

    def image(
        self, step: int, tokens: int, tag: str, image: UInt8[np.ndarray, "height width channels"]
    ) -> None:
        pass

    def histogram(
        self,
        step: int,
        tokens: int,
        tag: str,
        values: Num[np.ndarray, "..."] | Num[torch.Tensor, "..."],
    ) -> None:
        pass

    def begin(
        self, values: board.HyperParameters, given: Collection[str], swept: Collection[str]
    ) -> None:
        pass

    def end(self) -> None:
        pass

    def flush(self) -> int:
        return 0

    def close(self) -> None:
        pass
