"""Fetching against a real HTTP server on loopback, and unpacking; hostile archives are row X3."""

import hashlib
import io
import os
import socket
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.client import HTTPMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.request import Request

import pytest

from lm.data import download
from lm.data.archive import extract, unpacked
from lm.data.download import Remote, fetch
from lm.errors import DataError, StorageError
from lm.runtime.lock import exclusive

CONTENT = bytes(range(256)) * 4096  # 1 MiB
REMEDY = "Set data.root=FOLDER."


@dataclass
class Server:
    """What the handler below serves, and how badly."""

    url: str = ""
    content: bytes = CONTENT
    ranges: bool = True
    drop_after: list[int] = field(default_factory=list)  # bytes before each connection drops
    statuses: list[int] = field(default_factory=list)  # errors answered before content
    location: str | None = None
    announced: bool = True
    requests: list[str | None] = field(default_factory=list)  # the Range of each request

    def remote(self, *, sha256: str | None = None, max_bytes: int = 2 << 20) -> Remote:
        return Remote(self.url, sha256 or hashlib.sha256(self.content).hexdigest(), max_bytes)


def handler_for(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            asked = self.headers["Range"]
            server.requests.append(asked)
            start = 0
            if server.location and self.path == "/file":
                return self._head(302, Location=server.location)
            if server.statuses:
                return self._head(server.statuses.pop(0), Content_Length="0")
            if asked and server.ranges:
                start = int(asked.removeprefix("bytes=").removesuffix("-"))
                if start >= len(server.content):
                    return self._head(416, Content_Range=f"bytes */{len(server.content)}")
            body = server.content[start:]
            headers = {"Content_Length": str(len(body))} if server.announced else {}
            if start:
                last = len(server.content) - 1
                headers["Content_Range"] = f"bytes {start}-{last}/{len(server.content)}"
            self._head(206 if start else 200, **headers)
            self.wfile.write(body[: server.drop_after.pop(0)] if server.drop_after else body)

        def _head(self, status: int, **headers: str) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()

    return Handler


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(download, "BACKOFF_SECONDS", 0.001)
    served = Server()
    with ThreadingHTTPServer(("127.0.0.1", 0), handler_for(served)) as http:
        served.url = f"http://127.0.0.1:{http.server_port}/file"
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield served
        http.shutdown()
        thread.join()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_arrives_whole_and_leaves_no_part(server: Server, tmp_path: Path) -> None:
    target = fetch(server.remote(), tmp_path / "file", remedy=REMEDY)
    assert target.read_bytes() == CONTENT
    assert names(tmp_path) == ["file"]
    assert server.requests == [None]


def test_a_broken_transfer_is_continued_where_it_stopped(server: Server, tmp_path: Path) -> None:
    server.drop_after = [300_000, 400_000]
    target = fetch(server.remote(), tmp_path / "file", remedy=REMEDY)
    assert target.read_bytes() == CONTENT
    assert server.requests == [None, "bytes=300000-", "bytes=700000-"]


def test_the_next_call_continues_what_the_last_one_gave_up(server: Server, tmp_path: Path) -> None:
    server.drop_after = [100_000] * download.ATTEMPTS
    with pytest.raises(DataError, match=r"ended after 400,000 of 1,048,576 bytes"):
        fetch(server.remote(), tmp_path / "file", remedy=REMEDY)
    assert names(tmp_path) == ["file.part"]
    assert fetch(server.remote(), tmp_path / "file", remedy=REMEDY).read_bytes() == CONTENT
    assert server.requests[-1] == "bytes=400000-"


def test_a_server_without_ranges_starts_over(server: Server, tmp_path: Path) -> None:
    server.drop_after, server.ranges = [300_000], False
    assert fetch(server.remote(), tmp_path / "file", remedy=REMEDY).read_bytes() == CONTENT
    assert server.requests == [None, "bytes=300000-"]


def test_a_part_longer_than_the_file_is_thrown_away(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.part").write_bytes(CONTENT + b"more")
    assert fetch(server.remote(), tmp_path / "file", remedy=REMEDY).read_bytes() == CONTENT
    assert server.requests == [f"bytes={len(CONTENT) + 4}-", None]


def test_a_complete_part_needs_no_request(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.part").write_bytes(CONTENT)
    assert fetch(server.remote(), tmp_path / "file", remedy=REMEDY).read_bytes() == CONTENT
    assert server.requests == []


def test_a_wrong_hash_is_refused_and_leaves_nothing(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has SHA-256 .*, not the published 0{64}") as caught:
        fetch(server.remote(sha256="0" * 64), tmp_path / "file", remedy=REMEDY)
    assert caught.value.remedy == REMEDY
    assert names(tmp_path) == []


@pytest.mark.parametrize("announced", [True, False])
def test_a_file_beyond_the_cap_is_refused(server: Server, tmp_path: Path, announced: bool) -> None:
    server.announced = announced
    with pytest.raises(DataError, match="too large"):
        fetch(server.remote(max_bytes=500_000), tmp_path / "file", remedy=REMEDY)
    assert names(tmp_path) == []
    assert len(server.requests) == 1


def test_server_errors_are_retried_and_a_missing_file_is_not(
    server: Server, tmp_path: Path
) -> None:
    server.statuses = [503, 429]
    assert fetch(server.remote(), tmp_path / "a", remedy=REMEDY).read_bytes() == CONTENT
    server.statuses = [404] * 5
    with pytest.raises(DataError, match="HTTP 404"):
        fetch(server.remote(), tmp_path / "b", remedy=REMEDY)
    assert len(server.requests) == 4


def test_redirects_are_followed_to_checked_addresses_only(server: Server, tmp_path: Path) -> None:
    server.location = server.url.replace("/file", "/other")
    assert fetch(server.remote(), tmp_path / "a", remedy=REMEDY).read_bytes() == CONTENT
    for address in ("http://example.com/file", "ftp://127.0.0.1/file"):
        server.location = address
        with pytest.raises(DataError, match=f"refused to fetch {address}"):
            fetch(server.remote(), tmp_path / "b", remedy=REMEDY)
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("url", ["http://example.com/file", "file:///etc/hostname", "ftp://[::1]/"])
def test_only_https_is_fetched(url: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="only https"):
        fetch(Remote(url, "0" * 64, 1), tmp_path / "file", remedy=REMEDY)
    assert names(tmp_path) == []


def test_plain_http_to_this_machine_is_for_loopback_origins_only(tmp_path: Path) -> None:
    redirects = download._CheckedRedirects("https://example.com/file", REMEDY)
    with pytest.raises(DataError, match="only https"):
        redirects.redirect_request(
            Request("https://example.com/file"),
            io.BytesIO(),
            302,
            "Found",
            HTTPMessage(),
            "http://127.0.0.1/file",
        )


def test_without_network_the_remedy_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "BACKOFF_SECONDS", 0.0)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound, not listening: connections are refused
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/file"
        with pytest.raises(DataError, match=r"cannot download .*refused") as caught:
            fetch(Remote(url, "0" * 64, 1), tmp_path / "file", remedy=REMEDY)
    assert caught.value.remedy == REMEDY


def test_the_lock_lets_one_in_at_a_time(tmp_path: Path) -> None:
    inside, overlaps = [], []

    def work() -> None:
        with exclusive(tmp_path / "folder" / "target"):
            inside.append(1)
            overlaps.append(len(inside))
            threading.Event().wait(0.01)
            inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert overlaps == [1, 1, 1, 1]


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    holder = (
        "import sys, time; from pathlib import Path; from lm.runtime.lock import exclusive\n"
        "with exclusive(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", holder, str(tmp_path / "target")]
    source = str(Path(download.__file__).parents[2])
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": source}
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        process.kill()
    with exclusive(tmp_path / "target"):
        pass


def test_two_fetching_the_same_archive_make_one_request(server: Server, tmp_path: Path) -> None:
    server.content = zipped(("a.txt", b"text"))
    remote = server.remote()
    folders: list[Path] = []

    def work() -> None:
        obtain = lambda target: fetch(remote, target, remedy=REMEDY)  # noqa: E731
        folders.append(unpacked(tmp_path, "set", remote.sha256, obtain))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.requests) == 1
    assert [(folder / "a.txt").read_bytes() for folder in folders] == [b"text"] * 3
    left = {path.name for path in folders[0].parent.iterdir()}
    assert left == {"files", ".files.lock"}


def zipped(*members: tuple[str | zipfile.ZipInfo, bytes]) -> bytes:
    """A zip archive with the members, compressed."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members:
            file.writestr(name, content)
    return buffer.getvalue()


def test_an_archive_unpacks_with_its_folders(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(zipped(("a/b/c.txt", b"deep"), ("d.txt", b"flat")))
    extract(tmp_path / "a.zip", tmp_path / "folder")
    assert (tmp_path / "folder" / "a" / "b" / "c.txt").read_bytes() == b"deep"
    assert (tmp_path / "folder" / "d.txt").read_bytes() == b"flat"
    assert names(tmp_path) == ["a.zip", "folder"]


def test_a_full_disk_is_a_storage_error_and_not_retried(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(download.os, "fsync", full)
    with pytest.raises(StorageError, match="No space left"):
        fetch(server.remote(), tmp_path / "file", remedy=REMEDY)
    assert len(server.requests) == 1
