"""Windows of random length: their distribution, and that counts of steps agree with the walk."""

from pathlib import Path

import numpy as np
import pytest
from harness import Recipe

from lm.data.corpus import Unit
from lm.data.store import Block, write_store
from lm.data.streams import Streams
from lm.errors import ConfigError
from lm.training import TrainerConfig
from lm.training.progress import Limits
from lm.training.windows import RandomWindowConfig, Windows


def streams_of(folder: Path, tokens: int, num_streams: int, window: int) -> Streams:
    store = write_store(folder / "store", [Block(np.zeros(tokens, dtype=np.int64))], vocab_size=2)
    return Streams(store, num_streams, window, Unit.stream)


def test_lengths_are_distributed_as_said_and_repeat_with_the_seed(tmp_path: Path) -> None:
    streams = streams_of(tmp_path, 1000, 2, 70)
    config = RandomWindowConfig(std=5.0, half_probability=0.2)
    windows, other = (Windows(streams, config, seed) for seed in (1, 2))
    lengths = [windows.length(step) for step in range(3000)]
    assert lengths[:300] == [Windows(streams, config, 1).length(step) for step in range(300)]
    backwards = Windows(streams, config, 1)
    assert lengths == [backwards.length(step) for step in reversed(range(3000))][::-1]
    assert lengths != [other.length(step) for step in range(3000)]
    short = [length for length in lengths if length < 52]
    long = [length for length in lengths if length >= 52]
    assert len(short) / 3000 == pytest.approx(0.2, abs=0.03)
    for some, mean in ((short, 35), (long, 70)):
        assert np.mean(some) == pytest.approx(mean - 0.5, abs=0.6)  # cut to whole steps
        assert np.std(some) == pytest.approx(5.0, abs=0.5)


def test_no_window_is_shorter_than_the_minimum(tmp_path: Path) -> None:
    config = RandomWindowConfig(std=50.0, minimum=4)
    windows = Windows(streams_of(tmp_path, 1000, 2, 10), config, 1)
    lengths = [windows.length(step) for step in range(500)]
    assert min(lengths) == 4


@pytest.mark.parametrize(
    "config",
    [RandomWindowConfig(), RandomWindowConfig(std=4.0, minimum=2)],
    ids=["fixed", "random"],
)
def test_counts_agree_with_the_walk(tmp_path: Path, config: RandomWindowConfig) -> None:
    streams = streams_of(tmp_path, 500, 3, 10)
    windows = Windows(streams, config, 7)
    step, tokens, first_steps, tokens_at = 0, 0, [0], [0]
    for epoch in range(4):
        position = 0
        while position < streams.length:
            assert windows.epoch_of(step) == epoch
            part = streams.window(position, windows.length(step))
            position += len(part.tokens)
            tokens += part.num_targets
            step += 1
            tokens_at.append(tokens)
        first_steps.append(step)
        assert tokens == (epoch + 1) * streams.targets_per_epoch
    assert [windows.steps_in(epochs) for epochs in range(5)] == first_steps
    for wanted in (1, 29, 30, 31, 400, 1000):
        assert windows.steps_for(wanted) == next(k for k, n in enumerate(tokens_at) if n >= wanted)
    for epochs, step in enumerate(first_steps):
        limits = Limits.of(TrainerConfig(max_epochs=max(1, epochs)), windows)
        assert limits.total_steps == first_steps[max(1, epochs)]
        assert windows.tokens_in(step) == tokens_at[step]


def test_the_learning_rate_goes_with_the_length(tmp_path: Path) -> None:
    random = RandomWindowConfig(std=4.0)
    recipe = Recipe(tmp_path, trainer={"random_window": random, "valid_every": 100}, steps=6)
    trainer = recipe.build("run")
    rates, lengths = [], []
    inner = trainer.train_step

    def spy(window, state, *, step, lr_multiplier):  # type: ignore[no-untyped-def]
        lengths.append(len(window.tokens))
        rates.append(lr_multiplier)
        return inner(window, state, step=step, lr_multiplier=lr_multiplier)

    spy.norms_by_part = inner.norms_by_part  # type: ignore[attr-defined]
    trainer.train_step = spy  # type: ignore[assignment]
    with trainer.logs(None):
        trainer.fit()
    assert len(set(lengths)) > 2
    assert rates == pytest.approx([length / 16 for length in lengths])


def test_a_deviation_of_zero_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"trainer.random_window.std must be a finite"):
        RandomWindowConfig(std=0.0)
