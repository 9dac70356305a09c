"""Fetching one published file: verified, capped, continued where a broken transfer stopped.

Nothing gets its final name before its SHA-256 is the expected one, so a file that stands in the
cache is whole and right. What has arrived of a broken transfer waits beside it as `NAME.part`.
"""

import http.client
import ipaddress
import os
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from tqdm import tqdm

from lm.errors import DataError
from lm.runtime.files import sha256, storage_errors, sync

ATTEMPTS = 4
BACKOFF_SECONDS = 0.25
TIMEOUT_SECONDS = 30.0
CHUNK_BYTES = 1 << 18
# Some hosts of research data refuse urllib's default name.
USER_AGENT = "lm (recurrent language model training)"


@dataclass(frozen=True, slots=True)
class Remote:
    """A published file: where it is, what it must hash to, how large it may be."""

    url: str
    sha256: str
    max_bytes: int


def fetch(remote: Remote, target: Path, *, remedy: str) -> Path:
    """Bring `remote` to `target`; call it under `lock.exclusive`.

    A transfer that breaks is continued a few times, and by the next call after that.

    Args:
        remedy: what the user can do without network, such as naming a local folder.

    Raises:
        DataError: no network, refused address, too large, or another SHA-256 than published.
        StorageError: the cache cannot be written.
    """
    part = target.with_name(target.name + ".part")
    # A process that died between the last byte and the rename left a complete part.
    if not (part.exists() and sha256(part) == remote.sha256):
        _Transfer(remote, part, remedy).run()
        if (found := sha256(part)) != remote.sha256:
            part.unlink()
            raise DataError(
                f"{remote.url} has SHA-256 {found}, not the published {remote.sha256}", remedy
            )
    with storage_errors(f"write {target}"):
        part.replace(target)
        sync(target.parent)
    return target


class _TooLargeError(Exception):
    """More bytes than the cap, announced or sent."""


@dataclass(frozen=True, slots=True)
class _Transfer:
    remote: Remote
    part: Path
    remedy: str

    def run(self) -> None:
        """Request until the announced bytes are there or the attempts used up."""
        _check_address(self.remote.url, self.remedy, loopback=True)
        reason = ""
        for attempt in range(ATTEMPTS):
            time.sleep(BACKOFF_SECONDS * (2**attempt - 1))
            try:
                return self._request()
            except _TooLargeError as error:
                self.part.unlink(missing_ok=True)
                reason = str(error)
                break
            except urllib.error.HTTPError as error:
                error.close()
                reason = f"HTTP {error.code} {error.reason}"
                if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                    self.part.unlink(
                        missing_ok=True
                    )  # longer than what is offered, so not its beginning
                elif error.code < 500 and error.code not in (408, 429):
                    break
            except urllib.error.URLError as error:
                reason = str(error.reason)
            except (OSError, http.client.HTTPException) as error:
                reason = str(error) or type(error).__name__
        raise DataError(f"cannot download {self.remote.url}: {reason}", self.remedy)

    def _request(self) -> None:
        """One request: appends what the part lacks, or starts over where the server must.

        Raises:
            OSError, http.client.HTTPException: the transfer broke and may be continued.
        """
        have = self.part.stat().st_size if self.part.exists() else 0
        headers = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity"}
        if have:
            headers["Range"] = f"bytes={have}-"
        request = urllib.request.Request(self.remote.url, headers=headers)
        opener = _opener(self.remote.url, self.remedy)
        with opener.open(request, timeout=TIMEOUT_SECONDS) as response:
            start = _first_byte(response)
            if start not in (0, have):
                raise ConnectionError(f"asked for byte {have}, got an answer from {start}")
            length = response.headers.get("Content-Length", "")
            total = start + int(length) if length.isdigit() else None
            self._check_size(total or 0)
            with storage_errors(f"write {self.part}"):
                file = self.part.open("ab" if start else "wb")
            with file:
                size = self._copy(response, file, start, total)
        if total is not None and size < total:
            raise ConnectionError(f"the connection ended after {size:,} of {total:,} bytes")

    def _copy(
        self, response: http.client.HTTPResponse, file: IO[bytes], size: int, total: int | None
    ) -> int:
        """Append the response's body to `file`; returns the size reached."""
        with tqdm(
            desc=self.remote.url.rpartition("/")[2],
            initial=size,
            total=total,
            unit="B",
            unit_scale=True,
            leave=False,
            disable=None,
        ) as bar:
            while chunk := response.read(CHUNK_BYTES):
                size += len(chunk)
                self._check_size(size)
                with storage_errors(f"write {self.part}"):
                    file.write(chunk)
                bar.update(len(chunk))
        with storage_errors(f"write {self.part}"):
            file.flush()
            os.fsync(file.fileno())
        return size

    def _check_size(self, size: int) -> None:
        cap = self.remote.max_bytes
        if size > cap:
            raise _TooLargeError(
                f"too large, {size:,} bytes or more where at most {cap:,} are expected"
            )


def _first_byte(response: http.client.HTTPResponse) -> int:
    """The offset of the response's first byte: not 0 only for a partial answer."""
    if response.status != HTTPStatus.PARTIAL_CONTENT:
        return 0
    offset = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
    return int(offset) if offset.isdigit() else -1


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check_address(url: str, remedy: str, *, loopback: bool) -> None:
    """Only https; plain http to this machine itself passes where `loopback` says so."""
    scheme = urlsplit(url).scheme
    if scheme != "https" and not (scheme == "http" and loopback and _is_loopback(url)):
        raise DataError(f"refused to fetch {url}: only https addresses are fetched", remedy)


class _CheckedRedirects(urllib.request.HTTPRedirectHandler):
    def __init__(self, origin: str, remedy: str) -> None:
        self.loopback = _is_loopback(origin)
        self.remedy = remedy

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: Any,  # an HTTPResponse, which is no IO[bytes] although the stubs say so
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        try:
            _check_address(newurl, self.remedy, loopback=self.loopback)
        except DataError:
            fp.close()
            raise
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener(url: str, remedy: str) -> urllib.request.OpenerDirector:
    handlers: list[urllib.request.BaseHandler] = [_CheckedRedirects(url, remedy)]
    if _is_loopback(url):
        handlers.append(urllib.request.ProxyHandler({}))  # no proxy stands before this machine
    return urllib.request.build_opener(*handlers)
