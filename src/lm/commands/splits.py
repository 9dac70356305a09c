"""The splits that an evaluation reads, encoded when they are first asked for."""

import logging
from dataclasses import dataclass
from pathlib import Path

from lm.commands.start import build_corpus
from lm.config import EvaluateConfig, InspectConfig
from lm.data.corpus import Corpus, Unit
from lm.data.prepare import prepare
from lm.data.store import TokenStore
from lm.errors import CheckpointError, DataError
from lm.evaluation import check_evaluable
from lm.evaluation.text import Text
from lm.loading import Loaded

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Splits:
    """Gives the splits of a corpus as a model's tokens.

    Attributes:
        unit: where the state is reset.
        own: the corpus is the model's own, and has to be what it was trained with.
        changed: it need not.
    """

    loaded: Loaded
    corpus: Corpus
    unit: Unit
    cache: Path
    own: bool
    changed: bool

    @classmethod
    def of(cls, config: EvaluateConfig | InspectConfig, loaded: Loaded) -> "Splits":
        """Of the corpus that the configuration names, or of the model's own."""
        data = config.data or loaded.config.data
        unit = config.unit or (loaded.config.data.unit if data.unit is Unit.stream else data.unit)
        cache = config.runtime.cache_folder()
        own = config.data is None and unit is data.unit
        return cls(loaded, build_corpus(data, cache), unit, cache, own, config.changed_data)

    def __call__(self, name: str, limit: int | None = None) -> Text:
        """A split, or the first `limit` targets of it.

        Raises:
            DataError: the corpus has no such split, or one without a target.
            CheckpointError: it is not the one that the model was trained with.
        """
        if not self.corpus.split(name):
            raise DataError(
                f"{self.corpus.name} has no {name} split",
                f"Give the corpus one, for example by data=text data.{name}=FILE.",
            )
        prepared = prepare(self.corpus, self.loaded.tokenizer, self.unit, self.cache, splits=[name])
        store = prepared.stores[name]
        store.settle()
        check_evaluable(store, self.corpus.describe(name))
        if self.own:
            self._compare(name, store)
        return Text(name, store, self.unit, limit)

    def held_out(self) -> Text:
        """What the model may be looked at with before it is measured: no test text if possible."""
        return self(next(name for name in ("valid", "test", "train") if self.corpus.split(name)))

    def _compare(self, name: str, store: TokenStore) -> None:
        trained_with = self.loaded.data.get(name, store.fingerprint)
        if trained_with == store.fingerprint:
            return
        if not self.changed:
            raise CheckpointError(
                f"the {name} split is not the one that {self.loaded.path} was trained with",
                "Restore the data, or say changed_data=true.",
            )
        log.warning("the %s split has changed since training", name)
