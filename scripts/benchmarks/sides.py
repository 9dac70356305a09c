"""The two sides of a training row: the same model, weights and batches, each trained its way."""

import itertools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from benchmarks import textbook
from benchmarks.options import Options
from benchmarks.rows import TrainingRow
from benchmarks.timing import TORCH_DEFAULTS
from lm.data.streams import Window
from lm.models import CELLS, RecurrentModel
from lm.models.base import State
from lm.models.dropout import DropoutConfig
from lm.models.init import InitConfig, PartInit, Scheme
from lm.optim.clipping import ClipConfig
from lm.optim.optimizers import SGDConfig
from lm.runtime.compute import Precision
from lm.training.statistics import Statistics
from lm.training.step import TrainStep

SEED = 1
# The rate of the updates has no bearing on their cost; with this one random text does no harm.
LR = 1.0
CLIP = 0.25
_NUM_WINDOWS = 8


def build_ours(row: TrainingRow) -> RecurrentModel:
    """Our model on the CPU: PyTorch's initialisation and its two biases a layer."""
    plain = PartInit(kind=Scheme.default)
    rate = row.dropout
    fields: dict[str, Any] = {"num_biases": 2}
    if row.cell == "lstm":
        fields["forget_bias"] = None
    config = CELLS[row.cell](
        embedding_size=row.embedding_size,
        hidden_size=row.hidden_size,
        num_layers=row.num_layers,
        tied=row.tied,
        dropout=DropoutConfig(embedding=rate, between=rate, output=rate, locked=row.locked),
        init=InitConfig(
            embedding=PartInit(kind=Scheme.uniform, scale=0.1),
            input=plain,
            recurrent=plain,
            bias=plain,
            output=plain,
            output_bias=plain,
        ),
        **fields,
    )
    return config.build(row.vocab_size, seed=SEED)


def zipf_tokens(count: int, vocab_size: int) -> Tensor:
    """Random token ids with the frequencies of words: the r-th in proportion to 1 / (r + 2.7)."""
    draws = torch.Generator().manual_seed(SEED)
    frequency = 1.0 / (torch.arange(vocab_size) + 2.7)
    return torch.multinomial(frequency, count, replacement=True, generator=draws)


def windows(row: TrainingRow) -> list[Window]:
    """Consecutive windows of the same text for both sides."""
    length = _NUM_WINDOWS * row.window
    text = zipf_tokens((length + 1) * row.streams, row.vocab_size)
    block = text.view(row.streams, length + 1).t().contiguous()
    return [
        Window(block[begin : begin + row.window], block[begin + 1 : begin + row.window + 1])
        for begin in range(0, length, row.window)
    ]


class Ours:
    """Our training step."""

    def __init__(self, row: TrainingRow, options: Options, precision: Precision) -> None:
        self.compute, self.settings = options.compute(precision)
        device = self.compute.device
        model = build_ours(row).to(device)
        model.compute = self.compute
        parameters = dict(model.named_parameters())
        self.statistics = Statistics(device)
        self.step = TrainStep(
            model,
            SGDConfig(lr=LR).build(parameters),
            self.statistics,
            clip=ClipConfig(norm=CLIP),
            num_streams=row.streams,
            passes=1,
            seed=SEED,
        )
        self.state: State | None = None
        self.text: Iterator[tuple[int, Window]] = enumerate(itertools.cycle(windows(row)))

    def run(self) -> None:
        """The next step."""
        step, window = next(self.text)
        self.state = self.step(window, self.state, step=step, lr_multiplier=1.0)

    def first(self) -> tuple[float, float]:
        """Loss and gradient norm of the first step."""
        with self.settings.applied():
            self.run()
        interval = self.statistics.read()
        return interval.loss, interval.gradient_norm


class Textbook:
    """The textbook's loop, from the same weights."""

    settings = TORCH_DEFAULTS

    def __init__(
        self, row: TrainingRow, device: torch.device, *, bf16: bool = False, same: bool = True
    ) -> None:
        """Args:
        same: start from the weights of ours; otherwise from its own, without building ours.
        """
        model = textbook.build(row, build_ours(row).state_dict() if same else None).to(device)
        self.loop = textbook.Loop(model, LR, CLIP, bf16)
        # The whole text is on the device before the loop begins, as in pytorch/examples.
        pairs = [(w.tokens.to(device), w.targets.to(device)) for w in windows(row)]
        self.text = itertools.cycle(pairs)

    def run(self) -> float:
        """The next step."""
        return self.loop.step(*next(self.text))

    def first(self) -> tuple[float, float]:
        """Loss and gradient norm of the first step."""
        with self.settings.applied():
            loss = self.run()
        assert self.loop.norm is not None
        return loss, float(self.loop.norm)
