"""Sampling draws from the model's own distribution, with the state carried."""

from pathlib import Path

import pytest
import torch

from lm.data.tokenizers import ByteTokenizer, WordTokenizer
from lm.errors import NumericError
from lm.models import CELLS, RecurrentModel
from lm.runtime.randomness import generator
from lm.sampling import SamplingConfig, _nucleus, draw, generate, stream_tokens

LOG_PROB = torch.tensor([[0.5, 0.25, 0.15, 0.1]]).log()


def frequencies(config: SamplingConfig, n: int = 20_000) -> list[float]:
    tokens = draw(LOG_PROB.expand(n, -1), config, generator(1, 0, "test"))
    return (torch.bincount(tokens, minlength=4) / n).tolist()


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, [0.5, 0.25, 0.15, 0.1]),
        ({"temperature": 0.5}, [0.7246, 0.1812, 0.0652, 0.029]),  # p² normalised
        ({"temperature": 0.0}, [1, 0, 0, 0]),
        ({"top_k": 2}, [2 / 3, 1 / 3, 0, 0]),
        ({"top_k": 99}, [0.5, 0.25, 0.15, 0.1]),
        ({"top_p": 0.75}, [2 / 3, 1 / 3, 0, 0]),
        ({"top_p": 0.76}, [0.5556, 0.2778, 0.1667, 0]),
        ({"top_p": 0.01}, [1, 0, 0, 0]),
        ({"top_p": 1.0}, [0.5, 0.25, 0.15, 0.1]),
    ],
)
def test_draws_follow_the_distribution(fields: dict[str, float], expected: list[float]) -> None:
    assert frequencies(SamplingConfig(**fields)) == pytest.approx(expected, abs=0.012)


def many(seed: int, rows: int = 60) -> torch.Tensor:
    """Logits of enough tokens for a draw in two stages, no row length a square."""
    noise = torch.empty(rows, 1003).normal_(generator=generator(seed, 0, "logits"))
    return noise * 2


def test_large_vocabularies_are_drawn_by_their_distribution() -> None:
    log_prob = many(1, rows=1)
    n = 20_000
    tokens = draw(log_prob.expand(n, -1), SamplingConfig(), generator(1, 0, "test"))
    # Pearson: mean 1002, variance 2 · 1002.
    counts = torch.bincount(tokens, minlength=1003)
    expected = log_prob[0].softmax(-1)
    chi_square = ((counts - n * expected) ** 2 / (n * expected)).sum().item()
    assert chi_square == pytest.approx(1002, abs=5 * (2 * 1002) ** 0.5)


@pytest.mark.parametrize("rows", [1, 60])
def test_what_is_excluded_is_never_drawn(rows: int) -> None:
    logits = many(2, rows)
    logits[:, 1::2] = -torch.inf
    draws = generator(1, 0, "test")
    for _ in range(200):
        assert (draw(logits, SamplingConfig(temperature=3), draws) % 2 == 0).all()


def test_extreme_uniform_numbers_give_tokens_of_the_support(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    logits = torch.tensor([[-torch.inf, 0.0, -torch.inf, 0.0, -torch.inf]])
    for uniform, expected in ((0.0, 1), (0.5 - 2**-53, 1), (0.5, 3), (1 - 2**-53, 3)):
        value = torch.tensor([[uniform]], dtype=torch.float64)
        monkeypatch.setattr(torch, "rand", lambda *_, value=value, **__: value.clone())
        assert draw(logits, SamplingConfig(), generator(1, 0, "test")).tolist() == [expected]


def test_rare_tokens_keep_their_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """In float32 1 + 1e-9 is 1: the first rare token would get nothing, whatever is drawn."""
    logits = torch.tensor([[0.0, -20.0, -20.0]])
    for uniform, expected in ((1 - 3e-9, 1), (1 - 1e-9, 2), (1 - 5e-9, 0)):
        value = torch.tensor([[uniform]], dtype=torch.float64)
        monkeypatch.setattr(torch, "rand", lambda *_, value=value, **__: value.clone())
        assert draw(logits, SamplingConfig(), generator(1, 0, "test")).tolist() == [expected]


@pytest.mark.parametrize("rows", [1, 60])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize(
    "fields", [{}, {"temperature": 0.0}, {"temperature": 0.5}, {"top_k": 5}, {"top_p": 0.5}]
)
def test_no_distribution_is_an_error(fields: dict[str, float], value: float, rows: int) -> None:
    logits = many(3, rows)
    logits[-1, 7] = value
    with pytest.raises(NumericError, match="NaN"):
        draw(logits, SamplingConfig(**fields), generator(1, 0, "test"))


def test_logits_are_left_as_they_were_and_their_constant_does_not_matter() -> None:
    logits = (many(4) * 1024).round() / 1024  # so that adding the constant rounds nothing
    kept = logits.clone()
    for fields in ({}, {"temperature": 0.7}, {"top_k": 5}, {"top_p": 0.5}, {"temperature": 1e-40}):
        config = SamplingConfig(**fields)
        tokens = [
            draw(log_prob, config, generator(1, 0, "test")).tolist()
            for log_prob in (logits, logits + 64)
        ]
        assert tokens[0] == tokens[1]
    assert torch.equal(logits, kept)


@pytest.mark.parametrize("scale", [0.01, 1, 20])
@pytest.mark.parametrize("top_p", [0.001, 0.5, 0.9, 0.9999])
def test_the_nucleus_is_that_of_a_full_sort(top_p: float, scale: float) -> None:
    logits = many(5, rows=3) * scale
    ordered, index = logits.double().softmax(-1).sort(descending=True)
    inside = ordered.cumsum(-1) - ordered < top_p - 1e-6
    outside = ordered.cumsum(-1) - ordered >= top_p + 1e-6
    kept = _nucleus(logits, top_p).isfinite().gather(1, index)
    assert kept[inside].all()
    assert not kept[outside].any()


def model_of() -> RecurrentModel:
    model = CELLS["lstm"](embedding_size=8, hidden_size=12, num_layers=2).build(256, seed=3)
    for parameter in model.parameters():
        parameter.data.mul_(4)  # sharp enough that the state matters
    return model


def test_carrying_the_state_equals_reading_everything_again() -> None:
    model, prompt = model_of(), [5, 9, 200]
    greedy = SamplingConfig(temperature=0)
    stream = stream_tokens(model, prompt, 2, greedy, generator(1, 0, "x"))
    carried = [next(stream).tolist() for _ in range(12)]
    ids = list(prompt)
    for pair in carried:
        features, _ = model.features(torch.tensor(ids)[:, None])
        token = int(model.head.log_prob(features[-1]).argmax())
        assert pair == [token, token]
        ids.append(token)


def test_seed_decides_and_samples_differ() -> None:
    def sample(seed: int) -> list[bytes]:
        draws = generator(seed, 0, "generate")
        return generate(
            model_of(), ByteTokenizer(), b"def ", num_tokens=30, num_samples=3, draws=draws
        )

    assert sample(1) == sample(1)
    assert sample(1) != sample(2)
    assert len(set(sample(1))) == 3
    assert all(len(text) == 30 for text in sample(1))


def test_a_stop_string_ends_each_sample_before_it() -> None:
    model = model_of()

    def texts(stop: bytes | None) -> list[bytes]:
        return generate(
            model, ByteTokenizer(), b"a", num_tokens=400, num_samples=3, stop=stop,
            draws=generator(4, 0, "generate"),
        )  # fmt: skip

    whole = texts(None)
    stop = whole[1][7:9]
    for text, full in zip(texts(stop), whole, strict=True):
        assert text == full.split(stop)[0]


def test_an_empty_prompt_begins_after_a_line_end() -> None:
    words = WordTokenizer([b"a", b"<eos>", b"<unk>"], b"<unk>", 1)
    model = CELLS["rnn"](embedding_size=4, hidden_size=4).build(3, seed=1)
    one = generate(model, words, b"", num_tokens=9, draws=generator(1, 0, "g"))
    other = generate(model, words, b"\n", num_tokens=9, draws=generator(1, 0, "g"))
    assert one == other


def test_a_prompt_outside_utf8_survives(tmp_path: Path) -> None:
    (text,) = generate(
        model_of(), ByteTokenizer(), b"\xff\xfe", num_tokens=3, draws=generator(1, 0, "g")
    )
    assert len(text) == 3
