"""Archives and configurations that would fill the disk or the memory, or take for ever."""

import io
import json
import stat
import warnings
import zipfile
from collections.abc import Iterator


def zipped(*members: tuple[str | zipfile.ZipInfo, bytes]) -> bytes:
    """A zip archive with the members, compressed."""
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        warnings.simplefilter("ignore")  # of a name used twice
        for name, content in members:
            file.writestr(name, content)
    return buffer.getvalue()


def _special(kind: int) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo("special")
    member.external_attr = (kind | 0o777) << 16
    return member


def _encrypted(archive: bytes) -> bytes:
    """The archive with its first member marked as encrypted, in both of its headers."""
    marked = bytearray(archive)
    marked[6] |= 1
    marked[archive.index(b"PK\1\2") + 8] |= 1
    return bytes(marked)


def _damaged(archive: bytes) -> bytes:
    """The archive with one byte of its compressed data flipped."""
    return archive[:40] + bytes([archive[40] ^ 0xFF]) + archive[41:]


def _lying(archive: bytes) -> bytes:
    """The archive with a member that states ten bytes, twice."""
    content = bytearray(archive)
    for header in (22, content.index(b"PK\1\2") + 24):
        content[header : header + 4] = (10).to_bytes(4, "little")
    return bytes(content)


def archives() -> Iterator[tuple[str, bytes, str]]:
    """What is wrong with a zip, the zip, and what has to be said of it."""
    leaves, text = "leaves the folder", b"text" * 5000
    yield "a name with ..", zipped(("../out", b"x")), leaves
    yield "a name with .. inside", zipped(("a/../../out", b"x")), leaves
    yield "an absolute name", zipped(("/tmp/out", b"x")), leaves
    yield "backslashes", zipped(("..\\out", b"x")), leaves
    yield "a drive", zipped(("C:out", b"x")), leaves
    yield "a symbolic link", zipped((_special(stat.S_IFLNK), b"/etc/passwd")), "is a link"
    yield "a pipe", zipped((_special(stat.S_IFIFO), b"")), "special file"
    yield "a device", zipped((_special(stat.S_IFBLK), b"")), "special file"
    yield "encryption", _encrypted(zipped(("a", b"x"))), "is encrypted"
    yield "a bomb", zipped(("bomb", bytes(16 << 20))), "more than 100 times"
    yield "many members", zipped(*((f"{i}", b"") for i in range(1001))), "1,001 members"
    yield "a name twice", zipped(("a", b"x"), ("a", b"y")), "two members have one name"
    yield "a file as a folder", zipped(("a", b"x"), ("a/b", b"y")), "two members have one name"
    yield "a long name", zipped(("x" * 5000, b"x")), "has a name of 5,000 characters"
    yield "damage", _damaged(zipped(("a", b"text" * 99))), "cannot unpack"
    yield "a lie about its size", _lying(zipped(("a", text))), "cannot unpack"
    yield "no zip", b"no archive at all", "cannot unpack"


def configurations() -> Iterator[tuple[str, str]]:
    """What is wrong with a YAML file, and the file."""
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    yield "aliases of aliases", "\n".join(levels)
    merges = ["m0: &m0 {x: 1}"] + [
        f"m{n}: &m{n} {{<<: [*m{n - 1}, *m{n - 1}]}}" for n in range(1, 99)
    ]
    yield "merges of merges", "\n".join(merges)
    yield "depth", "a: " + "[" * 30_000
    yield "depth in blocks", "".join(f"{' ' * n}a:\n" for n in range(250))
    yield "depth in maps", "a: " + "{a: " * 8_000
    yield "size", "a: " + "x" * (10 << 20)
    yield "many keys", "".join(f"k{n}: 1\n" for n in range(6_000))
    yield "a long number", "seed: " + "1" * 60_000
    yield "a long hexadecimal number", "seed: 0x" + "f" * 60_000
    yield "a number to the base of 60", "seed: 1" + ":59" * 20_000
    yield "a long key", f"? {'x' * 60_000}\n: 1\n"
    yield "colons", "a: " + ": " * 30_000
    yield "dashes", "- " * 30_000
    yield "quotes", 'a: "' + "\\" * 60_000
    yield "anchors", "\n".join(f"k{n}: &a{n} x" for n in range(3_000))


GREEDY: dict[str, dict[str, object]] = {
    "wide layers": {"hidden_size": 1 << 20},
    "wide embeddings": {"embedding_size": 1 << 20},
    "layers wider than any": {"hidden_size": 10**9},
    "layers beyond 64 bits": {"hidden_size": 1 << 62},
    "layers beyond all bits": {"hidden_size": 10**30},
    "many layers": {"num_layers": 1000},
    "layers without number": {"num_layers": 10**9},
    "many wide layers": {"layer_sizes": [1 << 20] * 1000},
    "a long list of layers": {"layer_sizes": [1] * 1500},
    "experts": {"head": "mixture", "mixture": {"experts": 4096, "size": 1 << 20}},
    "experts without number": {"head": "mixture", "mixture": {"experts": 10**12}},
    "a budget": {"parameters": "900G"},
    "a budget without end": {"parameters": "1e999"},
    "a learned state": {"initial_state": "learned", "hidden_size": 1 << 20},
}
"""Sections `model` of a configuration that ask for memory or time."""
CELLS: dict[str, tuple[str, dict[str, object]]] = {
    "rounds": ("mogrifier", {"rounds": 100}),
    "rounds without number": ("mogrifier", {"rounds": 10**9, "dropout": {"weights": 0.5}}),
    "filters": ("qrnn", {"filter_width": 4096}),
    "projections": ("lstmp", {"projection_size": 1 << 19, "hidden_size": 1 << 20}),
    "long n-grams": ("ngram", {"order": 100}),
    "n-grams without end": ("ngram", {"order": 10**9}),
}
"""The same of other cells, by their names."""
UNREAD = ("empty lists", "a long text")
"""Well-formed JSON: no fault where its keys are not read."""


def json_files() -> Iterator[tuple[str, bytes]]:
    """What is wrong with a JSON file, and the file."""
    yield "depth", b"[" * 1_000_000
    yield "depth in objects", b'{"a":' * 1_000_000
    yield "depth that ends", b"[" * 200_000 + b"]" * 200_000
    yield "a long number", b'{"a": ' + b"1" * 1_000_000 + b"}"
    yield "a large number", b'{"a": 1e999999}'
    yield "no number", b'{"a": NaN}'
    yield "a key twice", b'{"a": 1, "a": 2}'
    yield "empty lists", b'{"a": [' + b",".join([b"[]"] * 50_000) + b"]}"
    yield "a long text", json.dumps({"a": "\u20ac" * 1_000_000}).encode()
    yield "other encodings", '{"a": 1}'.encode("utf-16")
    yield "another byte order mark", b'\xef\xbb\xbf{"a": 1}'
    yield "a lone surrogate in UTF-8", b'{"a": "\xed\xa0\x80"}'
