"""Text from a model: one step a token with the state carried, so each token costs the same."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from lm import checks
from lm.data.tokenizers import Tokenizer
from lm.errors import NumericError
from lm.models import LanguageModel


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
    log_prob: Float[Tensor, "B V"], config: SamplingConfig, draws: Generator
) -> Int[Tensor, " B"]:
    """One token per row.

    Raises:
        NumericError: the model's output is not a distribution.
    """
    if bool(log_prob.isnan().any()):
        raise NumericError(
            "the model gives NaN: its weights diverged", "Use a checkpoint from before that."
        )
    if config.temperature == 0:
        return log_prob.argmax(-1)
    # The largest becomes 0, so that no temperature, however small, makes an infinity of it.
    logits = (log_prob - log_prob.amax(-1, keepdim=True)) / config.temperature
    if config.top_k is not None and config.top_k < logits.shape[-1]:
        threshold = logits.topk(config.top_k).values[:, -1:]
        logits = logits.masked_fill(logits < threshold, -torch.inf)
    if config.top_p is not None:
        logits = _nucleus(logits, config.top_p)
    return torch.multinomial(logits.softmax(-1), 1, generator=draws).squeeze(1)


def _nucleus(logits: Float[Tensor, "B V"], top_p: float) -> Float[Tensor, "B V"]:
    ordered, index = logits.sort(descending=True)
    probability = ordered.softmax(-1)
    before = probability.cumsum(-1) - probability
    # A token stays when what is more probable does not reach top_p yet; so the first always stays.
    ordered = ordered.masked_fill(before >= top_p, -torch.inf)
    return torch.empty_like(logits).scatter_(1, index, ordered)


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
    device = model.embedding.weight.device
    tokens = torch.tensor(prompt, device=device)[:, None]
    features, state = model.features(tokens)
    features = features[-1:].expand(-1, num_samples, -1)
    state = [{name: t.expand(num_samples, -1) for name, t in layer.items()} for layer in state]
    while True:
        token = draw(model.head.log_prob(features[0]), config, draws)
        yield token
        features, state = model.features(token[None], state)


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
    ids = tokenizer.encode(prompt).tolist() or [line_end(tokenizer)]
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


def line_end(tokenizer: Tokenizer) -> int:
    """The token that ends a line, or 0 where no single one does."""
    ids = tokenizer.encode(b"\n")
    return int(ids[0]) if len(ids) == 1 else 0
