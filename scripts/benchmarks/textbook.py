"""The textbook's side: what most people run, after the plan of pytorch/examples.

`nn.Embedding`, a multi-layer `nn.LSTM`, `nn.GRU` or `nn.RNN` with its own dropout, `nn.Linear`,
log_softmax and nll_loss, `clip_grad_norm_`, and SGD by hand. Nothing is tuned, and all of torch's
settings are its defaults.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.rows import TrainingRow

Hidden = Any  # (h, c) of an LSTM, h of the others, or a list of these for one-layer modules


class TextbookModel(nn.Module):
    """Words to log-probabilities [T·B, V]."""

    def __init__(self, row: TrainingRow) -> None:
        super().__init__()
        kind = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}[row.cell]
        between = row.dropout if row.num_layers > 1 else 0.0
        self.drop = nn.Dropout(row.dropout)
        self.encoder = nn.Embedding(row.vocab_size, row.embedding_size)
        self.rnn = kind(row.embedding_size, row.hidden_size, row.num_layers, dropout=between)
        self.decoder = nn.Linear(row.hidden_size, row.vocab_size)
        if row.tied:
            self.decoder.weight = self.encoder.weight

    def forward(self, tokens: Tensor, hidden: Hidden) -> tuple[Tensor, Hidden]:
        embedded = self.drop(self.encoder(tokens))
        output, hidden = self.rnn(embedded, hidden)
        decoded = self.decoder(self.drop(output))
        return F.log_softmax(decoded.flatten(0, 1), dim=1), hidden


class LockedDropout(nn.Module):
    """One mask for all steps of a window (Gal & Ghahramani 2016), as AWD-LSTM's users have it."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        mask = x.new_empty(1, x.shape[1], x.shape[2]).bernoulli_(1 - self.rate)
        return mask.div_(1 - self.rate).expand_as(x) * x


class LockedTextbookModel(nn.Module):
    """With locked dropout between layers the layers must be modules of their own."""

    def __init__(self, row: TrainingRow) -> None:
        super().__init__()
        sizes = [row.embedding_size] + [row.hidden_size] * row.num_layers
        self.drop = LockedDropout(row.dropout)
        self.encoder = nn.Embedding(row.vocab_size, row.embedding_size)
        self.rnns = nn.ModuleList(map(nn.LSTM, sizes[:-1], sizes[1:]))
        self.decoder = nn.Linear(row.hidden_size, row.vocab_size)
        if row.tied:
            self.decoder.weight = self.encoder.weight

    def forward(self, tokens: Tensor, hidden: Hidden) -> tuple[Tensor, Hidden]:
        x = self.encoder(tokens)
        after = []
        for rnn, before in zip(self.rnns, hidden or [None] * len(self.rnns), strict=True):
            x, state = rnn(self.drop(x), before)
            after.append(state)
        decoded = self.decoder(self.drop(x))
        return F.log_softmax(decoded.flatten(0, 1), dim=1), after


def build(row: TrainingRow, ours: Mapping[str, Tensor] | None = None) -> nn.Module:
    """A textbook model.

    Args:
        ours: `state_dict()` of our model with two biases a layer, to start from its weights.
    """
    with torch.random.fork_rng(devices=[]):
        model = LockedTextbookModel(row) if row.locked else TextbookModel(row)
    if ours is None:
        return model
    renamed = {
        "encoder.weight": ours["embedding.weight"],
        "decoder.weight": ours["embedding.weight" if row.tied else "head.weight"],
        "decoder.bias": ours["head.bias"],
    }
    for layer in range(row.num_layers):
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            target = f"rnns.{layer}.{name}_l0" if row.locked else f"rnn.{name}_l{layer}"
            renamed[target] = ours[f"layers.{layer}.{name}"]
    model.load_state_dict(renamed)
    return model


def repackage(hidden: Hidden) -> Hidden:
    """The hidden state cut from its history."""
    if hidden is None or isinstance(hidden, Tensor):
        return None if hidden is None else hidden.detach()
    return type(hidden)(repackage(part) for part in hidden)


@dataclass(slots=True)
class Loop:
    """The training loop's inside.

    Attributes:
        bf16: run the forward pass under autocast, for a comparison at equal precision.
        norm: of the last step's gradient before clipping.
    """

    model: nn.Module
    lr: float
    clip: float
    bf16: bool = False
    hidden: Hidden = None
    norm: Tensor | None = None

    def step(self, tokens: Tensor, targets: Tensor) -> float:
        """Train on a window; its loss."""
        self.model.zero_grad()
        with torch.autocast(tokens.device.type, torch.bfloat16, enabled=self.bf16):
            output, self.hidden = self.model(tokens, repackage(self.hidden))
            loss = F.nll_loss(output, targets.flatten())
        loss.backward()  # type: ignore[no-untyped-call]
        self.norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        for p in self.model.parameters():
            assert p.grad is not None
            p.data.add_(p.grad, alpha=-self.lr)
        return loss.item()


@torch.no_grad()
def evaluate(model: nn.Module, tokens: Tensor, *, num_streams: int, window: int = 35) -> float:
    """Mean nats per token over a split cut into streams, in chunks of the training length."""
    model.eval()
    length = len(tokens) // num_streams
    data = tokens[: length * num_streams].view(num_streams, length).t().contiguous()
    total, hidden = 0.0, None
    for start in range(0, length - 1, window):
        steps = min(window, length - 1 - start)
        output, hidden = model(data[start : start + steps], hidden)
        targets = data[start + 1 : start + 1 + steps].flatten()
        total += steps * F.nll_loss(output, targets).item()
        hidden = repackage(hidden)
    return total / (length - 1)


@torch.no_grad()
def generate(
    model: nn.Module, first: int, num_tokens: int, device: torch.device, *, greedy: bool = False
) -> list[int]:
    """One word at a time from one stream: exp, then multinomial."""
    model.eval()
    word = torch.full((1, 1), first, dtype=torch.long, device=device)
    hidden, words = None, []
    for _ in range(num_tokens):
        output, hidden = model(word, hidden)
        weights = output.squeeze().exp().cpu()
        chosen = weights.argmax() if greedy else torch.multinomial(weights, 1)[0]
        word.fill_(chosen)
        words.append(int(chosen))
    return words


class Vocabulary:
    """Words and their numbers, in order of appearance."""

    def __init__(self) -> None:
        self.ids: dict[str, int] = {}
        self.words: list[str] = []

    def add(self, word: str) -> None:
        if word not in self.ids:
            self.ids[word] = len(self.words)
            self.words.append(word)


def prepare(path: Path) -> Tensor:
    """A text's token ids: one pass collects the words, the next one looks them up."""
    vocabulary = Vocabulary()
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            for word in [*line.split(), "<eos>"]:
                vocabulary.add(word)
    parts = []
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            ids = [vocabulary.ids[word] for word in [*line.split(), "<eos>"]]
            parts.append(torch.tensor(ids, dtype=torch.int64))
    return torch.cat(parts)
