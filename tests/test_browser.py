"""TensorBoard as it is seen in a browser: a multirun's charts, table of runs, texts, pictures."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lm.cli import main
from lm.metrics.board import CHARTS
from lm.metrics.writer import MetricsWriter

SCRIPTS = Path(__file__).parents[1] / "scripts"
STEPS = 6

pytestmark = [
    pytest.mark.slow,
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tiny runs of a multirun, the first of which was resumed and has a picture."""
    folder = tmp_path_factory.mktemp("multirun")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Path("text.txt").write_text("a cat sees the dog .\nthe dog likes a bird .\n" * 40)
        tiny = [
            "data=text", "data.path=text.txt", "tokenizer=byte", "model.hidden_size=8",
            "model.embedding_size=6", "trainer.batch_size=4", "trainer.window=10",
            f"trainer.max_steps={STEPS}", "trainer.valid_every=2", "trainer.log_every=1",
            "trainer.valid_streams=1", "trainer.sample_tokens=12", "trainer.sample_prompt=a cat",
            "schedule=constant", "runtime.device=cpu", "hydra.sweep.dir=runs",
        ]  # fmt: skip
        assert main(["train", "-m", "model=rnn,gru", *tiny]) == 0
        assert main(["train", "resume=runs/0", f"trainer.max_steps={STEPS + 2}"]) == 0
    writer = MetricsWriter(folder / "runs" / "0", tokens_axis=False, resume=(STEPS + 2, 0, 1 << 40))
    writer.image(STEPS + 2, 0, "gates", np.zeros((8, 8, 3), dtype=np.uint8))
    writer.histogram(STEPS + 2, 0, "state/h", np.linspace(-1, 1, 50))
    writer.close()
    return folder / "runs"


@pytest.fixture(scope="module")
def page_at(runs: Path) -> Iterator[tuple[Any, str]]:
    """A page, and TensorBoard's address."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPTS))
        from browsing.server import browser, missing, tensorboard

        if fault := missing():
            pytest.skip(fault)
        with tensorboard(runs) as address, browser() as page:
            yield page, address


def test_every_chart_of_the_layout_is_there_once_with_its_lines(page_at: tuple[Any, str]) -> None:
    from browsing import tabs

    found = tabs.custom_scalars(*page_at)
    assert list(found) == [title for charts in CHARTS.values() for title in charts]
    # Two runs; training and validation, the corpus having no floor.
    assert found["loss (nats per token) and floor"] == 4
    assert found["gradient norm and clipping threshold"] == 4
    assert found["learning rate"] == 2


def test_the_table_has_a_row_for_each_run_and_what_was_measured(page_at: tuple[Any, str]) -> None:
    from browsing import tabs

    rows = tabs.hparams(*page_at)
    assert [row["model"] for row in rows] == ["rnn", "gru"]
    assert list(rows[0])[2:] == [
        "model", "validation perplexity", "best validation loss", "test perplexity",
        "test bits per byte", "seconds",
    ]  # fmt: skip
    for row in rows:
        assert 1 < float(row["test perplexity"]) < 256
        assert 0 < float(row["test bits per byte"]) < 8


def test_samples_over_time_the_configuration_and_the_command(page_at: tuple[Any, str]) -> None:
    from browsing import tabs

    samples = tabs.texts(*page_at, "samples")
    # At steps 2, 4, 6 and 8 of the resumed run, and 2, 4, 6 of the other.
    assert len(samples) == 7
    assert all(sample.startswith("a cat") for sample in samples)
    descriptions = tabs.texts(*page_at, "description")
    assert any("lm train" in text and "model=gru" in text for text in descriptions)
    assert any("parameters: embedding" in text for text in descriptions)
    assert any("hidden_size: 8" in text for text in tabs.texts(*page_at, "config"))


def test_curves_pictures_and_histograms(page_at: tuple[Any, str]) -> None:
    from browsing import tabs

    cards = tabs.time_series(*page_at, ["valid/loss"])
    assert cards[0] == "valid/loss"
    assert "optim/clip_threshold" in cards
    assert tabs.images(*page_at) == 1
    assert tabs.histograms(*page_at) == 1
