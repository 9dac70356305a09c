"""`lm generate`: text from a checkpoint, at once or in a dialogue."""

import logging
import sys

from lm.commands.conversation import Conversation, Settings
from lm.commands.prompt_loop import PromptLoop, ask_terminal, interrupts, say_terminal
from lm.config import GenerateConfig, invocation
from lm.loading import Loaded, load

log = logging.getLogger(__name__)


def run(config: GenerateConfig) -> None:
    """Continue the prompt; on a terminal without one, ask for text time and again."""
    compute = config.runtime.build()
    loaded = load(config.run, checkpoint=config.checkpoint, device=str(compute.device))
    loaded.model.compute = compute
    call = invocation()
    several_jobs = call is not None and call.job_directory is not None
    terminal = sys.stdin.isatty() and sys.stdout.isatty() and not several_jobs
    if config.is_dialogue(on_terminal=terminal):
        converse(loaded, config)
    else:
        show_samples(loaded, config)


def converse(loaded: Loaded, config: GenerateConfig) -> None:
    """A dialogue until the user leaves."""
    settings = Settings(
        sampling=config.sampling(),
        num_tokens=config.num_tokens,
        seed=config.seed,
        stop=config.stop,
    )
    log.info("%s", loaded.path)
    conversation = Conversation(loaded.model, loaded.tokenizer, settings)
    PromptLoop(conversation, ask_terminal, say_terminal, interrupts).run(config.prompt)


def show_samples(loaded: Loaded, config: GenerateConfig) -> None:
    """Print the prompt with each continuation; several are set apart by a line."""
    prompt = config.prompt or ""
    unknown = loaded.unknown_in(prompt)
    if unknown:
        log.warning("%d tokens of the prompt are unknown to this tokenizer", unknown)
    samples = loaded.generate(
        prompt,
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
        sys.stdout.write(f"{prompt}{sample}\n")
