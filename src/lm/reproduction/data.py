"""Whether the data at hand are those that a published value was measured on."""

import hashlib
from collections.abc import Mapping

from lm.data.corpus import SPLITS, Corpus
from lm.data.sources import SOURCES
from lm.data.sources.published import PublishedConfig
from lm.errors import DataError
from lm.reproduction.row import Row


def check_data(row: Row, corpus: Corpus, *, allowed: bool) -> tuple[dict[str, str], bool]:
    """The digests of the corpus, and whether they are the registered ones.

    Args:
        allowed: other data are accepted; what comes out is no reproduction then.

    Raises:
        DataError: other data, and they are not allowed.
    """
    expected = registered_hashes(row)
    found = {what: _digest(corpus, what, wanted) for what, wanted in expected.items()}
    different = [what for what in expected if found[what] != expected[what]]
    if different and not allowed:
        what = different[0]
        part = "the text" if what == "text" else f"the {what} split"
        raise DataError(
            f"{part} of {corpus.name} is not the one that {row.name} was published on:"
            f" digest {found[what]}, published {expected[what]}",
            f"{row.note} Give the published files (data.root=…), or say changed_data=true, which"
            " counts as no reproduction.".lstrip(),
        )
    return found, not different


def registered_hashes(row: Row) -> Mapping[str, str]:
    """The row's own digests, else those that its source knows."""
    if row.hashes is not None:
        return row.hashes
    source = SOURCES[row.data]
    assert issubclass(source, PublishedConfig), f"{row.name} needs hashes"
    return source.published


def _digest(corpus: Corpus, what: str, wanted: str) -> str:
    """Of the bytes of a split, or of all three in turn, by the algorithm of the digest `wanted`."""
    digest = hashlib.new("sha256" if len(wanted) == 64 else "sha1")
    for split in SPLITS if what == "text" else (what,):
        for document in corpus.split(split):
            for chunk in document.chunks():
                digest.update(chunk)
    return digest.hexdigest()
