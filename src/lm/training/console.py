"""What a person watches: a bar on a terminal, a line per log interval elsewhere."""

import logging
import sys

from tqdm import tqdm

from lm.metrics.perplexity import exp
from lm.training.progress import Progress
from lm.training.statistics import Interval

log = logging.getLogger(__name__)


class Console:
    """The bar counts tokens, so that its rate and ETA are in the unit that people compare."""

    def __init__(self, progress: Progress, total_tokens: int | None, *, bar: bool) -> None:
        self.show = bar and sys.stderr.isatty()
        self.bar = tqdm(
            total=total_tokens,
            initial=progress.tokens,
            unit="tok",
            unit_scale=True,
            dynamic_ncols=True,
            smoothing=0.05,
            disable=not self.show,
        )

    def advance(self, num_tokens: int) -> None:
        """Move the bar."""
        self.bar.update(num_tokens)

    def report(self, progress: Progress, interval: Interval, rate: float) -> None:
        """Show a log point."""
        perplexity = exp(interval.loss)
        if self.show:
            self.bar.set_postfix_str(
                f"epoch {progress.epoch + 1}, loss {interval.loss:.3f}, ppl {perplexity:.1f}",
                refresh=False,
            )
        else:
            log.info(
                "step %d  epoch %d  loss %.4f  ppl %.2f  %.0f tok/s",
                progress.step, progress.epoch + 1, interval.loss, perplexity, rate,
            )  # fmt: skip

    def close(self) -> None:
        """Leave the finished bar on the screen."""
        self.bar.close()
