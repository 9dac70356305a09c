"""Sampled softmax: in training, the normaliser from the frequent words and some of the others.

In a small model with a vocabulary of ten thousand words the output layer is four fifths of the
arithmetic. The frequent words carry most of the probability and always take part; the others are
drawn anew in each step and stand for those that were not (importance sampling: Bengio & Senécal
2003; Jean et al. 2015). Validation, test and scoring use the whole softmax.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from lm import checks
from lm.models.kernels.sampled import Sample
from lm.runtime.randomness import Noise


@dataclass(kw_only=True, slots=True)
class SampledConfig:
    """How the softmax of training is sampled.

    Attributes:
        words: how many of the less frequent words are drawn in each step; None is the whole
            softmax.
        frequent: how many of the most frequent words always take part.
        power: a word's chance to be drawn goes with its count in the training text to this power;
            0 draws all alike.
    """

    words: int | None = None
    frequent: int = 1000
    power: float = 0.5

    def __post_init__(self) -> None:
        checks.at_least("model.sampled.words", self.words, 1)
        checks.at_most("model.sampled.words", self.words, checks.MOST_HELD)
        checks.at_least("model.sampled.frequent", self.frequent, 0)
        checks.non_negative("model.sampled.power", self.power)

    def build(self, counts: Int[Tensor, " V"] | None) -> "Sampler | None":
        """What draws the words; None where the whole softmax is used.

        Args:
            counts: of each word in the training text; None is no training.
        """
        if self.words is None or counts is None or self.frequent + self.words >= len(counts):
            return None
        return Sampler(counts, self.frequent, self.words, self.power)


class Sampler:
    """Draws words without replacement, a word's chance going with a weight w.

    Each word draws a time e / w with e ~ Exp(1); the `size` earliest are the sample, and the next
    one's time τ is the threshold. Given τ a word is in with probability 1 − exp(−w τ), whose
    inverse makes the estimate of any sum over the vocabulary unbiased (Duffield, Lund & Thorup
    2007; Rosén 1997).
    """

    def __init__(
        self, counts: Int[Tensor, " V"], num_frequent: int, size: int, power: float
    ) -> None:
        order = counts.argsort(descending=True, stable=True)
        self._frequent, self._others = order[:num_frequent], order[num_frequent:]
        self._weight = counts[self._others].clamp(min=1).double() ** power
        self._size = size

    def draw(self, noise: Noise, device: torch.device) -> Sample:
        """The sample of this step, the same for all its streams and on every device."""
        uniform = noise.uniform("head.sample", len(self._others))
        times = -uniform.log() / self._weight
        earliest, index = times.topk(self._size + 1, largest=False)
        index, threshold = index[:-1], earliest[-1]
        chance = -torch.expm1(-self._weight[index] * threshold)
        words = torch.cat([self._frequent, self._others[index]])
        log_weight = torch.cat([chance.new_zeros(len(self._frequent)), -chance.log()])
        column = words.new_full((len(self._frequent) + len(self._others),), -1)
        column[words] = torch.arange(len(words))
        return Sample(words.to(device), log_weight.float().to(device), column.to(device))
