"""Sampling draws from the model's own distribution, with the state carried."""

from pathlib import Path

import pytest
import torch

from lm.data.tokenizers import ByteTokenizer, WordTokenizer
from lm.models import MODELS, LanguageModel
from lm.runtime.randomness import generator
from lm.sampling import SamplingConfig, draw, generate, stream_tokens

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


def model_of() -> LanguageModel:
    model = MODELS["lstm"](embedding_size=8, hidden_size=12, num_layers=2).build(256, seed=3)
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
    model = MODELS["rnn"](embedding_size=4, hidden_size=4).build(3, seed=1)
    one = generate(model, words, b"", num_tokens=9, draws=generator(1, 0, "g"))
    other = generate(model, words, b"\n", num_tokens=9, draws=generator(1, 0, "g"))
    assert one == other


def test_a_prompt_outside_utf8_survives(tmp_path: Path) -> None:
    (text,) = generate(
        model_of(), ByteTokenizer(), b"\xff\xfe", num_tokens=3, draws=generator(1, 0, "g")
    )
    assert len(text) == 3
