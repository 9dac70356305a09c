"""What the processes of a run send each other in a step: counted, and by formulas.

Counted is the real training step as one rank of a fake process group, which takes part in every
collective and sends nothing: 1,024 ranks need one process. The formulas say the same of any size.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch import distributed as dist
from torch.testing._internal.distributed.fake_pg import FakeStore

from lm.data.streams import Window
from lm.models import CELLS
from lm.models.kernels.nll import row_chunks
from lm.optim.clipping import ClipConfig
from lm.optim.optimizers import SGDConfig
from lm.runtime.collectives import Groups, Pending
from lm.runtime.processes import ALONE, Processes
from lm.training.communication import CommunicationConfig, WireType
from lm.training.statistics import Statistics
from lm.training.step import TrainStep

# As in lm.training.exchange and lm.training.communication.
SMALL, LARGEST_SHARE = 1 << 14, 0.5
ALL_REDUCE, ALL_GATHER, ALL_TO_ALL = "all-reduce", "all-gather", "all-to-all"


@dataclass(frozen=True, slots=True)
class Message:
    """A collective, as one process sees it.

    Attributes:
        kind: which.
        nbytes: what it hands in: of an all-reduce the tensor, of an all-gather its own part, of an
            all-to-all what it deals to all.
        ready: after which part of the backward pass it may begin: 0 is before the top layer's, n
            after n layers'; None where the step waits for it on the spot.
    """

    kind: str
    nbytes: int
    ready: int | None = None


@dataclass(frozen=True, slots=True)
class Setting:
    """A model, its batch, and how its processes exchange.

    Attributes:
        streams: of one process.
        rank: of PowerSGD; None is off.
        split: the vocabulary is split over the processes.
    """

    vocab_size: int
    hidden_size: int
    num_layers: int = 2
    tied: bool = False
    streams: int = 1
    window: int = 4
    dtype: WireType = WireType.fp32
    rank: int | None = None
    split: bool = False

    @property
    def tokens(self) -> int:
        """Of one process in a step."""
        return self.streams * self.window

    @property
    def layers(self) -> list[tuple[int, ...]]:
        """Shapes of a layer's parameters: both matrices and the bias."""
        size = self.hidden_size
        return [(4 * size, size), (4 * size, size), (4 * size,)]

    @property
    def parameters(self) -> int:
        """All, of the whole model."""
        layers = self.num_layers * sum(numel(shape) for shape in self.layers)
        return layers + self.vocab_size * (1 + self.hidden_size * (1 if self.tied else 2))


def numel(shape: tuple[int, ...]) -> int:
    """Elements of a tensor."""
    return int(torch.Size(shape).numel())


def messages(setting: Setting, size: int) -> list[Message]:
    """What a process of `size` sends in a step."""
    found = _split_words(setting, size) if setting.split else _whole_words(setting, size)
    depth = setting.num_layers
    tensors = [(shape, n) for n in range(1, depth + 1) for shape in setting.layers]
    if not setting.split:
        # The gradient of an untied output layer is there before the layers' begin, computed with
        # the loss. A tied one waits for the embedding's, the last of all.
        words = (setting.vocab_size, setting.hidden_size)
        tensors += [(words, depth if setting.tied else 0), ((setting.vocab_size,), 0)]
    factored = [shape for shape, _ in tensors if _takes(shape, setting.rank)]
    small = 0
    for shape, ready in tensors:
        if shape in factored:
            continue
        if numel(shape) < SMALL:
            small += 4 * numel(shape)
        else:
            width = 2 if setting.dtype is WireType.bf16 else 4
            found.append(Message(ALL_REDUCE, width * numel(shape), ready))
    if small:
        found.append(Message(ALL_REDUCE, small))
    if factored and setting.rank:
        for side in (0, 1):
            rows = sum(shape[side] for shape in factored)
            found.append(Message(ALL_REDUCE, 4 * setting.rank * rows))
    found.append(Message(ALL_REDUCE, 16))  # the objective and the nats, in float64
    return found


def _takes(shape: tuple[int, ...], rank: int | None) -> bool:
    if rank is None or len(shape) != 2:
        return False
    return rank * sum(shape) <= LARGEST_SHARE * numel(shape)


def _whole_words(setting: Setting, size: int) -> list[Message]:
    """The embedding's gradient, if it is not the output layer's too: the rows of a window."""
    if setting.tied:
        return []
    vector = 4 * setting.hidden_size
    return [
        Message(ALL_REDUCE, 8 * size),
        Message(ALL_GATHER, 8 * setting.tokens),
        Message(ALL_GATHER, vector * setting.tokens),
    ]


def _split_words(setting: Setting, size: int) -> list[Message]:
    """What split words cost: tokens and features go to everybody, parts of them come back."""
    own, everybody = setting.tokens, setting.tokens * size
    vector = 4 * setting.hidden_size
    counts = Message(ALL_REDUCE, 8 * size)
    names = 3 * setting.num_layers + (2 if setting.tied else 3)
    rows = row_chunks(torch.empty(everybody, 1, device="meta"), -(-setting.vocab_size // size))
    return [
        counts,
        Message(ALL_GATHER, 8 * own),  # tokens
        Message(ALL_TO_ALL, vector * everybody),  # their vectors
        counts,
        Message(ALL_GATHER, vector * own),  # features
        Message(ALL_GATHER, 8 * own),  # targets
        # Of each row the largest logit; then the sum of exponentials and the wanted logit.
        *(
            Message(ALL_REDUCE, width * (part.stop - part.start))
            for part in rows
            for width in (4, 8)
        ),
        Message(ALL_TO_ALL, vector * everybody),  # gradients of features
        Message(ALL_GATHER, vector * own),  # gradients of the tokens' vectors
        Message(ALL_REDUCE, 8 * names),  # norms for clipping
    ]


def wire(message: Message, size: int) -> float:
    """Bytes that one process of `size` sends for it, each as often as the others need it."""
    if message.kind == ALL_GATHER:
        return float(message.nbytes * (size - 1))
    times = 2 if message.kind == ALL_REDUCE else 1
    return times * message.nbytes * (size - 1) / size


class Counting(Processes):
    """Notes what goes out. What would have come from the others is nothing."""

    def __init__(self, size: int, group: dist.ProcessGroup) -> None:
        super().__init__(0, size, groups=Groups(group, group))
        self.sent: list[Message] = []

    def begin_adding(self, tensor: Tensor) -> Pending:
        self.sent.append(Message(ALL_REDUCE, tensor.nbytes))
        return super().begin_adding(tensor)

    def take_largest(self, tensor: Tensor) -> None:
        self.sent.append(Message(ALL_REDUCE, tensor.nbytes))
        super().take_largest(tensor)

    def largest(self, values: Sequence[float]) -> list[float]:
        self.sent.append(Message(ALL_REDUCE, 8 * len(values)))
        return super().largest(values)

    def counts(self, own: Tensor) -> list[int]:  # type: ignore[override]
        super().counts(own)
        return [len(own)] * self.size

    def stack(self, own: Tensor) -> Tensor:
        self.sent.append(Message(ALL_GATHER, own.nbytes))
        return torch.zeros_like(super().stack(own))

    def deal(self, rows: Tensor, counts: Sequence[int]) -> Tensor:
        self.sent.append(Message(ALL_TO_ALL, rows.nbytes))
        return torch.zeros_like(super().deal(rows, counts))


@contextmanager
def fake_processes(size: int) -> Iterator[Counting]:
    """The first of so many, of which there is no other."""
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=size)
    try:
        assert dist.group.WORLD is not None
        yield Counting(size, dist.group.WORLD)
    finally:
        dist.destroy_process_group()


def training_step(setting: Setting, processes: Processes) -> TrainStep:
    """The real one."""
    config = CELLS["lstm"](
        embedding_size=setting.hidden_size, hidden_size=setting.hidden_size,
        num_layers=setting.num_layers, tied=setting.tied,
    )  # fmt: skip
    among = processes if setting.split else ALONE
    model = config.build(setting.vocab_size, seed=1, processes=among)
    return TrainStep(
        model, SGDConfig(lr=1.0).build(dict(model.named_parameters())),
        Statistics(torch.device("cpu")), clip=ClipConfig(norm=1.0),
        num_streams=setting.streams * processes.size, passes=1, seed=1, processes=processes,
        communication=CommunicationConfig(dtype=setting.dtype, powersgd_rank=setting.rank),
    )  # fmt: skip


def window_of(setting: Setting) -> Window:
    """One process's text."""
    draws = torch.Generator().manual_seed(1)
    shape = (setting.window + 1, setting.streams)
    block = torch.randint(setting.vocab_size, shape, generator=draws)
    return Window(block[:-1], block[1:])


def counted(setting: Setting, size: int) -> list[Message]:
    """What the first of `size` processes sends in a real step."""
    with fake_processes(size) as processes:
        step = training_step(setting, processes)
        processes.sent.clear()
        step(window_of(setting), None, step=0, lr_multiplier=1.0)
        return processes.sent


def summary(found: Iterable[Message]) -> dict[str, tuple[int, int]]:
    """By kind, how many and how many bytes."""
    sums: dict[str, tuple[int, int]] = {}
    for message in found:
        number, nbytes = sums.get(message.kind, (0, 0))
        sums[message.kind] = number + 1, nbytes + message.nbytes
    return sums
