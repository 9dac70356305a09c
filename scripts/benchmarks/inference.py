"""Evaluation and generation: tokens per second, one stream and several."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

from torch import nn

from benchmarks import textbook
from benchmarks.options import Options
from benchmarks.result import MismatchError, Outcome, Result, check_equal
from benchmarks.sides import SEED, build_ours, zipf_tokens
from benchmarks.timing import WHOLE, Settings, Variant, compared, interleave
from lm.data.store import Block, write_store
from lm.evaluation import evaluate
from lm.models import RecurrentModel
from lm.runtime.compute import Compute, Precision
from lm.runtime.randomness import generator
from lm.sampling import SamplingConfig, stream_tokens

# Tokens by number of streams.
_EVALUATED = {1: 2_000, 10: 10_000}
_GENERATED = {1: 400, 16: 6_400}
_GREEDY = 8


@dataclass(frozen=True, slots=True)
class _Pair:
    """A model of ours and the textbook's with the same weights."""

    ours: RecurrentModel
    theirs: nn.Module
    compute: Compute
    settings: Settings

    @classmethod
    def build(cls, name: str, options: Options) -> "_Pair":
        row = options.row(name)
        compute, settings = options.compute()
        ours = build_ours(row)
        theirs = textbook.build(row, ours.state_dict()).to(compute.device)
        ours.to(compute.device).eval()
        ours.compute = compute
        return cls(ours, theirs, compute, settings)


def evaluation(options: Options) -> Iterator[Outcome]:
    """Of a 2×650 model: ours as a whole, the textbook in chunks of 35."""
    pair = _Pair.build("ptb_2x650", options)
    for streams, length in _EVALUATED.items():
        name = "evaluation" if streams == 1 else f"evaluation_{streams}_streams"
        yield _evaluation(name, pair, streams, 20 * streams if options.smoke else length, options)


def _evaluation(name: str, pair: _Pair, streams: int, num_targets: int, options: Options) -> Result:
    device = pair.compute.device
    vocab_size = pair.ours.vocab_size
    tokens = zipf_tokens(num_targets + 1, vocab_size)
    with tempfile.TemporaryDirectory() as folder:
        blocks = [Block(tokens.numpy())]
        store = write_store(Path(folder) / "store", blocks, vocab_size=vocab_size)
        ours = partial(evaluate, pair.ours, store, num_streams=streams)
        theirs = partial(textbook.evaluate, pair.theirs, tokens.to(device), num_streams=streams)
        with pair.settings.applied():
            loss = ours().loss
        # The textbook's streams share no token at their seams, so it leaves out some targets.
        check_equal(f"{name}: the loss", loss, theirs(), 1e-4 if streams == 1 else 1e-3)
        variants = {"ours": Variant(ours, pair.settings), "textbook": Variant(theirs)}
        timings = interleave(variants, options.budget, device, WHOLE)
    left_out = streams - 1 if streams > 1 else 0
    return compared(name, "tokens/s", timings, (num_targets, num_targets - left_out))


def generation(options: Options) -> Iterator[Outcome]:
    """From a 2×200 model; the textbook's loop makes several texts one after the other."""
    pair = _Pair.build("ptb_2x200", options)
    _check_generation(pair, options)
    for samples, num_tokens in _GENERATED.items():
        count = 4 * samples if options.smoke else num_tokens
        theirs_count = 4 if options.smoke else _GENERATED[1]
        variants = {
            "ours": Variant(partial(_generate, pair, samples, count // samples), pair.settings),
            "textbook": Variant(
                partial(textbook.generate, pair.theirs, 0, theirs_count, pair.compute.device)
            ),
        }
        timings = interleave(variants, options.budget, pair.compute.device, WHOLE)
        name = "generation" if samples == 1 else f"generation_{samples}_streams"
        yield compared(name, "tokens/s", timings, (count, theirs_count))


def _generate(pair: _Pair, samples: int, steps: int, temperature: float = 1.0) -> list[list[int]]:
    """Tokens by step and sample, as `lm.generate` collects them."""
    device = pair.ours.device
    config = SamplingConfig(temperature=temperature)
    draws = generator(SEED, 0, "generate", device)
    stream = stream_tokens(pair.ours, [0], samples, config, draws)
    return [tokens.tolist() for tokens in islice(stream, steps)]


def _check_generation(pair: _Pair, options: Options) -> None:
    """Both sides continue alike where nothing is left to chance.

    Raises:
        MismatchError: they do not.
    """
    exact, settings = options.compute(Precision.fp32)
    pair.ours.compute, before = exact, pair.ours.compute
    with settings.applied():
        ours = [step[0] for step in _generate(pair, 1, _GREEDY, temperature=0.0)]
    pair.ours.compute = before
    theirs = textbook.generate(pair.theirs, 0, _GREEDY, exact.device, greedy=True)
    if ours != theirs:
        raise MismatchError(f"generation: greedy tokens are {ours} in ours but {theirs}")
