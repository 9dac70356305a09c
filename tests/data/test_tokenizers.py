"""Tokenizers lose nothing that they do not say, and their tokens depend on the content alone."""

import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm.data import pieces as pieces_module
from lm.data.corpus import Document
from lm.data.pieces import Cut, pieces
from lm.data.tokenizers import (
    BpeConfig,
    BpeTokenizer,
    ByteConfig,
    ByteTokenizer,
    CharConfig,
    CharTokenizer,
    Tokenizer,
    WordConfig,
    WordTokenizer,
    load_tokenizer,
    save_tokenizer,
    tokenizer_from_json,
)
from lm.data.tokenizers import bpe as bpe_module
from lm.data.tokenizers import counting as counting_module
from lm.data.tokenizers.counting import WordCounter
from lm.errors import CheckpointError, ConfigError, DataError, LmError

TRICKY = ["a", "bc", "Z9", "12345", " ", "  ", "\n", "\n\n    ", "\r\n", "\t", "(", "):", "_", ".x",
          "\ufeff", "\0", "\u2028", "\x85", "\x1c", "\u00e9", "e\u0301", "\u4e2d\u6587", "\u3000",
          "\U0001f600", "'s", "<unk>", "<eos>", "x<eos>"]  # fmt: skip
texts = st.lists(st.sampled_from(TRICKY) | st.text(max_size=3), max_size=30).map("".join)
PYTHON = b"".join(
    b"class Cell%d(nn.Module):\n    def __init__(self, size: int) -> None:\n"
    b"        self.hidden_size = size * %d\n\n" % (k, k * k)
    for k in range(60)
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tokenizers")


@pytest.fixture(scope="module")
def bpe(folder: Path) -> BpeTokenizer:
    return BpeConfig(vocab_size=400).build(documents(folder, PYTHON))


def documents(folder: Path, *contents: bytes) -> list[Document]:
    paths = [folder / f"{k}.txt" for k in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    return [Document(path) for path in paths]


# Lossless


@given(st.binary())
def test_byte_round_trip(text: bytes) -> None:
    ids = ByteTokenizer().encode(text)
    assert ids.tolist() == list(text)
    assert ByteTokenizer().decode(ids) == text


@given(texts)
def test_char_round_trip(text: str) -> None:
    tokenizer = CharTokenizer("".join(sorted(set(text))), min_count=1)
    ids = tokenizer.encode(text.encode())
    assert len(ids) == len(text)
    assert 0 not in ids
    assert tokenizer.decode(ids) == text.encode()


@settings(deadline=None)
@given(text=texts)
def test_bpe_round_trip(bpe: BpeTokenizer, text: str) -> None:
    assert bpe.decode(bpe.encode(text.encode())) == text.encode()


@given(st.lists(st.lists(st.sampled_from([b"a", b"\xff\x00", b"\xef\xbb\xbf", b"\xe2\x80\xa8"]))))
def test_word_round_trip_of_canonical_text(lines: list[list[bytes]]) -> None:
    text = b"\n".join(b" ".join(line) for line in lines)
    vocabulary = [*sorted(set(text.split())), b"<eos>", b"<unk>"]
    tokenizer = WordTokenizer(vocabulary, b"<unk>", min_count=1)
    assert tokenizer.decode(tokenizer.encode(text)) == text


# Spans

_WORDS = [b"a", b"b.c", b"<eos>", "ä".encode(), b"?"]


@settings(deadline=None, max_examples=200)
@given(text=texts)
def test_spans_of_lossless_tokenizers_are_the_text_divided(bpe: BpeTokenizer, text: str) -> None:
    raw = text.encode()
    for tokenizer in (ByteTokenizer(), CharTokenizer("".join(sorted(set(text)))[1:], 1), bpe):
        ids = tokenizer.encode(raw)
        spans = tokenizer.spans(raw, ids)
        assert spans.shape == (len(ids), 2)
        assert [0, *spans[:, 1]] == [*spans[:, 0], len(raw)]  # no gap, no overlap
        unknown = tokenizer.is_unknown(raw, ids, spans)
        assert unknown.sum() == tokenizer.count_unknown(raw, ids)
        for i, (start, end), missing in zip(ids, spans, unknown, strict=True):
            assert missing or raw[start:end] == tokenizer.decode([int(i)])


@given(st.lists(st.sampled_from([*_WORDS, b"new", b" ", b"\t", b"\r", b"\n", b"\x0b", b"\x1c"])))
def test_spans_of_words_are_words_and_newlines(parts: list[bytes]) -> None:
    text = b"".join(parts)
    tokenizer = WordTokenizer(_WORDS, b"?", 1)
    ids = tokenizer.encode(text)
    spans = tokenizer.spans(text, ids)
    found = [text[start:end] for start, end in spans]
    assert b"".join(found) == text.translate(None, b" \t\r\v\f")
    assert all(word == b"\n" or word.split() == [word] for word in found)
    assert len(found) == len(ids)
    unknown = tokenizer.is_unknown(text, ids, spans)
    assert unknown.sum() == tokenizer.count_unknown(text, ids)
    for word, i, missing in zip(found, ids, unknown, strict=True):
        assert missing == (word not in (*_WORDS, b"\n"))
        assert missing or tokenizer.words[i] == (b"<eos>" if word == b"\n" else word)


@pytest.mark.parametrize("kind", ["byte", "bpe", "word", "char", "text8"])
def test_the_line_end_is_the_token_of_a_newline(kind: str, bpe: BpeTokenizer) -> None:
    tokenizer, wanted = {
        "byte": (ByteTokenizer(), 10),
        "bpe": (bpe, bpe.encode(b"\n").item()),
        "word": (WordTokenizer(_WORDS, b"?", 1), 2),
        "char": (CharTokenizer("\nab", 1), 1),
        "text8": (CharTokenizer("ab", 1), 0),  # which has no lines: unknown
    }[kind]
    assert tokenizer.line_end == wanted


def test_bpe_has_every_byte_and_merges_the_commonest_parts(bpe: BpeTokenizer) -> None:
    assert sorted(bpe.decode([i]) for i in range(256)) == [bytes([k]) for k in range(256)]
    assert {"\\n        ", " self", ".hidden"} & {bpe.token(i) for i in range(256, bpe.vocab_size)}
    assert len(bpe.encode(PYTHON)) < len(PYTHON) / 3


# Pieces


@settings(deadline=None, max_examples=200)
@given(text=texts)
def test_a_safe_cut_changes_no_token(bpe: BpeTokenizer, text: str) -> None:
    raw = text.encode()
    char = CharTokenizer("".join(sorted(set(text))), min_count=1)
    word = WordTokenizer([*sorted({*raw.split()} - {b"<eos>", b"?"}), b"<eos>", b"?"], b"?", 1)
    tokenizers: list[Tokenizer] = [ByteTokenizer(), char, word, bpe]
    for tokenizer in tokenizers:
        whole = tokenizer.encode(raw).tolist()
        for match in tokenizer.cut.safe.finditer(raw):
            parts = [raw[: match.start()], raw[match.start() :]]
            encoded = tokenizer.encode_all(parts)
            assert np.concatenate(encoded).tolist() == whole, (tokenizer.kind, parts)


@settings(deadline=None, max_examples=150)
@given(
    text=texts, target=st.integers(1, 9), longest=st.integers(4, 9), read=st.integers(1, 30),
    kind=st.sampled_from([ByteTokenizer, CharTokenizer, BpeTokenizer]), by_line=st.booleans(),
)  # fmt: skip
def test_pieces_do_not_depend_on_the_size_of_a_read(
    folder: Path,
    text: str,
    target: int,
    longest: int,
    read: int,
    kind: type[Tokenizer],
    by_line: bool,
) -> None:
    raw = text.encode()
    source = documents(folder, raw, b"")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces_module, "TARGET_BYTES", target)
        patch.setattr(pieces_module, "LONGEST_BYTES", longest)
        once = list(pieces(source, kind.cut, "", by_line=by_line))
        patch.setattr(pieces_module, "READ_BYTES", read)
        again = list(pieces(source, kind.cut, "", by_line=by_line))
    assert again == once
    assert b"".join(piece.text for piece in once) == raw
    assert [piece.last for piece in once] == [False] * (len(once) - 2) + [True, True]
    assert all(len(piece.text) <= target + longest for piece in once)
    for piece in once if kind.cut.utf8 else []:
        piece.text.decode()


def test_a_word_of_the_longest_length_passes_and_a_longer_one_is_located(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces_module, "TARGET_BYTES", 10)
    monkeypatch.setattr(pieces_module, "LONGEST_BYTES", 20)
    fine = documents(folder, b"ab cdef " + b"x" * 20 + b" y")
    found = [piece.text for piece in pieces(fine, WordTokenizer.cut, "")]
    assert found == [b"ab cdef " + b"x" * 20 + b" ", b"y"]
    long = documents(folder, b"ab cdef " + b"x" * 31 + b" y")
    with pytest.raises(DataError, match=r"0\.txt: a word longer than 20 bytes at byte offset 8"):
        list(pieces(long, WordTokenizer.cut, ""))


@pytest.mark.parametrize("config", [CharConfig(), BpeConfig()])
def test_invalid_utf8_is_located(
    folder: Path, monkeypatch: pytest.MonkeyPatch, config: CharConfig | BpeConfig
) -> None:
    monkeypatch.setattr(pieces_module, "TARGET_BYTES", 8)
    path = documents(folder, b"some good words here, then \xe2\x82 and more")[0].path
    with pytest.raises(DataError, match=r"0\.txt: invalid UTF-8 at byte offset 27") as caught:
        config.build([Document(path, start=5)])
    assert "tokenizer=byte" in caught.value.remedy


def test_a_forced_cut_terminates_on_what_is_not_utf8(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces_module, "TARGET_BYTES", 4)
    monkeypatch.setattr(pieces_module, "LONGEST_BYTES", 4)
    never = Cut(re.compile(b"(?!)"))
    found = pieces(documents(folder, b"\x80" * 30), never, "")
    assert [len(piece.text) for piece in found] == [8, 8, 8, 6]


# Vocabularies


def test_word_vocabulary_falls_by_count_then_bytes(folder: Path) -> None:
    source = documents(folder, b"b b a a c\nb <unk>\n", b"a d")
    tokenizer = WordConfig().build(source)
    assert tokenizer.words == [b"a", b"b", b"<eos>", b"<unk>", b"c", b"d"]
    assert tokenizer.encode(b"a zzz\n<unk>").tolist() == [0, 3, 2, 3]
    assert tokenizer.count_unknown(b"a zzz\n<unk>", tokenizer.encode(b"a zzz\n<unk>")) == 1


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (WordConfig(min_count=2), [b"a", b"b", b"<eos>", b"<unk>"]),
        (WordConfig(max_size=3), [b"a", b"<eos>", b"<unk>"]),
        (WordConfig(unknown="d"), [b"a", b"b", b"<eos>", b"c", b"d"]),
        (WordConfig(unknown="?"), [b"a", b"b", b"<eos>", b"c", b"d", b"?"]),
    ],
)
def test_word_vocabulary_limits_spare_eos_and_unknown(
    folder: Path, config: WordConfig, expected: list[bytes]
) -> None:
    assert config.build(documents(folder, b"a a a b b c\nd")).words == expected


def test_words_part_at_ascii_whitespace_only(folder: Path) -> None:
    odd = [b"a\x00b", b"\xef\xbb\xbfbom", b"u\xe2\x80\xa8v", b"n\xc2\x85m", b"f\x1cg", b"\xff"]
    tokenizer = WordConfig().build(documents(folder, b" \t\r\v\f".join(odd)))
    assert sorted(tokenizer.words) == sorted([*odd, b"<eos>", b"<unk>"])
    again = tokenizer_from_json(json.loads(json.dumps(tokenizer.to_json())))
    assert again.decode(again.encode(b" ".join(odd))) == b" ".join(odd)


def test_a_last_line_without_newline_gets_no_eos(folder: Path) -> None:
    tokenizer = WordConfig().build(documents(folder, b"a\n\nb"))
    assert tokenizer.decode(tokenizer.encode(b"a\n\nb")) == b"a\n\nb"
    assert len(tokenizer.encode(b"a\n\nb")) == 4


def test_external_vocabulary_keeps_its_order(folder: Path) -> None:
    path = folder / "vocabulary.txt"
    path.write_bytes(b"zebra\r\n<eos>\n\nant")
    config = WordConfig(vocabulary=str(path))
    tokenizer = config.build([])
    assert tokenizer.words == [b"zebra", b"<eos>", b"ant", b"<unk>"]
    before = config.identity()
    path.write_bytes(b"zebra\nant")
    assert config.identity() != before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a\nb\na\n", "entry 3, 'a', is listed twice"),
        (b"a b\n", "entry 1, 'a b', is not one word"),
        (b" \n\n", "vocabulary.txt has no words"),
    ],
)
def test_faulty_external_vocabulary(folder: Path, content: bytes, message: str) -> None:
    path = folder / "vocabulary.txt"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        WordConfig(vocabulary=str(path)).build([])
    with pytest.raises(DataError, match=r"cannot read tokenizer\.vocabulary"):
        WordConfig(vocabulary=str(folder / "absent")).build([])


@given(
    st.lists(st.lists(st.sampled_from([b"a", b"b", b"\xff", b"d0", b"e"]), max_size=9), max_size=9)
)
def test_counting_with_runs_on_disk_is_exact(batches: list[list[bytes]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counting_module, "HELD_WORDS", 2)
        with WordCounter() as counter:
            for batch in batches:
                counter.update(batch)
            counted = list(counter.items())
    assert len(counted) == len(dict(counted))
    assert dict(counted) == Counter(word for batch in batches for word in batch)


def test_a_senseless_vocabulary_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting_module, "LARGEST_VOCABULARY", 3)
    with WordCounter() as counter:
        counter.update([b"a", b"b", b"c", b"d"])
        with pytest.raises(DataError, match="more than 3 distinct words"):
            counter.ranked(1, None, {})
        assert counter.ranked(1, 2, {}) == [b"a", b"b"]


def test_char_vocabulary_is_by_code_point_after_unknown(folder: Path) -> None:
    tokenizer = CharConfig(min_count=2).build(
        documents(folder, "éé\U0001f600a\U0001f600aab".encode())
    )
    assert tokenizer.characters == "aé\U0001f600"
    ids = tokenizer.encode("a\U0001f600b\U0010ffff".encode())
    assert ids.tolist() == [1, 3, 0, 0]
    assert tokenizer.decode(ids) == "a\U0001f600\ufffd\ufffd".encode()
    assert tokenizer.first_token_bytes("éa".encode(), np.array([2])) == 2


def test_bpe_training_is_deterministic_and_samples_evenly(folder: Path) -> None:
    source = documents(folder, PYTHON, PYTHON[::-1])
    config = BpeConfig(vocab_size=350)
    assert config.build(source).to_json() == config.build(source).to_json()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces_module, "TARGET_BYTES", 100)
        half = BpeConfig(vocab_size=350, sample_bytes=len(PYTHON)).build(source)
    assert half.vocab_size == 350
    assert half.fingerprint != config.build(source).fingerprint


def test_bpe_learns_from_parts_of_bounded_length(folder: Path) -> None:
    division = bpe_module.learned_division()
    for run in ("x" * 1000, "!" * 1000, " " * 1000, "\n" * 1000, "\u00e9" * 1000):
        lengths = [stop - start for _, (start, stop) in division.pre_tokenize_str(run)]
        assert (max(lengths), sum(lengths)) == (bpe_module.LONGEST_LEARNED, 1000), run[0]
    text = "def f(x):\n\n    return x_1234 + '\u00e9t\u00e9'  # ok\n"
    ordinary = bpe_module._division(bpe_module.PATTERN)
    assert division.pre_tokenize_str(text) == ordinary.pre_tokenize_str(text)


def test_extension_keeps_ids_and_appends_what_is_frequent(folder: Path) -> None:
    word = WordConfig(min_count=2).build(documents(folder, b"a a b b c\n"))
    longer = word.extended(documents(folder, b"d c d e e c a\n"))
    assert longer.words == [*word.words, b"c", b"d", b"e"]
    assert longer.unknown_id == word.unknown_id
    char = CharConfig().build(documents(folder, b"bca"))
    assert char.extended(documents(folder, b"zab")).to_json()["characters"] == "abcz"
    with pytest.raises(ConfigError, match="byte tokenizer has no vocabulary to extend"):
        ByteConfig().build([]).extended([])


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: CharConfig(min_count=0), "tokenizer.min_count must be >= 1, got 0"),
        (lambda: WordConfig(max_size=2), "tokenizer.max_size must be >= 3, got 2"),
        (lambda: WordConfig(unknown="a b"), "tokenizer.unknown must be one word"),
        (lambda: WordConfig(unknown="<eos>"), "tokenizer.unknown must be one word"),
        (lambda: WordConfig(vocabulary="x", max_size=9), "max_size is set too"),
        (lambda: BpeConfig(vocab_size=255), "tokenizer.vocab_size must be >= 256, got 255"),
    ],
)
def test_configurations_are_checked(build: type, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build()


# tokenizer.json


def test_tokenizers_survive_their_file(folder: Path, bpe: BpeTokenizer) -> None:
    source = documents(folder, PYTHON)
    built: list[Tokenizer] = [
        ByteTokenizer(), CharConfig().build(source), WordConfig().build(source), bpe
    ]  # fmt: skip
    for tokenizer in built:
        save_tokenizer(tokenizer, folder / "tokenizer.json")
        again = load_tokenizer(folder / "tokenizer.json")
        assert again.fingerprint == tokenizer.fingerprint
        assert again.vocab_size == tokenizer.vocab_size
        assert again.encode(PYTHON).tolist() == tokenizer.encode(PYTHON).tolist()
    assert len({tokenizer.fingerprint for tokenizer in built}) == 4


WORD = {"format": 1, "kind": "word", "min_count": 1, "unknown": "u", "words": ["<eos>", "u"]}


@pytest.mark.parametrize(
    "data",
    [
        None, [], {}, {"format": 1}, {"format": 2, "kind": "byte"},
        {"format": 1, "kind": "os.system"}, {"format": 1, "kind": ["byte"]},
        WORD | {"words": ["u"]}, WORD | {"words": ["<eos>", "u", "u"]},
        WORD | {"words": ["<eos>", "u", "a b"]}, WORD | {"words": ["<eos>", "u", ""]},
        WORD | {"words": ["<eos>", "u", "\ud800"]}, WORD | {"words": ["<eos>", "u", 3]},
        WORD | {"unknown": None}, WORD | {"min_count": "1"},
        {"format": 1, "kind": "char", "min_count": 1, "characters": "aa"},
        {"format": 1, "kind": "char", "min_count": 1, "characters": "\ud800"},
        {"format": 1, "kind": "char", "min_count": 1},
        {"format": 1, "kind": "bpe"}, {"format": 1, "kind": "bpe", "tokenizer": {"model": {}}},
    ],
)  # fmt: skip
def test_hostile_json_is_refused(data: object) -> None:
    with pytest.raises(CheckpointError) as caught:
        tokenizer_from_json(data)
    assert caught.value.code == 4


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["normalizer"], {"type": "Lowercase"}),
        (["added_tokens"], [{"id": 0, "content": "x"}]),
        (["pre_tokenizer"], None),
        (["pre_tokenizer", "pretokenizers", 0, "pattern", "Regex"], "(a+)+$"),
        (["model", "type"], "Unigram"),
        (["model", "dropout"], 0.5),
        (["model", "vocab", "a"], 10**6),
        (["model", "vocab", "a"], True),
        (["model", "vocab", "\u4e2d"], 400),
        (["model", "merges"], [["a", "nothing"]]),
        (["model", "merges"], [["a"]]),
    ],
)
def test_hostile_bpe_is_refused(bpe: BpeTokenizer, path: list[str], value: object) -> None:
    data = json.loads(json.dumps(bpe.to_json()))
    inner = data["tokenizer"]
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    with pytest.raises(CheckpointError):
        tokenizer_from_json(data)


def test_damaged_files_are_refused(folder: Path) -> None:
    path = folder / "damaged.json"
    for content in (b"", b"\xff", b"[" * 100_000, b'{"format": 1'):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"damaged\.json cannot be read"):
            load_tokenizer(path)
    with pytest.raises(LmError, match="is missing"):
        load_tokenizer(folder / "absent.json")


def test_tokens_are_shown_with_control_characters_escaped(bpe: BpeTokenizer) -> None:
    assert ByteTokenizer().token(10) == "\\n"
    assert ByteTokenizer().token(0xFF) == "\\xff"
    assert CharTokenizer("a\n\u2028", 1).token(3) == "\\u2028"
    assert CharTokenizer("a", 1).token(0) == "<unk>"
    assert WordTokenizer([b"<eos>", b"\xff\x00"], b"\xff\x00", 1).token(1) == "\\xff\\x00"
