"""What TensorBoard shows besides curves and texts: charts of several tags, and the table of runs.

TensorBoard takes the columns of its HPARAMS tab from one run alone, the first that it meets, so
that every run names them all; torch's own `hparams` writes truth values as numbers and gives the
table no order.
"""

import re
from collections.abc import Collection, Mapping

from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import metadata
from tensorboard.plugins.hparams.api_pb2 import (
    DATA_TYPE_BOOL,
    DATA_TYPE_FLOAT64,
    DATA_TYPE_STRING,
    STATUS_SUCCESS,
    Experiment,
    HParamInfo,
    MetricInfo,
    MetricName,
)
from tensorboard.plugins.hparams.plugin_data_pb2 import (
    HParamsPluginData,
    SessionEndInfo,
    SessionStartInfo,
)

from lm.metrics import tags

HyperParameters = Mapping[str, bool | str | float | int]

CHARTS: dict[str, dict[str, tuple[str, ...]]] = {
    "loss": {
        "loss (nats per token) and floor": (
            tags.TRAIN_LOSS, "valid/loss", "train/floor", "valid/floor",
        ),
        "perplexity and floor": (
            tags.TRAIN_PERPLEXITY, "valid/perplexity",
            "train/floor_perplexity", "valid/floor_perplexity",
        ),
        "bits per byte": (tags.TRAIN_BITS_PER_BYTE, "valid/bits_per_byte"),
    },
    "optimisation": {
        "gradient norm and clipping threshold": (tags.GRADIENT_NORM, tags.CLIP_THRESHOLD),
        "share of steps that were clipped": (tags.CLIP_FRACTION,),
        "learning rate": (tags.LEARNING_RATE,),
    },
    "speed": {"tokens per second": (tags.TOKENS_PER_SECOND,)},
}  # fmt: skip
"""Category → title of a chart → what it draws; a tag that a run does not have is not drawn."""

# TensorBoard shows the first five unless told otherwise.
_METRICS = {
    "valid/perplexity": "validation perplexity",
    "valid/best_loss": "best validation loss",
    "test/perplexity": "test perplexity",
    "test/bits_per_byte": "test bits per byte",
    tags.SECONDS: "seconds",
    "test/loss": "test loss",
    "test/word_perplexity": "test perplexity per word",
    tags.TRAIN_LOSS: "training loss",
    tags.TOKENS_PER_SECOND: "tokens per second",
}


def layout() -> dict[str, dict[str, tuple[str, list[str]]]]:
    """The charts as `SummaryWriter.add_custom_scalars` takes them; there a tag is a pattern."""
    return {
        category: {
            title: ("Multiline", [f"^{re.escape(tag)}$" for tag in drawn])
            for title, drawn in charts.items()
        }
        for category, charts in CHARTS.items()
    }


def session_start(values: HyperParameters, changed: Collection[str]) -> list[Summary]:
    """A run's line in the table of runs, and the table's columns.

    Args:
        changed: names in `values` that the user gave; their columns come first.
    """
    experiment = Experiment(
        hparam_infos=[
            HParamInfo(name=name, type=_type(value), differs=name in changed)
            for name, value in sorted(values.items())
        ],
        metric_infos=[
            MetricInfo(name=MetricName(tag=tag), display_name=name)
            for tag, name in _METRICS.items()
        ],
    )
    session = SessionStartInfo()
    for name, value in values.items():
        if isinstance(value, bool):  # which is an int, too
            session.hparams[name].bool_value = value
        elif isinstance(value, str):
            session.hparams[name].string_value = value
        else:
            session.hparams[name].number_value = value
    return [
        _summary(metadata.EXPERIMENT_TAG, HParamsPluginData(experiment=experiment)),
        _summary(
            metadata.SESSION_START_INFO_TAG, HParamsPluginData(session_start_info=session)
        ),
    ]  # fmt: skip


def session_end() -> Summary:
    """That the run came to its end."""
    ended = HParamsPluginData(session_end_info=SessionEndInfo(status=STATUS_SUCCESS))
    return _summary(metadata.SESSION_END_INFO_TAG, ended)


def _type(value: bool | str | float | int) -> int:
    if isinstance(value, bool):
        return int(DATA_TYPE_BOOL)
    return int(DATA_TYPE_STRING if isinstance(value, str) else DATA_TYPE_FLOAT64)


def _summary(tag: str, content: HParamsPluginData) -> Summary:
    """All that the table needs is in the metadata; the value is of no meaning."""
    about = metadata.create_summary_metadata(content)
    value = Summary.Value(tag=tag, metadata=about, tensor=metadata.NULL_TENSOR)
    return Summary(value=[value])
