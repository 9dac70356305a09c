"""What processes of ours say to each other: some byte strings at a time, through a pipe."""

from typing import IO

Frames = list[bytes]
# How a reply begins.
DONE, REFUSED, FAILED = b"done", b"refused", b"failed"
_WIDTH = 8


def write_frames(file: IO[bytes], frames: Frames) -> None:
    """Say something, at once."""
    numbers = [len(frames), *map(len, frames)]
    file.write(b"".join(number.to_bytes(_WIDTH, "little") for number in numbers))
    for frame in frames:
        file.write(frame)
    file.flush()


def read_frames(file: IO[bytes]) -> Frames | None:
    """What was said next; None at the end.

    Raises:
        EOFError: it was not said to its end.
    """
    head = file.read(_WIDTH)
    if not head:
        return None
    lengths = [_number(file) for _ in range(int.from_bytes(head, "little"))]
    return [_exactly(file, length) for length in lengths]


def _number(file: IO[bytes]) -> int:
    return int.from_bytes(_exactly(file, _WIDTH), "little")


def _exactly(file: IO[bytes], length: int) -> bytes:
    found = file.read(length)
    if len(found) < length:
        raise EOFError
    return found
