"""An LSTM language model under Lightning's Trainer, as its documentation leads one to write it.

Every window of truncated back-propagation is a batch, the state is carried in an attribute, and the
loader can say and take its position (`state_dict`, `load_state_dict`), which Lightning asks for to
resume within an epoch. The Trainer has its `ModelCheckpoint` every so many steps, another for the
best validation loss, and `OnExceptionCheckpoint`. With `--keep-state` the hooks that Lightning
offers for what it does not save by itself also carry the recurrent state and the generator.

    python lightning_lm.py fit --data FOLDER --out FOLDER [--resume CHECKPOINT] [--keep-state]
    python lightning_lm.py generate --data FOLDER --checkpoint CHECKPOINT
"""

import argparse
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, OnExceptionCheckpoint
from torch import Tensor, nn

State = tuple[Tensor, Tensor]


class Text:
    """The three splits as word ids."""

    def __init__(self, folder: Path) -> None:
        self.words: dict[str, int] = {}
        self.train, self.valid = (self._read(folder / f"{name}.txt") for name in ("train", "valid"))

    def _read(self, path: Path) -> Tensor:
        ids = []
        for line in path.read_text(encoding="utf-8").splitlines():
            for word in [*line.split(), "<eos>"]:
                ids.append(self.words.setdefault(word, len(self.words)))
        return torch.tensor(ids)


class Windows:
    """Consecutive windows of parallel streams, resumable within an epoch."""

    def __init__(self, ids: Tensor, streams: int, window: int) -> None:
        length = len(ids) // streams
        self.columns = ids[: length * streams].view(streams, length).t().contiguous()
        self.window = window
        self.position = 0

    def __len__(self) -> int:
        return -(-(len(self.columns) - 1) // self.window)

    def __iter__(self) -> Iterator[State]:
        if self.position >= len(self):  # the Trainer asks for no more than there are
            self.position = 0
        while self.position < len(self):
            begin = self.position * self.window
            end = min(begin + self.window, len(self.columns) - 1)
            self.position += 1
            yield self.columns[begin:end], self.columns[begin + 1 : end + 1]

    def state_dict(self) -> dict[str, Any]:
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.position = state["position"]


class RecurrentLM(lightning.LightningModule):  # type: ignore[misc]
    """Embedding, LSTM, softmax."""

    def __init__(
        self, vocabulary: int, size: int, dropout: float, lr: float, keep_state: bool = False
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.embedding = nn.Embedding(vocabulary, size)
        self.rnn = nn.LSTM(size, size, num_layers=2, dropout=dropout)
        self.drop = nn.Dropout(dropout)
        self.output = nn.Linear(size, vocabulary)
        self.state: State | None = None
        self.valid_state: State | None = None

    def forward(self, tokens: Tensor, state: State | None) -> tuple[Tensor, State]:
        features, state = self.rnn(self.drop(self.embedding(tokens)), state)
        assert state is not None
        return self.output(self.drop(features)), (state[0].detach(), state[1].detach())

    def on_train_epoch_start(self) -> None:
        self.state = None

    def training_step(self, batch: State, batch_idx: int) -> Tensor:
        logits, self.state = self(batch[0], self.state)
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), batch[1].flatten())
        self.log("train_loss", loss)
        return loss

    def on_validation_epoch_start(self) -> None:
        self.valid_state = None

    def validation_step(self, batch: State, batch_idx: int) -> None:
        logits, self.valid_state = self(batch[0], self.valid_state)
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), batch[1].flatten())
        self.log("valid_loss", loss, batch_size=batch[0].numel())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=self.hparams["lr"])

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.hparams["keep_state"]:
            checkpoint["recurrent_state"] = self.state
            checkpoint["generator"] = torch.get_rng_state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.hparams["keep_state"]:
            self.state = checkpoint["recurrent_state"]
            torch.set_rng_state(checkpoint["generator"])


def trainer(asked: argparse.Namespace) -> lightning.Trainer:
    """With every means against faults that Lightning has of its own."""
    return lightning.Trainer(
        default_root_dir=asked.out,
        max_epochs=asked.epochs,
        accelerator="cpu",
        gradient_clip_val=asked.clip,
        detect_anomaly=asked.detect_anomaly,
        callbacks=[
            ModelCheckpoint(every_n_train_steps=asked.every),
            ModelCheckpoint(monitor="valid_loss", filename="best"),
            OnExceptionCheckpoint(asked.out),
        ],
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def fit(asked: argparse.Namespace) -> None:
    """Train, from a checkpoint where one is given."""
    lightning.seed_everything(asked.seed)
    text = Text(asked.data)
    model = RecurrentLM(len(text.words), asked.size, asked.dropout, asked.lr, asked.keep_state)
    runner = trainer(asked)
    train = Windows(text.train, asked.streams, asked.window)
    runner.fit(model, train, Windows(text.valid, 10, asked.window), ckpt_path=asked.resume)
    runner.save_checkpoint(Path(runner.log_dir) / "final.ckpt")


def generate(asked: argparse.Namespace) -> None:
    """Print some words, from a checkpoint alone."""
    text = Text(asked.data)
    model = RecurrentLM.load_from_checkpoint(asked.checkpoint).eval()
    names, state = list(text.words), None
    token = torch.zeros(1, 1, dtype=torch.long)
    with torch.no_grad():
        for _ in range(asked.length):
            logits, state = model(token, state)
            token = torch.multinomial(logits[-1].softmax(-1), 1)
            print(names[int(token)], end=" ")


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(allow_abbrev=False)
    verbs = p.add_subparsers(required=True)
    train = verbs.add_parser("fit", allow_abbrev=False)
    train.set_defaults(run=fit)
    train.add_argument("--out", type=Path, required=True)
    train.add_argument("--resume", help="a checkpoint")
    for name, value in (("epochs", 3), ("every", 10), ("seed", 1), ("window", 35), ("streams", 20)):
        train.add_argument(f"--{name}", type=int, default=value)
    for name, number in (("lr", 5.0), ("clip", 0.25), ("dropout", 0.2)):
        train.add_argument(f"--{name}", type=float, default=number)
    train.add_argument("--size", type=int, default=32)
    train.add_argument("--keep-state", action="store_true")
    train.add_argument("--detect-anomaly", action="store_true")
    sample = verbs.add_parser("generate", allow_abbrev=False)
    sample.set_defaults(run=generate)
    sample.add_argument("--checkpoint", required=True)
    sample.add_argument("--length", type=int, default=5)
    for verb in (train, sample):
        verb.add_argument("--data", type=Path, required=True)
    return p


if __name__ == "__main__":
    warnings.filterwarnings("ignore", ".*num_workers.*")
    asked = parser().parse_args()
    asked.run(asked)
