"""What TensorBoard shows besides curves and texts: charts of several tags, and the table of runs.

TensorBoard takes the columns of its HPARAMS tab from one run alone, the first that it meets, and
shows the first five. So the runs of a multirun all name what it varies and nothing else, and any
other run names all that it has, what its user gave first. torch's own `hparams` writes truth values
as numbers and gives the table no order.
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
            tags.TRAIN_LOSS, "valid/loss", tags.FLOOR.format("train"), tags.FLOOR.format("valid"),
        ),
        "perplexity and floor": (
            tags.TRAIN_PERPLEXITY, "valid/perplexity",
            *(tags.FLOOR_PERPLEXITY.format(split) for split in ("train", "valid")),
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


def session_start(
    values: HyperParameters, given: Collection[str], swept: Collection[str]
) -> list[Summary]:
    """A run's line in the table of runs, and the table's columns.

    Args:
        given: names in `values` that the user gave.
        swept: names in `values` that a multirun varies; none for a single run.
    """
    columns = {name: value for name, value in values.items() if name in swept} or values
    experiment = Experiment(
        hparam_infos=[
            _column(name, value, differs=name in given) for name, value in sorted(columns.items())
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


def _column(name: str, value: bool | str | float | int, *, differs: bool) -> HParamInfo:
    if isinstance(value, bool):
        column = HParamInfo(name=name, type=DATA_TYPE_BOOL, differs=differs)
        column.domain_discrete.extend([False, True])
        return column
    # Which other words there are is for the other runs to say: a list would hide them.
    kind = DATA_TYPE_STRING if isinstance(value, str) else DATA_TYPE_FLOAT64
    return HParamInfo(name=name, type=kind, differs=differs)


def _summary(tag: str, content: HParamsPluginData) -> Summary:
    """All that the table needs is in the metadata; the value is of no meaning."""
    about = metadata.create_summary_metadata(content)
    value = Summary.Value(tag=tag, metadata=about, tensor=metadata.NULL_TENSOR)
    return Summary(value=[value])
