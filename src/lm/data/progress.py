"""Showing how far reading a text has come: a bar on terminals, a line now and then elsewhere."""

import logging
import time
from types import TracebackType

from tqdm import tqdm

LOG_SECONDS = 30.0

logger = logging.getLogger(__name__)


class Progress:
    """Bytes read, and tokens made of them; a context manager."""

    def __init__(self, total: int, label: str) -> None:
        self._total = total
        self._label = label
        self._bytes = self._tokens = 0
        self._started = self._logged = time.monotonic()
        self._bar = tqdm(
            total=total,
            desc=label,
            unit="B",
            unit_scale=True,
            delay=0.5,
            disable=None,
            leave=False,
            dynamic_ncols=True,
        )

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, where: TracebackType | None
    ) -> None:
        self._bar.close()

    def update(self, num_bytes: int, num_tokens: int = 0) -> None:
        """So many more."""
        self._bytes += num_bytes
        self._tokens += num_tokens
        if self._bar.disable:
            self._log()
            return
        if num_tokens:
            seconds = time.monotonic() - self._started
            rate = f"{self._tokens / max(seconds, 1e-9) / 1e6:.2f}M tok/s"
            self._bar.set_postfix_str(rate, refresh=False)
        self._bar.update(num_bytes)

    def _log(self) -> None:
        now = time.monotonic()
        if now - self._logged < LOG_SECONDS:
            return
        self._logged, seconds = now, now - self._started
        done = f"{self._bytes / 1e6:,.0f} of {self._total / 1e6:,.0f} MB"
        speed = f"{self._bytes / 1e6 / seconds:.1f} MB/s"
        tokens = f", {self._tokens / 1e6 / seconds:.2f}M tok/s" if self._tokens else ""
        left = (self._total - self._bytes) * seconds / max(self._bytes, 1)
        logger.info("%s: %s, %s%s, %.0f s left", self._label, done, speed, tokens, left)
