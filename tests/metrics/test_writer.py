"""What TensorBoard is given: pictures, histograms, a layout of charts, a line in a table."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from lm.metrics import board as board_charts
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


def test_the_run_is_entered_and_laid_out_once_in_its_life(tmp_path: Path) -> None:
    values = {"model": "rnn", "optim.lr": 0.5, "model.tied": True}
    for resume, changed in ((None, {"model", "seed"}), ((3, 30, 0), {"optim.lr"})):
        writer = MetricsWriter(tmp_path, tokens_axis=False, resume=resume)
        writer.begin(values, changed, ())
        writer.end()
        writer.close()
    events = board(tmp_path)
    (layout,) = events.Tensors("custom_scalars__config__")
    assert layout.step == 0
    named = {name for name in events.Tags()["tensors"] if name.startswith("_hparams_/")}
    assert named == {
        "_hparams_/experiment", "_hparams_/session_start_info", "_hparams_/session_end_info",
    }  # fmt: skip
    assert [len(events.Tensors(name)) for name in sorted(named)] == [1, 2, 1]


def content(events: EventAccumulator, tag: str) -> HParamsPluginData:
    data = events.SummaryMetadata(f"_hparams_/{tag}").plugin_data.content
    return HParamsPluginData.FromString(data)


@pytest.mark.parametrize(("swept", "columns"), [((), 3), (("model", "seed"), 1)])
def test_hyper_parameters_keep_their_types_and_the_users_own_come_first(
    tmp_path: Path, swept: tuple[str, ...], columns: int
) -> None:
    writer = MetricsWriter(tmp_path, tokens_axis=False)
    given = {"optim.lr", *swept}
    writer.begin({"model": "rnn", "optim.lr": 0.5, "model.tied": True}, given, swept)
    writer.close()
    events = board(tmp_path)
    start = content(events, "session_start_info").session_start_info.hparams
    assert start["model"].string_value == "rnn"
    assert start["optim.lr"].number_value == 0.5
    assert start["model.tied"].WhichOneof("kind") == "bool_value"
    experiment = content(events, "experiment").experiment
    differs = [info.name for info in experiment.hparam_infos if info.differs]
    assert len(experiment.hparam_infos) == columns
    assert differs == (["model"] if swept else ["optim.lr"])
    assert {info.name.tag for info in experiment.metric_infos} >= {
        "valid/perplexity", "test/perplexity", "test/bits_per_byte",
    }  # fmt: skip


def test_the_charts_draw_exactly_the_tags_they_name() -> None:
    charts = board_charts.layout()
    assert set(charts) == {"loss", "optimisation", "speed"}
    kind, patterns = charts["loss"]["loss (nats per token) and floor"]
    assert kind == "Multiline"
    tags = ["train/loss", "train/loss_x", "x/train/loss", "valid/loss", "valid/floor", "valid/flo"]
    drawn = [tag for tag in tags if any(re.match(pattern, tag) for pattern in patterns)]
    assert drawn == ["train/loss", "valid/loss", "valid/floor"]
