"""A trained model, ready to generate and to score: `lm.load(path)`."""

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from omegaconf import DictConfig
from torch import Tensor

from lm import checks
from lm.checkpoint import Checkpoint, read_any
from lm.config import TrainConfig, parse_saved, saved_config
from lm.data.tokenizers import Tokenizer, tokenizer_from_json
from lm.errors import DataError
from lm.models import LanguageModel
from lm.models.restore import check_fit, restored
from lm.runtime.device import find_device
from lm.runtime.randomness import generator
from lm.runtime.untrusted import as_texts
from lm.sampling import SamplingConfig, generate
from lm.scoring.columns import COLUMNS
from lm.scoring.output import records
from lm.scoring.reading import Reader, predictor
from lm.scoring.scorer import Carry, Scorer
from lm.scoring.units import Level
from lm.training.identity import compare_fingerprints, fingerprints


@dataclass(frozen=True, slots=True)
class Loaded:
    """A checkpoint in memory.

    Attributes:
        config: the configuration it was trained with.
        path: the checkpoint's folder.
        data: fingerprint of the tokens of each split that it was trained with.
    """

    model: LanguageModel
    tokenizer: Tokenizer
    config: TrainConfig
    path: Path
    data: dict[str, str]

    def generate(
        self,
        prompt: str = "",
        *,
        num_tokens: int = 200,
        num_samples: int = 1,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int = 1,
        stop: str | None = None,
    ) -> list[str]:
        """Continuations of a prompt, without the prompt; bytes that are no UTF-8 are replaced."""
        texts = generate(
            self.model,
            self.tokenizer,
            prompt.encode(),
            num_tokens=num_tokens,
            num_samples=num_samples,
            config=SamplingConfig(temperature=temperature, top_k=top_k, top_p=top_p),
            draws=generator(seed, 0, "generate", self.model.device),
            stop=stop.encode() if stop else None,
        )
        return [text.decode("utf-8", errors="replace") for text in texts]

    def unknown_in(self, text: str) -> int:
        """How many tokens of a text stand for something outside the vocabulary."""
        raw = text.encode()
        return self.tokenizer.count_unknown(raw, self.tokenizer.encode(raw))

    def score(self, text: str) -> tuple[list[str], Float[Tensor, " N"]]:
        """The text's tokens but the first, which is context, and −log p of each in nats.

        Raises:
            DataError: the text has fewer than two tokens.
        """
        ids = self.tokenizer.encode(text.encode())
        if len(ids) < 2:
            raise DataError(f"{text!r} has {len(ids)} tokens", "Scoring needs at least 2.")
        found = Reader(self.model, predict=predictor(self.model, detailed=False)).read(ids)
        nats = torch.from_numpy(found.nats[1:]).float()
        return [self.tokenizer.token(int(i)) for i in ids[1:]], nats

    def surprisal(
        self,
        text: str,
        *,
        level: str = "word",
        state: str = "carry",
        begin: bool = False,
        window: int = 1024,
    ) -> list[dict[str, object]]:
        """The rows of `lm score`, by the names of its columns; None where there is no number.

        Args:
            level: `token`, `word`, `sentence` or `document`.
            state: `carry` reads line after line, `reset` each by itself after a line end.
            begin: put a line end before the text, so that its first token has a surprisal.
            window: tokens per chunk; changes speed and memory, not the numbers.

        Raises:
            ConfigError: there is no such level or state.
            DataError: the text has no tokens.
        """
        checks.one_of("level", level, Level.__members__)
        checks.one_of("state", state, Carry.__members__)
        columns = COLUMNS[Level[level]]
        scorer = Scorer(
            self.model, self.tokenizer, level=Level[level], columns=columns, window=window,
            begin=begin,
        )  # fmt: skip
        tables = list(scorer.texts(text.encode(), Carry[state]))
        if not scorer.totals.num_tokens:
            raise DataError(f"{text!r} has no tokens", "Give it at least one word.")
        if Level[level] is Level.document:
            tables = [scorer.totals.table(columns)]
        return [row for table in tables for row in records(table)]


@dataclass(frozen=True, slots=True)
class Opened:
    """A checkpoint whose parts agree with each other; no model has been made of it.

    Attributes:
        composed: the configuration before it was parsed.
    """

    composed: DictConfig
    config: TrainConfig
    tokenizer: Tokenizer


def opened(folder: Path, saved: Checkpoint) -> Opened:
    """Look through a checkpoint that may be a stranger's.

    Args:
        folder: where it was read, for messages.

    Raises:
        CheckpointError: a part is malformed, of a component that is not registered here, or does
            not belong to the others.
    """
    path = folder / "config.yaml"
    composed = saved_config(saved.config, path)
    config = parse_saved(composed, path)
    tokenizer = tokenizer_from_json(saved.tokenizer)
    compare_fingerprints(fingerprints(config.model, tokenizer), saved.state)
    check_fit(config.model, tokenizer.vocab_size, saved.model)
    return Opened(composed, config, tokenizer)


def load(path: str | Path, *, checkpoint: str = "best", device: str = "cpu") -> Loaded:
    """The model and tokenizer of a run directory or a checkpoint, verified, in evaluation mode.

    Args:
        path: a folder of runs, such as `runs/<name>`, stands for the newest run in it.
        checkpoint: of a run: `best`, `last` or a name such as `step-000001000`.

    Raises:
        CheckpointError: it is missing, damaged, or of a component that is not registered here.
    """
    folder, saved = read_any(Path(path), checkpoint)
    found = opened(folder, saved)
    model = restored(found.config.model, found.tokenizer.vocab_size, saved.model)
    model.to(find_device(device)).eval().requires_grad_(False)
    data = as_texts(saved.state.get("data", {}), "state.data")
    return Loaded(model, found.tokenizer, found.config, folder, data)
