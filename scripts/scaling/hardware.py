"""Devices and links, with where each number is from. None was measured here: no GPU was at hand."""

import math
from dataclasses import dataclass

from scaling.traffic import ALL_REDUCE, ALL_TO_ALL, Message, wire


@dataclass(frozen=True, slots=True)
class Device:
    """What computes.

    Attributes:
        peak: FLOP/s of products.
        memory: bytes/s.
        utilisation: share of the peak that a step's large products reach.
        launch: seconds of one time step of a recurrent layer, however small.
    """

    name: str
    peak: float
    memory: float
    utilisation: float
    launch: float = 1e-5


@dataclass(frozen=True, slots=True)
class Link:
    """What connects `per_node` devices, and the nodes.

    Attributes:
        inside: bytes/s that a device sends to those of its node.
        outside: bytes/s that a node sends to the others, all its devices together.
        inside_alpha, outside_alpha: seconds before the first byte arrives.
        peer_seconds: of an all-to-all, for each other process.
    """

    name: str
    inside: float
    outside: float
    inside_alpha: float = 4e-6
    outside_alpha: float = 11e-6
    per_node: int = 8
    peer_seconds: float = 1e-6

    def seconds(self, message: Message, size: int) -> float:
        """How long a collective of `size` processes takes.

        A ring goes through all devices at the speed of its slowest part, for a node's adapters
        carry as many rings as there are; an all-to-all goes both ways at once. Latencies are those
        of trees.
        """
        near = min(size, self.per_node)
        nodes = math.ceil(size / near)
        latency = math.log2(near) * self.inside_alpha + math.log2(nodes) * self.outside_alpha
        if message.kind == ALL_TO_ALL:
            inside = message.nbytes * (near - 1) / size / self.inside
            outside = message.nbytes * near * (size - near) / size / self.outside
            return max(inside, outside) + latency + (size - 1) * self.peer_seconds
        slowest = self.inside if nodes == 1 else min(self.inside, self.outside)
        phases = 2 if message.kind == ALL_REDUCE else 1
        return wire(message, size) / slowest + phases * latency


# Vendors' figures, dense, at 16 bits. The utilisation is what NVIDIA's mLSTM reached on V100
# (`published.py`), assumed of the others too.
V100 = Device("V100", peak=125e12, memory=0.9e12, utilisation=0.32)
H100 = Device("H100", peak=989e12, memory=3.35e12, utilisation=0.32)

# H100: of NVLink's 450 GB/s rings reach 370 (nccl-tests issue 212); a 400 Gb/s adapter carries 46
# to 48 GB/s (nccl-tests issue 290); the smallest all-reduce of 16 H20 in two nodes takes 46 µs
# (nccl issue 1244), of which 4 µs a step inside are assumed. TCP's latency is assumed.
INFINIBAND = Link("InfiniBand, 8 x 400 Gb/s", inside=370e9, outside=8 * 47e9)
ETHERNET = Link("Ethernet, 100 Gb/s", inside=370e9, outside=0.9 * 12.5e9, outside_alpha=5e-5)
SLOW = Link("Ethernet, 10 Gb/s", inside=370e9, outside=0.9 * 1.25e9, outside_alpha=5e-5)
LINKS = (INFINIBAND, ETHERNET, SLOW)
