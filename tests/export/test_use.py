"""`use.py` tokenises and scores as `lm` does, without it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from export_cases import config_of
from hypothesis import given
from hypothesis import strategies as st

from lm.data.corpus import Document
from lm.data.tokenizers import TOKENIZERS, Tokenizer
from lm.export.folder import _describe_tokenizer
from lm.export.graphs import exportable, flat, nested, state_sizes
from lm.models import RecurrentModel

onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra `export`")
use = pytest.importorskip("lm.export.use")

TEXT = (
    "Ein Bär, 2 Bären;\nun été <unk> à Zürich \t naïve\n\n\x0b日本 語 word\u2028line 🙂\r\n"
    "end <eos> 1234567"
)
KINDS = ["byte", "char", "word", "bpe"]


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Tokenizer, Any]]:
    """Ours, and the same one as `use.py` reads it."""
    folder = tmp_path_factory.mktemp("tokenizers")
    (folder / "text").write_bytes(TEXT.encode() * 3)
    built = {}
    for kind in KINDS:
        ours = TOKENIZERS[kind]().build([Document(folder / "text")])
        path = folder / f"{kind}.json"
        path.write_text(json.dumps(_describe_tokenizer(ours)))
        built[kind] = ours, use.read_tokenizer(path, kind)
    return built


@pytest.mark.parametrize("kind", KINDS)
@given(text=st.one_of(st.text(), st.text(alphabet=TEXT)))
def test_tokens_and_text_are_those_of_lm(
    kind: str, text: str, tokenizers: dict[str, tuple[Tokenizer, Any]]
) -> None:
    ours, theirs = tokenizers[kind]
    ids = ours.encode(text.encode()).tolist()
    assert theirs.encode(text) == ids
    assert theirs.decode(ids) == ours.decode(ids).decode("utf-8", "replace")


class Session(onnxruntime.InferenceSession):
    """The model in the place of a graph."""

    def __init__(self, model: RecurrentModel) -> None:
        self.model = model

    def run(self, names: None, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
        names_ = list(state_sizes(self.model))
        assert list(feed) == ["tokens", *names_]
        tokens = torch.from_numpy(feed["tokens"])
        state = nested(self.model, [torch.from_numpy(feed[name]) for name in names_])
        block = tokens if tokens.ndim == 2 else tokens[None]
        log_prob, after = self.model.log_prob(block, state)
        found = log_prob if tokens.ndim == 2 else log_prob[0]
        return [tensor.numpy() for tensor in (found, *flat(self.model, after))]


@pytest.fixture
def model(tokenizers: dict[str, tuple[Tokenizer, Any]], monkeypatch: pytest.MonkeyPatch) -> Any:
    ours, theirs = tokenizers["word"]
    built = exportable(config_of("lstm, learned state").build(ours.vocab_size, seed=2))
    for parameter in built.requires_grad_(False).parameters():
        parameter.add_(0.3)
    loaded = use.Model.__new__(use.Model)
    loaded.tokenizer, loaded.begin, loaded.ours = theirs, 0, built
    start = flat(built, built.initial_state(1))
    loaded.initial_state = lambda: dict(
        zip(state_sizes(built), [tensor.numpy() for tensor in start], strict=True)
    )
    loaded.session = lambda name: Session(built)
    monkeypatch.setattr(use, "CHUNK", 3)
    return loaded


def test_a_score_in_chunks_is_that_of_the_model(model: Any) -> None:
    ids = torch.tensor(model.tokenizer.encode(TEXT))[:, None]
    wanted = model.ours(ids[:-1], ids[1:]).nll[:, 0]
    found, nats = model.score(TEXT)
    assert found == ids[1:, 0].tolist()
    assert nats == pytest.approx(wanted.numpy(), abs=1e-5)


def test_generation_carries_the_state(model: Any) -> None:
    drawn = [t for t, _ in zip(model.generate("Ein Bär,", 0, 1), range(8), strict=False)]
    ids = model.tokenizer.encode("Ein Bär,")
    for token in drawn:
        log_prob, _ = model.ours.log_prob(torch.tensor(ids)[:, None])
        assert token == log_prob[-1, 0].argmax()
        ids.append(token)


def test_draws_follow_the_distribution() -> None:
    draws = np.random.default_rng(1)
    log_prob = np.log(np.array([0.5, 0.25, 0.15, 0.1], np.float32))
    drawn = [use.draw(log_prob, 0.5, draws) for _ in range(4000)]
    share = np.bincount(drawn, minlength=4) / 4000
    assert share == pytest.approx([0.7246, 0.1812, 0.0652, 0.029], abs=0.03)  # p² normalised


def test_what_use_imports_needs_neither_torch_nor_lm() -> None:
    source = Path(use.__file__).read_text()
    imported = {
        line.split()[1]
        for line in source.splitlines()
        if line.lstrip().startswith(("import ", "from "))
    }
    assert imported & {"torch", "lm"} == set()
    assert "from lm" not in source
