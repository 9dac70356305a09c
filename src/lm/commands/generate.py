"""`lm generate`: text from a checkpoint."""

import logging
import sys

from lm.config import GenerateConfig
from lm.loading import load

log = logging.getLogger(__name__)


def run(config: GenerateConfig) -> None:
    """Print the prompt with each continuation; several are set apart by a line."""
    compute = config.runtime.build()
    loaded = load(config.run, checkpoint=config.checkpoint, device=str(compute.device))
    loaded.model.compute = compute
    unknown = loaded.unknown_in(config.prompt)
    if unknown:
        log.warning("%d tokens of the prompt are unknown to this tokenizer", unknown)
    samples = loaded.generate(
        config.prompt,
        num_tokens=config.num_tokens,
        num_samples=config.num_samples,
        temperature=config.temperature,
        top_k=config.top_k,
        top_p=config.top_p,
        seed=config.seed,
        stop=config.stop,
    )
    for number, sample in enumerate(samples, start=1):
        if len(samples) > 1:
            sys.stdout.write(f"{'' if number == 1 else chr(10)}--- sample {number} ---\n")
        sys.stdout.write(f"{config.prompt}{sample}\n")
