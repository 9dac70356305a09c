"""What others measured on several GPUs, and what the model says of the same.

Only numbers that stand in a text or a figure that we had before us. One number is fitted: the
speed of a V100, from the 17 hours of eight of them. All else follows from data sheets.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from scaling.hardware import V100, Link
from scaling.model import Compute, exposed
from scaling.traffic import ALL_REDUCE, Message

# Puri, Kirby, Yakovenko & Catanzaro 2018 (arXiv 1808.01371), from its abstract, and the files of
# its code, github.com/NVIDIA/sentiment-discovery: README.md (bytes of the model in fp16),
# analysis/reproduction.md and experiments/train_mlstm_singlenode.sh (8 V100: 73,000 steps of 256
# sequences of 256 characters each in 17 hours), analysis/scale.md (nodes of 8, fp16 all-reduce).
MODEL_BYTES = 169e6
TOKENS = 256 * 256
RATE = 73_000 * TOKENS / (17 * 3600)  # of one GPU: 73,000 of its own batches
EPOCH = 38.76e9  # characters of the Amazon reviews: Patwary et al. 2018, table I

# DGX-1V: of NVLink's 6 x 25 GB/s rings reach 4/5; 4 adapters of 100 Gb/s (the documentation says
# "200GB/s", which cannot be; 25 GB/s instead of 45 would change the third digit), or one of 10.
DGX_INFINIBAND = Link("InfiniBand", inside=120e9, outside=0.9 * 50e9)
DGX_ETHERNET = Link("Ethernet 10 Gb/s", inside=120e9, outside=0.9 * 1.25e9, outside_alpha=5e-5)

# figures/distributed_scalability.png, read off to ± 0.5: how many GPUs' worth 16, 32, 64, 128 give.
GPUS = (16, 32, 64, 128)
FIGURE: dict[tuple[str, Link], tuple[float, ...]] = {
    ("mLSTM 4096", DGX_INFINIBAND): (13.3, 27.6, 55.4, 108.9),
    ("mLSTM 4096", DGX_ETHERNET): (11.3, 23.5, 45.9, 92.6),
    ("mLSTM 8192", DGX_INFINIBAND): (15.4, 31.3, 61.1, 120.7),
}


@dataclass(frozen=True, slots=True)
class Point:
    """A published number and ours."""

    what: str
    source: str
    measured: float
    predicted: float
    unit: str = ""

    @property
    def error(self) -> float:
        """Of the prediction, as a share."""
        return self.predicted / self.measured - 1


def utilisation() -> float:
    """Of a V100 by the 17 hours: 6 FLOP for each parameter and character."""
    return 6 * (MODEL_BYTES / 2) * RATE / V100.peak


def speed_up(model: str, link: Link, size: int) -> float:
    """How many GPUs' worth `size` of them give.

    One layer, whose gradient is whole when the backward pass ends: nothing can hide it. Twice as
    many units are four times the weights, for the arithmetic and for the wire.
    """
    times = 4 if model == "mLSTM 8192" else 1
    seconds = times * TOKENS / RATE
    compute = Compute(forward=seconds / 3, layer=seconds * 2 / 3, num_layers=1, update=0.0)
    gradient = Message(ALL_REDUCE, int(times * MODEL_BYTES), ready=1)
    return size * seconds / (seconds + exposed([gradient], compute, link, size))


def points() -> Iterator[Point]:
    """All that can be compared."""
    for (model, link), measured in FIGURE.items():
        for size, worth in zip(GPUS, measured, strict=True):
            name = f"{model}, {link.name}, {size} V100"
            yield Point(name, "figure", worth, speed_up(model, link, size), "GPUs' worth")
    hours = 3 * EPOCH / (RATE * speed_up("mLSTM 4096", DGX_INFINIBAND, 128)) / 3600
    yield Point("mLSTM 4096, 3 epochs, 128 V100", "abstract", 4.0, hours, "hours")


def exchange_seconds(model: str, size: int, worth: float) -> float:
    """What of a step is left for the exchange, if `size` GPUs give so many GPUs' worth."""
    times = 4 if model == "mLSTM 8192" else 1
    return times * TOKENS / RATE * (size / worth - 1)


# Of which the model and batch, or the link and the way of exchange, did not stand in what we could
# read, so that nothing is predicted.
NOT_PREDICTED = (
    ("Patwary et al. 2018 (arXiv 1810.10045), abstract: word model, 8 to 64 GPUs", 6.3 / 8),
    ("the same, character model, 8 to 64 GPUs", 6.7 / 8),
    ("the same, 6 to 192 GPUs with 31 times the text in 1.25 times the time", 93 / 3 / 1.25 / 32),
    ("github.com/okuchaiev/f-lm, README.md: BIGLSTM, 4,800 to 8,500 words/s, 1 to 2 GP100",
     8.5 / 4.8 / 2),
    ("the same: 4,500 words/s on one P100, 20,300 on eight of a DGX-1", 20.3 / 4.5 / 8),
)  # fmt: skip
