"""What is compared, row by row; imports nothing heavy, so that `--help` and mistakes are quick."""

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRow:
    """One model and batch whose training step is timed.

    Attributes:
        cell: `lstm`, `gru` or `rnn` (tanh).
        dropout: rate on the embedding, between layers and on the output.
        locked: one dropout mask a window instead of one an element.
        memory: peak memory of a fresh process is reported as well.
        cuda_only: left out elsewhere unless asked for by name.
    """

    name: str
    cell: str = "lstm"
    vocab_size: int = 10_000
    embedding_size: int
    hidden_size: int
    num_layers: int = 2
    tied: bool = False
    streams: int = 20
    window: int = 35
    dropout: float = 0.0
    locked: bool = False
    memory: bool = False
    cuda_only: bool = False

    @property
    def num_gates(self) -> int:
        """G, the blocks in a layer's matrices."""
        return {"lstm": 4, "gru": 3, "rnn": 1}[self.cell]

    @property
    def tokens(self) -> int:
        """T·B of a step."""
        return self.window * self.streams

    @property
    def description(self) -> str:
        """For people."""
        sizes = f"{self.num_layers}x{self.hidden_size}"
        if self.embedding_size != self.hidden_size:
            sizes += f" (embedding {self.embedding_size})"
        return (
            f"{self.cell.upper()} {sizes}, {'tied' if self.tied else 'untied'},"
            f" V {self.vocab_size:,}, B {self.streams}, T {self.window},"
            f" {'locked ' if self.locked else ''}dropout {self.dropout:g}"
        )

    def tiny(self) -> "TrainingRow":
        """The same kind of model at a size that takes no time."""
        embedding = 8 if self.embedding_size == self.hidden_size else 6
        return replace(
            self, vocab_size=50, embedding_size=embedding, hidden_size=8, streams=4, window=5
        )


def _square(name: str, size: int, **fields: object) -> TrainingRow:
    return replace(TrainingRow(name=name, embedding_size=size, hidden_size=size), **fields)  # type: ignore[arg-type]


TRAINING = {
    row.name: row
    for row in (
        _square("ptb_2x200", 200, dropout=0.2),
        _square("ptb_2x650", 650, tied=True, dropout=0.5),
        _square("ptb_2x650_b64", 650, tied=True, dropout=0.5, streams=64, window=70),
        _square("ptb_2x1500", 1500, tied=True, dropout=0.65),
        _square("ptb_2x650_locked", 650, tied=True, dropout=0.5, locked=True),
        _square("char_1x512", 512, vocab_size=100, num_layers=1, streams=64, window=128),
        _square("wt103_vocab", 400, vocab_size=267_735, tied=True, dropout=0.2, memory=True),
        _square("rnn_2x650", 650, cell="rnn", tied=True, dropout=0.5),
        _square("gru_2x650", 650, cell="gru", tied=True, dropout=0.5),
        TrainingRow(
            name="awd_3x1150",
            embedding_size=400,
            hidden_size=1150,
            num_layers=3,
            streams=80,
            window=70,
            dropout=0.4,
            cuda_only=True,
        ),
    )
}
OTHERS = {
    "evaluation": "LSTM 2x650: the exact score of a split from one stream; that of ten streams",
    "generation": "LSTM 2x200: one text; sixteen, which the textbook makes one after the other",
    "preparation": "20 MB of text to token ids with a word vocabulary counted on it",
    "start_up": "`lm --help`, and `import lm, torch`, against `import torch`",
}
NAMES = (*TRAINING, *OTHERS)


def selected(wanted: str | None) -> list[str]:
    """Row names for `--rows`: each entry is a row's name or else the beginning of some.

    Raises:
        ValueError: an entry matches no row; one line that lists them.
    """
    if wanted is None:
        return list(NAMES)
    chosen: set[str] = set()
    for entry in wanted.split(","):
        matches = [entry] if entry in NAMES else [n for n in NAMES if entry and n.startswith(entry)]
        if not matches:
            raise ValueError(f"no row is called {entry!r}; rows: {', '.join(NAMES)}")
        chosen.update(matches)
    return [name for name in NAMES if name in chosen]
