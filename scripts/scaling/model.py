"""How long a step takes on many devices, and how much of a run is progress.

A step is products and the recurrence, whose time steps come one after the other, then an update.
What is sent costs what does not fit beside the rest of the backward pass. What was done since the
last checkpoint is lost by a failure.
"""

import math
from dataclasses import dataclass

from scaling.hardware import Device, Link
from scaling.traffic import Message, Setting, messages

# Bytes that an update moves for each parameter: clearing, norm, clipped step; and what PowerSGD
# adds, with its error, three products and one more pass.
_UPDATE, _POWERSGD = 20, 40


@dataclass(frozen=True, slots=True)
class Compute:
    """Seconds of one device.

    Attributes:
        forward: through the layers, and the output layer with all its gradients.
        layer: backward through one layer.
        num_layers: how many follow each other.
        update: what comes after the exchange.
    """

    forward: float
    layer: float
    num_layers: int
    update: float

    @property
    def total(self) -> float:
        """Of a device alone."""
        return self.forward + self.layer * self.num_layers + self.update


@dataclass(frozen=True, slots=True)
class Step:
    """A predicted step of `size` devices.

    Attributes:
        exposed: seconds of exchange that nothing else hides.
    """

    compute: float
    exposed: float
    tokens: int

    @property
    def seconds(self) -> float:
        return self.compute + self.exposed

    @property
    def rate(self) -> float:
        """Tokens per second of all devices."""
        return self.tokens / self.seconds


def computed(setting: Setting, device: Device, size: int = 1) -> Compute:
    """A step's arithmetic: each layer's time step is the slowest of launching it, reading its
    recurrent weights (16 bits) and multiplying them.
    """
    rate, matrix = device.peak * device.utilisation, 4 * setting.hidden_size**2
    product = 2 * matrix * setting.tokens / rate
    moment = max(device.launch, 2 * matrix / device.memory, 2 * matrix * setting.streams / rate)
    recurrence = setting.window * moment
    head = 6 * setting.vocab_size * setting.hidden_size * setting.tokens / rate
    words = setting.vocab_size * (1 + setting.hidden_size * (1 if setting.tied else 2))
    own = setting.parameters - (words - words / size if setting.split else 0)
    moved = _UPDATE + (_POWERSGD if setting.rank is not None and size > 1 else 0)
    return Compute(
        forward=setting.num_layers * (product + recurrence) + head,
        layer=3 * product + recurrence,
        num_layers=setting.num_layers,
        update=own * moved / device.memory,
    )


def exposed(found: list[Message], compute: Compute, link: Link, size: int) -> float:
    """What remains of the exchange, which is one message at a time, when the backward pass ends."""
    free = 0.0
    for message in sorted((m for m in found if m.ready is not None), key=lambda m: m.ready or 0):
        begin = (message.ready or 0) * compute.layer
        free = max(free, begin) + link.seconds(message, size)
    late = max(0.0, free - compute.layer * compute.num_layers)
    return late + sum(link.seconds(m, size) for m in found if m.ready is None)


def predict(setting: Setting, device: Device, link: Link, size: int) -> Step:
    """A step of `size` devices, each with its own streams."""
    compute = computed(setting, device, size)
    waited = exposed(messages(setting, size), compute, link, size) if size > 1 else 0.0
    return Step(compute.total, waited, setting.tokens * size)


def efficiency(setting: Setting, device: Device, link: Link, size: int) -> float:
    """Tokens per second of each of `size` devices, as a share of what a lone one does.

    A lone one exchanges nothing, and so has neither a split vocabulary nor factors.
    """
    alone = computed(setting, device).total
    return alone / predict(setting, device, link, size).seconds


# Unexpected interruptions of Llama 3's training: 419 in 54 days of 16,384 H100 (Llama Team 2024,
# The Llama 3 Herd of Models; as Data Center Dynamics reported it).
DEVICE_HOURS_TO_FAILURE = 16_384 * 54 * 24 / 419


def young(write: float, between_failures: float) -> float:
    """The best interval between checkpoints, to first order (Young 1974): sqrt(2 δ M)."""
    return math.sqrt(2 * write * between_failures)


def goodput(interval: float, write: float, restart: float, between_failures: float) -> float:
    """Share of the time that is progress (Daly 2006, the complete cost), all in seconds.

    Failures come at random and independently, during restarts and writes too.

    Args:
        interval: of training between two checkpoints.
        write: how long a checkpoint holds training up.
        restart: from a failure to the first new step.
    """
    lost = math.expm1((interval + write) / between_failures)
    return interval / (between_failures * math.exp(restart / between_failures) * lost)


def best_goodput(size: int, write: float, restart: float) -> tuple[float, float]:
    """Young's interval in seconds and what it gives, with so many devices."""
    between = DEVICE_HOURS_TO_FAILURE * 3600 / size
    interval = young(write, between)
    return interval, goodput(interval, write, restart, between)
