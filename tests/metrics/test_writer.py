"""What TensorBoard is given: pictures, histograms."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lm.metrics.writer import MetricsWriter


def board(folder: Path) -> EventAccumulator:
    """What a run's TensorBoard would show, every point of it."""
    events = EventAccumulator(
        str(folder / "tensorboard"), size_guidance={"scalars": 0, "images": 0, "histograms": 0}
    )
    events.Reload()
    return events


@pytest.mark.parametrize(("tokens_axis", "x"), [(False, 3), (True, 700)])
def test_a_picture_is_stored_pixel_by_pixel(tmp_path: Path, tokens_axis: bool, x: int) -> None:
    from PIL import Image

    pixels = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    writer = MetricsWriter(tmp_path, tokens_axis=tokens_axis)
    writer.image(3, 700, "gates", pixels)
    writer.close()
    (event,) = board(tmp_path).Images("gates")
    assert (event.step, event.height, event.width) == (x, 2, 3)
    stored = tmp_path / "stored.png"
    stored.write_bytes(event.encoded_image_string)
    with Image.open(stored) as image:
        np.testing.assert_array_equal(np.asarray(image), pixels)


@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor])
def test_a_histogram_counts_the_finite_values(tmp_path: Path, kind: type) -> None:
    values = kind(np.array([[0.5, -1.5, 2.0], [np.nan, np.inf, 2.0]], dtype=np.float32))
    writer = MetricsWriter(tmp_path, tokens_axis=False)
    writer.histogram(4, 9, "state/h", values)
    writer.histogram(4, 9, "nothing", kind(np.array([np.nan])))
    writer.close()
    events = board(tmp_path)
    (event,) = events.Histograms("state/h")
    found = event.histogram_value
    assert (event.step, found.num, found.min, found.max, found.sum) == (4, 4, -1.5, 2.0, 3.0)
    assert events.Tags()["histograms"] == ["state/h"]
