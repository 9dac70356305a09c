"""What a run says of itself: the numbers of a log point, and a little text after a validation."""

import logging
import math

from lm.data.store import TokenStore
from lm.metrics import tags
from lm.metrics.perplexity import exp, floor_scalars
from lm.runtime.randomness import generator
from lm.sampling import SamplingConfig, generate
from lm.training.run import Run
from lm.training.statistics import Interval

log = logging.getLogger(__name__)


def interval_scalars(run: Run, interval: Interval, rate: float) -> dict[str, float]:
    """The steps since the last log point by tag.

    Args:
        rate: tokens per second.
    """
    values = {
        tags.TRAIN_LOSS: interval.loss,
        tags.TRAIN_PERPLEXITY: exp(interval.loss),
        tags.LEARNING_RATE: run.optimizers.lr,
        tags.GRADIENT_NORM: interval.gradient_norm,
        tags.LARGEST_GRADIENT_NORM: interval.largest_norm,
        tags.CLIP_FRACTION: interval.clip_fraction,
        tags.SKIPPED_STEPS: float(interval.skipped),
        tags.TOKENS_PER_SECOND: rate,
        tags.SECONDS: run.progress.seconds,
        tags.SAVE_SECONDS: run.saver.seconds,
        tags.EPOCH: run.epochs_done,
    }
    if run.config.clip.norm is not None:
        values[tags.CLIP_THRESHOLD] = run.config.clip.norm
    store = run.streams.store
    if store.floor_nats is not None:  # beside the loss that it bounds
        values |= floor_scalars("train", store.floor_nats / (len(store) - 1))
    per_byte = _bits_per_byte_factor(store)
    if per_byte is not None:
        values[tags.TRAIN_BITS_PER_BYTE] = interval.loss * per_byte
    for part, norm in run.train_step.norms_by_part().items():
        values[tags.GRADIENT_NORM_PART.format(part=part)] = norm
    return values


def _bits_per_byte_factor(store: TokenStore) -> float | None:
    """Bits per byte of one nat per token on this split; None where tokenization is lossy."""
    header = store.header
    if store.lossless_reason() is not None or not header.num_bytes:
        return None
    return header.num_tokens / header.num_bytes / math.log(2)


def sample(run: Run) -> None:
    """Generate a little text, so that a person sees what the numbers mean."""
    config, progress = run.config, run.progress
    # A model that is split computes with all processes, which all draw the same.
    if not config.sample_tokens or not (run.processes.first or run.model.shard):
        return
    device = run.model.device
    (text,) = generate(
        run.model,
        run.tokenizer,
        run.prompt.encode(),
        num_tokens=config.sample_tokens,
        config=SamplingConfig(temperature=config.sample_temperature),
        draws=generator(run.seed, progress.step, "sample", device),
    )
    shown = run.prompt + text.decode("utf-8", errors="replace")
    run.writer.text(progress.step, progress.tokens, tags.SAMPLES, shown)
    log.info("sample\n%s", "\n".join("  | " + line for line in shown.splitlines()))
