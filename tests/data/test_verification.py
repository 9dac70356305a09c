"""A large store is verified while it is read: what is wrong reaches whoever reads."""

import resource
import threading
from pathlib import Path

import numpy as np
import pytest

from lm.data import store as store_module
from lm.data import verification
from lm.data.store import Block, TokenStore, write_store
from lm.errors import DataError

IDS = np.arange(6_000) % 200


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TokenStore:
    monkeypatch.setattr(store_module, "VERIFIED_BYTES", 100)
    return write_store(
        tmp_path / "store", [Block(IDS)], vocab_size=200, tokenizer="t", shard_tokens=2_000
    )


def test_a_large_store_is_read_before_it_is_verified(
    store: TokenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    let, verify = threading.Event(), verification.Verification._verify

    def late(self: verification.Verification, file: object) -> None:
        let.wait(10)
        verify(self, file)

    monkeypatch.setattr(verification.Verification, "_verify", late)
    store.verify("t", 200)
    assert store[1_990:2_010].tolist() == IDS[1_990:2_010].tolist()
    let.set()
    store.settle()
    with pytest.raises(DataError, match="another tokenizer"):
        store.verify("u", 200)


def test_an_altered_shard_is_named_to_the_reader(store: TokenStore) -> None:
    shard = store.path / "shard-00001.bin"
    raw = bytearray(shard.read_bytes())
    raw[7] ^= 1
    shard.write_bytes(raw)
    store.verify("t", 200)
    assert store._background is not None
    store._background._thread.join()
    with pytest.raises(DataError, match=r"shard-00001.bin is damaged: its hash differs") as caught:
        store[:10]
    assert caught.value.code == 3
    with pytest.raises(DataError, match=r"shard-00001.bin is damaged"):
        store.settle()


def test_an_id_outside_the_vocabulary_is_not_read_meanwhile(
    store: TokenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verification.Verification, "_verify", lambda self, file: None)
    shard = store.path / "shard-00000.bin"
    shard.write_bytes(b"\xff" + shard.read_bytes()[1:])
    store.verify("t", 200)
    with pytest.raises(DataError, match=r"id 255, the vocabulary ends at 199"):
        store[:10]


def test_a_shard_that_cannot_be_read_is_an_error_too(store: TokenStore) -> None:
    store.verify("t", 200)
    store.settle()
    (store.path / "shard-00002.bin").unlink()
    with pytest.raises(DataError, match="cannot map"):
        store[4_000:]


def test_more_shards_than_files_may_be_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "MAPPED_SHARDS", 20)
    ids = np.arange(3_000) % 7
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, limits[1]))
    try:
        store = write_store(tmp_path / "store", [Block(ids)], vocab_size=7, shard_tokens=10)
        streams = [store[start : start + 11] for start in range(0, 2_989, 50)]
        assert store[:].tolist() == ids.tolist()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert [part.tolist() for part in streams] == [
        ids[start : start + 11].tolist() for start in range(0, 2_989, 50)
    ]
