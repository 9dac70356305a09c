"""Random changes to the files of a checkpoint: of bytes, and of what the bytes say."""

import json
import random
import struct
from collections.abc import Callable
from typing import Any

import yaml
from stranger import read_header, with_header

# Of JSON or YAML, as text: some cannot be written otherwise.
ODD = (
    "-1", "0", "1", "2", "7", "1000", "2147483648", "9223372036854775807", "9223372036854775808",
    "18446744073709551616", "1" + "0" * 30, "1" * 5000, "-0.0", "0.5", "1e308", "-1e308", "1e999",
    "NaN", "Infinity", "-Infinity", "true", "false", "null", '""', '"os.system"', '"\\ud800"',
    '"../../etc/passwd"', '"a\\nb\\u001b[2J"', '"' + "x" * 10_000 + '"', "[]", "{}", "[[]]",
    '{"a": {}}', "[null]", '["a", 1]', "[1, 2]", "[" * 50 + "]" * 50, "[" * 5000 + "]" * 5000,
)  # fmt: skip
ODD_YAML = (
    ".inf", "-.inf", ".nan", "1_000", "0x7fffffffffffffff", "1:59:59", "2024-99-99", "~", "???",
    "${seed}", "${oc.env:HOME}", "!!int x", "!!bool x", "&a [*a]", "*a", "<<", "=", "[1, 2, 3]",
    "{x: 1}", "'${x'", "\t", "\u2028", "yes", "lstm", "/dev/zero", "1" * 39, "1" * 300,
)  # fmt: skip
DTYPES = (
    "F64", "F32", "F16", "BF16", "I64", "I32", "I8", "U8", "U64", "BOOL", "C64", "F8_E4M3",
    "F8_E5M2", "F8_E8M0", "F4", "F6_E2M3", "f32", "", "X9",
)  # fmt: skip

Mutation = Callable[[bytes, random.Random], bytes]


def of_bytes(content: bytes, draws: random.Random) -> bytes:
    """A few bytes flipped, left out, put in or said twice."""
    changed = bytearray(content)
    for _ in range(draws.choice((1, 1, 1, 2, 5, 50))):
        at = draws.randrange(len(changed) + 1)
        length = draws.choice((1, 1, 2, 8, 100))
        match draws.randrange(4):
            case 0 if at < len(changed):
                changed[at] ^= 1 << draws.randrange(8)
            case 1:
                del changed[at : at + length]
            case 2:
                changed[at:at] = draws.randbytes(length)
            case _:
                changed[at:at] = changed[at : at + length]
    return bytes(changed)


def of_json(content: bytes, draws: random.Random) -> bytes:
    """A value replaced, left out or put in, somewhere in the tree."""
    tree = json.loads(content)
    mark = f"mark-{draws.random()}"
    for _ in range(draws.choice((1, 1, 1, 2))):
        tree = _changed(tree, mark, draws)
    return json.dumps(tree).replace(json.dumps(mark), draws.choice(ODD)).encode()


def of_yaml(content: bytes, draws: random.Random) -> bytes:
    """As `of_json`; OmegaConf reads the values that JSON has too."""
    mark = f"mark-{draws.random()}"
    tree = _changed(yaml.safe_load(content), mark, draws)
    text: str = yaml.safe_dump(tree, sort_keys=False)
    value = draws.choice(ODD + ODD_YAML)
    return text.replace(mark, value).encode("utf-8", "surrogatepass")


def _changed(tree: Any, mark: str, draws: random.Random) -> Any:
    """The tree with the mark in place of a value, or with a key more, fewer or twice."""
    if not isinstance(tree, dict | list) or not tree or draws.random() < 0.02:
        return mark
    keys = list(tree) if isinstance(tree, dict) else list(range(len(tree)))
    key = draws.choice(keys)
    match draws.randrange(12):
        case 0:
            del tree[key]
        case 1 if isinstance(tree, dict):
            tree[draws.choice(("extra", "__class__", "_target_", "", "\n", *map(str, keys)))] = mark
        case 2 if isinstance(tree, list):
            tree.insert(key, mark)
        case 3:
            tree[key] = tree[draws.choice(keys)]
        case _:
            tree[key] = _changed(tree[key], mark, draws)
    return tree


def of_tensors(content: bytes, draws: random.Random) -> bytes:
    """A header that says something else, or tensors that are others."""
    header, data = read_header(content)
    if draws.random() < 0.15:
        length = draws.choice((0, 1, 7, 100, len(content), 1 << 32, 1 << 63))
        return struct.pack("<Q", length) + content[8:]
    name = draws.choice([name for name in header if name != "__metadata__"])
    entry = header[name]
    match draws.randrange(9):
        case 0:
            entry["dtype"] = draws.choice(DTYPES)
        case 1:
            entry["shape"] = _odd_shape(entry["shape"], draws)
        case 2:
            k = draws.randrange(2)
            entry["data_offsets"][k] += draws.choice((-4, 4, 1, -1, 1 << 40, 1 << 62))
        case 3:
            del header[name]
        case 4:
            header[draws.choice(("x", "optimizer/step/x", "a\nb", "../x", "state/9/h"))] = (
                header.pop(name)
            )
        case 5:
            header["__metadata__"] = draws.choice(({"a": "b"}, {"a": 1}, [], 5))
        case 6:
            return _filled(header, data, name, draws)
        case 7:
            return _rebuilt(header, data, name, draws)
        case _:
            entry[draws.choice(("shape", "dtype", "data_offsets", "extra"))] = draws.choice(
                (None, -1, "x", [], {}, [1.5], [2**70], True)
            )
    return with_header(header, data)


def _odd_shape(shape: list[int], draws: random.Random) -> list[int]:
    count = 1
    for size in shape:
        count *= size
    return draws.choice(
        (shape[::-1], [count], [1, *shape], [*shape, 1], [0, 1 << 60], [1 << 32, 1 << 32], [],
         [1] * 200 + shape, [-1], [count // 2 or 1, 2])
    )  # fmt: skip


def _filled(header: dict[str, Any], data: bytes, name: str, draws: random.Random) -> bytes:
    """One tensor's numbers are all odd ones."""
    begin, end = header[name]["data_offsets"]
    pattern = draws.choice(
        (b"\0\0\xc0\x7f", b"\0\0\x80\x7f", b"\xff\xff\x7f\x7f", b"\xff" * 4, b"\0" * 4, b"\1\0\0\0",
         b"\0\0\x80\xbf", b"\0\0\0\0\0\0\xf8\x7f")
    )  # fmt: skip
    filled = (pattern * (end - begin))[: end - begin]
    return with_header(header, data[:begin] + filled + data[end:])


def _rebuilt(header: dict[str, Any], data: bytes, name: str, draws: random.Random) -> bytes:
    """One tensor in another type or size, in a file that is otherwise as it should be."""
    new, offset, body = {}, 0, b""
    for other, entry in header.items():
        if other == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        content = data[begin:end]
        dtype, shape = entry["dtype"], entry["shape"]
        if other == name:
            dtype = draws.choice(("F32", "F64", "I64", "U8", "BOOL", "BF16"))
            shape = draws.choice((shape, [], [1], [3, 3], [0], [1000, 50]))
            width = {"F32": 4, "F64": 8, "I64": 8, "U8": 1, "BOOL": 1, "BF16": 2}[dtype]
            count = 1
            for size in shape:
                count *= size
            content = bytes(count * width) if draws.random() < 0.5 else b"\1" * (count * width)
        new[other] = {
            "dtype": dtype,
            "shape": shape,
            "data_offsets": [offset, offset + len(content)],
        }
        offset += len(content)
        body += content
    return with_header(new, body)


STRUCTURAL: dict[str, Mutation] = {
    "model.safetensors": of_tensors,
    "training.safetensors": of_tensors,
    "state.json": of_json,
    "config.yaml": of_yaml,
    "tokenizer.json": of_json,
    "manifest.json": of_json,
}
