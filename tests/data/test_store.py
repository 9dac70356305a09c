"""A token store gives back exactly what was written, or says that it cannot."""

import hashlib
import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm.data.counts import TextCounts
from lm.data.store import Block, TokenStore, write_store
from lm.errors import DataError, StorageError

IDS = np.arange(1000) * 7919 % 1009


def written(folder: Path, vocab_size: int = 1009, shard_tokens: int = 64) -> TokenStore:
    blocks = [Block(IDS[start : start + 150]) for start in range(0, 1000, 150)]
    return write_store(
        folder / "store", blocks, vocab_size=vocab_size, tokenizer="abc", shard_tokens=shard_tokens
    )


@pytest.mark.parametrize(
    ("vocab_size", "dtype", "width"),
    [(256, "<u1", 1), (257, "<u2", 2), (65536, "<u2", 2), (65537, "<u4", 4), (70000, "<u4", 4)],
)
def test_the_type_follows_from_the_vocabulary(
    tmp_path: Path, vocab_size: int, dtype: str, width: int
) -> None:
    ids = np.array([0, vocab_size - 1, 1])
    store = write_store(tmp_path / "store", [Block(ids)], vocab_size=vocab_size)
    assert store[:].tolist() == ids.tolist()
    assert store.header.dtype == dtype
    assert store.header.max_id == vocab_size - 1
    assert (store.path / "shard-00000.bin").stat().st_size == 3 * width


@pytest.mark.parametrize("bad", [-1, 256, 70000])
def test_an_id_outside_the_vocabulary_never_wraps(tmp_path: Path, bad: int) -> None:
    with pytest.raises(DataError, match=f"token id {bad} is outside the vocabulary of 256"):
        write_store(tmp_path / "store", [Block(np.array([1, bad, 2]))], vocab_size=256)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> TokenStore:
    return written(tmp_path_factory.mktemp("store"))


@given(start=st.integers(-1100, 1100), stop=st.none() | st.integers(-1100, 1100))
def test_slices_equal_those_of_the_array(store: TokenStore, start: int, stop: int | None) -> None:
    assert len(store.header.shards) == 16
    assert len(store) == 1000
    part = store[start:stop]
    assert part.dtype == np.int64
    assert part.tolist() == IDS[start:stop].tolist()


def test_division_into_blocks_does_not_matter(store: TokenStore, tmp_path: Path) -> None:
    again = write_store(
        tmp_path / "again",
        (Block(ids) for ids in np.split(IDS, 10)),
        vocab_size=1009,
        shard_tokens=64,
    )
    assert again.fingerprint == store.fingerprint
    other = write_store(tmp_path / "other", [Block(IDS[::-1])], vocab_size=1009, shard_tokens=64)
    assert other.fingerprint != store.fingerprint


def test_unit_ends_are_found_by_range(tmp_path: Path) -> None:
    blocks = [Block(IDS[:500], np.array([3, 64, 499])), Block(IDS[500:], np.array([500, 999]))]
    store = write_store(tmp_path / "store", blocks, vocab_size=1009, shard_tokens=64)
    assert store.unit_ends(0, 1000).tolist() == [3, 64, 499, 500, 999]
    assert store.unit_ends(3, 500).tolist() == [3, 64, 499]
    assert store.unit_ends(4, 64).tolist() == []
    assert store.fingerprint != written(tmp_path / "streams").fingerprint
    assert written(tmp_path / "streams").unit_ends(0, 1000).tolist() == []


def test_what_is_said_of_the_text(tmp_path: Path) -> None:
    counts = TextCounts(num_bytes=100, num_words=20, first_token_bytes=4, first_token_words=1)

    def header_of() -> TokenStore:
        return write_store(tmp_path / "store", [Block(IDS)], vocab_size=1009, counts=counts)

    assert header_of().lossless_reason() is None
    assert header_of().predicted_bytes == 96
    assert header_of().header.predicted_words == 19
    counts.rewritten_lines = 7
    assert header_of().lossless_reason() == "whitespace rewritten on 7 lines"
    counts.unknown_count = 3
    assert header_of().lossless_reason() == "3 unknown tokens"


def test_counts_are_read_after_the_last_block(tmp_path: Path) -> None:
    counts = TextCounts()

    def blocks() -> Iterator[Block]:
        for _ in range(3):
            counts.num_bytes += 5
            yield Block(IDS)

    assert (
        write_store(tmp_path / "s", blocks(), vocab_size=1009, counts=counts).header.num_bytes == 15
    )


def edit(**changes: object) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        header = json.loads((path / "header.json").read_text())
        (path / "header.json").write_text(json.dumps(header | changes))

    return apply


def truncate(path: Path) -> None:
    with (path / "shard-00003.bin").open("r+b") as file:
        file.truncate(10)


def escape(path: Path) -> None:
    header = json.loads((path / "header.json").read_text())
    header["shards"][0]["name"] = "../store/shard-00000.bin"
    (path / "header.json").write_text(json.dumps(header))


@pytest.mark.parametrize(
    "damage",
    [
        truncate, escape,
        lambda path: (path / "shard-00015.bin").unlink(),
        lambda path: (path / "header.json").unlink(),
        lambda path: (path / "header.json").write_bytes(b"\xff{"),
        lambda path: (path / "header.json").write_text("[]"),
        lambda path: (path / "header.json").write_text("[" * 100_000),
        edit(format=2), edit(extra=1), edit(shards=[]), edit(shards=None), edit(shards=[[]]),
        edit(num_tokens=999), edit(num_tokens=-1), edit(num_tokens=1e3), edit(num_tokens=True),
        edit(vocab_size=1008), edit(dtype="<u4"), edit(dtype="O"), edit(tokenizer=None),
        edit(max_id=1009), edit(units={"name": "units.bin", "items": 1, "sha256": ""}),
    ],
)  # fmt: skip
def test_damage_is_noticed_on_opening(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    path = written(tmp_path).path
    damage(path)
    with pytest.raises(DataError, match="is damaged"):
        TokenStore.open(path)


def test_a_flipped_bit_is_noticed_by_verify(tmp_path: Path) -> None:
    blocks = [Block(IDS, np.array([999]))]
    path = write_store(tmp_path / "store", blocks, vocab_size=1009, tokenizer="t").path
    for name in ("shard-00000.bin", "units.bin"):
        raw = (path / name).read_bytes()
        TokenStore.open(path).verify("t", 1009)
        (path / name).write_bytes(bytes([raw[0] ^ 1]) + raw[1:])
        with pytest.raises(DataError, match=f"{name} is damaged"):
            TokenStore.open(path).verify("t", 1009)
        (path / name).write_bytes(raw)


def test_a_store_is_of_one_tokenizer_and_its_ids_are_in_the_vocabulary(tmp_path: Path) -> None:
    path = write_store(tmp_path / "store", [Block(IDS)], vocab_size=1009, tokenizer="t").path
    for tokenizer, vocab_size in (("u", 1009), ("t", 1010)):
        with pytest.raises(DataError, match="of another tokenizer"):
            TokenStore.open(path).verify(tokenizer, vocab_size)
    shard = path / "shard-00000.bin"
    raw = bytearray(shard.read_bytes())
    raw[10:12] = (1009).to_bytes(2, "little")
    shard.write_bytes(raw)
    header = json.loads((path / "header.json").read_text())
    header["shards"][0]["sha256"] = hashlib.sha256(raw).hexdigest()
    (path / "header.json").write_text(json.dumps(header))
    with pytest.raises(DataError, match=r"has id 1009, the vocabulary ends at 1008"):
        TokenStore.open(path).verify("t", 1009)


def test_a_text_without_tokens_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no tokens"):
        write_store(tmp_path / "store", [Block(IDS[:0])], vocab_size=9)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_said_and_leaves_nothing_behind(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, old[1]))
    try:
        with pytest.raises(StorageError, match="cannot write") as caught:
            write_store(tmp_path / "store", [Block(np.zeros(10_000, np.int64))], vocab_size=9)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)
    assert caught.value.code == 6
    assert list(tmp_path.iterdir()) == []
