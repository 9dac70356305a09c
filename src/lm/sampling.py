"""Text from a model: one step a token with the state carried, so each token costs the same."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from lm import checks
from lm.data.tokenizers import Tokenizer
from lm.errors import NumericError
from lm.models import LanguageModel
from lm.models.stepper import stepper_after

# From this many weights on, two short searches are faster than one long one.
_MANY = 50_000
# Candidates for the nucleus at first.
_FEW = 256


@dataclass(kw_only=True, slots=True)
class SamplingConfig:
    """How the next token is drawn.

    Attributes:
        temperature: divides the log-probabilities; 0 is greedy.
        top_k: draw from the k most probable tokens only; None is off.
        top_p: draw from the smallest set with at least this probability (nucleus sampling,
            Holtzman et al. 2020); None is off.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self) -> None:
        checks.non_negative("temperature", self.temperature)
        checks.at_least("top_k", self.top_k, 1)
        checks.proportion("top_p", self.top_p)


def draw(
    logits: Float[Tensor, "B V"], config: SamplingConfig, draws: Generator
) -> Int[Tensor, " B"]:
    """One token per row.

    Args:
        logits: log-probabilities up to a constant per row.

    Raises:
        NumericError: the model's output is not a distribution.
    """
    if config.temperature == 0:
        token = logits.argmax(-1)  # NaN counts as the largest
        _check(bool(logits.gather(1, token[:, None]).isfinite().all()))
        return token
    # The largest becomes 0, so that no temperature, however small, makes an infinity of it.
    logits = logits - logits.amax(-1, keepdim=True)
    if config.temperature != 1:
        logits.div_(config.temperature)
    if config.top_k is not None and config.top_k < logits.shape[-1]:
        threshold = logits.topk(config.top_k).values[:, -1:]
        logits.masked_fill_(logits < threshold, -torch.inf)
    if config.top_p is not None and config.top_p < 1:
        logits = _nucleus(logits, config.top_p)
    return _draw_by(logits.exp_(), draws)


def _check(sound: bool) -> None:
    if not sound:
        raise NumericError(
            "the model gives NaN: its weights diverged", "Use a checkpoint from before that."
        )


def _draw_by(weights: Float[Tensor, "B V"], draws: Generator) -> Int[Tensor, " B"]:
    """Of many weights first a block, then a token in it: most need no cumulative sum then."""
    if weights.numel() < _MANY:
        return _invert(weights, draws)
    num_streams, vocab_size = weights.shape
    length = math.isqrt(vocab_size)
    padding = -vocab_size % length
    if padding:
        weights = nn.functional.pad(weights, (0, padding))
    blocks = weights.view(num_streams, -1, length)
    block = _invert(blocks.sum(-1), draws)
    inside = blocks[torch.arange(num_streams, device=block.device), block]
    return block * length + _invert(inside, draws)


def _invert(weights: Float[Tensor, "B K"], draws: Generator) -> Int[Tensor, " B"]:
    """Inverse transform sampling: where the cumulative weight first exceeds a uniform number.

    One random number per row, where `torch.multinomial` draws one per element. Sums are in float64
    where the device has it, so that rare tokens are not rounded away. Weight 0 is never drawn:
    the sum does not grow there.
    """
    device = weights.device
    dtype = torch.float32 if device.type == "mps" else torch.float64
    cumulative = weights.cumsum(-1, dtype=dtype)
    total = cumulative[:, -1:]
    _check(total.min().item() > 0)  # false for NaN
    uniform = torch.rand((len(total), 1), generator=draws, dtype=dtype, device=device)
    return torch.searchsorted(cumulative, uniform.mul_(total), right=True).squeeze(1)


def _nucleus(logits: Float[Tensor, "B V"], top_p: float) -> Float[Tensor, "B V"]:
    """−inf outside the nucleus. Sorts only as many tokens as hold that much probability."""
    normaliser = logits.logsumexp(-1, keepdim=True)
    count = 0
    while True:
        count = min(8 * count or _FEW, logits.shape[-1])
        whole = count == logits.shape[-1]
        ordered, index = logits.sort(descending=True) if whole else logits.topk(count)
        probability = (ordered - normaliser).exp()
        up_to = probability.cumsum(-1)
        if whole or not bool((up_to[:, -1] < top_p).any()):
            break
    # A token stays when what is more probable does not reach top_p yet; so the first always stays.
    ordered = ordered.masked_fill(up_to - probability >= top_p, -torch.inf)
    return torch.full_like(logits, -torch.inf).scatter_(1, index, ordered)


@torch.no_grad()
def stream_tokens(
    model: LanguageModel,
    prompt: list[int],
    num_samples: int,
    config: SamplingConfig,
    draws: Generator,
) -> Iterator[Int[Tensor, " B"]]:
    """Tokens of `num_samples` continuations of one prompt, endlessly, a step at a time.

    Args:
        prompt: at least one token; it is read once and its state shared by all samples.
    """
    assert prompt, "a model predicts the next token of something"
    stepper = stepper_after(model, torch.tensor(prompt, device=model.device), num_samples)
    while True:
        token = draw(stepper.logits(), config, draws)
        yield token
        stepper.read(token)


def generate(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompt: bytes,
    *,
    num_tokens: int,
    num_samples: int = 1,
    config: SamplingConfig | None = None,
    draws: Generator,
    stop: bytes | None = None,
) -> list[bytes]:
    """Continuations of a prompt, without the prompt.

    Args:
        prompt: empty begins after a line end, the begin symbol of every unit.
        stop: a sample ends before the first occurrence of these bytes.
    """
    ids = tokenizer.encode(prompt).tolist() or [tokenizer.line_end]
    samples: list[list[int]] = [[] for _ in range(num_samples)]
    texts: list[bytes | None] = [None] * num_samples
    stream = stream_tokens(model, ids, num_samples, config or SamplingConfig(), draws)
    for _, tokens in zip(range(num_tokens), stream, strict=False):
        for k, token in enumerate(tokens.tolist()):
            samples[k].append(token)
            if stop and texts[k] is None:
                texts[k] = _until(tokenizer, ids, samples[k], stop)
        if stop and None not in texts:
            break
    return [
        _continuation(tokenizer, ids, sample) if text is None else text
        for sample, text in zip(samples, texts, strict=True)
    ]


def _continuation(tokenizer: Tokenizer, prompt: list[int], sample: list[int]) -> bytes:
    """What the sample adds to the prompt; words need the space between the two."""
    return tokenizer.decode(prompt + sample)[len(tokenizer.decode(prompt)) :]


def _until(tokenizer: Tokenizer, prompt: list[int], sample: list[int], stop: bytes) -> bytes | None:
    """The text before `stop`, once it is there; first looks at what the last tokens completed."""
    if stop not in tokenizer.decode((prompt + sample)[-len(stop) - 1 :]):
        return None
    text = _continuation(tokenizer, prompt, sample)
    return text.split(stop)[0] if stop in text else None
