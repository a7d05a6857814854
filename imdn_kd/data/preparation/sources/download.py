"""Downloads of large files, resumed after interruptions and checked before they appear under their name."""

from __future__ import annotations

import hashlib
import http.client
import json
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urlsplit

from imdn_kd.errors import InputError
from imdn_kd.utils.text import one_line

_BLOCK = 2**20


def download(
    url: str, target: Path | str, *, checksum: str, size: int | None = None, on_progress: Progress | None = None
) -> None:
    """Download a file.

    Received bytes are kept beside `target` as `NAME.part`, also after Ctrl-C and lost connections, and the next call
    resumes there if the file on the server is still the same.

    Args:
        url: http or https.
        target: the file; appears, or is replaced, when the download is complete and its checksum right.
        checksum: `md5:...` or `sha256:...`.
        size: bytes, where known.
        on_progress: called with the bytes received, and with the total if it is known.

    Raises:
        InputError: `download.url`, `download.failed`, `download.checksum`, `download.disk-full` or
            `download.cannot-write`.
    """
    target = Path(target)
    if urlsplit(url).scheme not in ("http", "https"):
        raise InputError(
            one_line(f"{url}: is no address to download from; give one with https://"), code="download.url"
        )
    transfer = Transfer(url, target, size, on_progress)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        transfer.run()
        found = _checksum(transfer.part.path, checksum.partition(":")[0])
        if found != checksum.lower():
            transfer.part.forget()
            raise InputError(
                one_line(
                    f"{url}: the download is not the published file (its checksum is {found}, not {checksum}); "
                    f"run the same command again, or get {target.name} by other means and put it into {target.parent}"
                ),
                code="download.checksum",
            )
        transfer.part.path.replace(target)
        transfer.part.forget()
    except OSError as error:
        advice = "make room or choose another folder, and run the same command again"
        raise InputError(
            one_line(f"{target}: cannot write it ({error.strerror or error}); {advice}"), code="download.cannot-write"
        ) from error


def _checksum(path: Path, kind: str) -> str:
    digest = hashlib.new(kind, usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return f"{kind}:{digest.hexdigest()}"


Progress = Callable[[int, int | None], None]
"""Called with the bytes received, and with the total if it is known."""

_BLOCK = 2**20
_TIMEOUT = 30.0
_PAUSES = (1.0, 2.0, 4.0, 8.0)
"""Seconds before each retry; the count starts again whenever bytes arrived."""


class _DroppedError(Exception):
    """The connection ended early, or the server is busy; worth a retry."""


class Transfer:
    """A download into a part file.

    Args:
        url: http or https.
        target: the file; the part file lies beside it.
        size: bytes, where known.
        on_progress: see `Progress`.
    """

    def __init__(self, url: str, target: Path, size: int | None, on_progress: Progress | None) -> None:
        self.part = PartFile(url, target)
        self._url, self._target, self._size = url, target, size
        self._on_progress = on_progress or (lambda have, total: None)
        self._connected = False

    def run(self) -> None:
        """Download the rest, over several connections if necessary.

        Raises:
            InputError: `download.failed` or `download.disk-full`.
            OSError: the part file cannot be written.
        """
        most, pauses = self.part.size(), 0
        while True:
            try:
                return self._connect()
            except _DroppedError as error:
                # Only a new maximum counts: a server without ranges may break off at the same place each time.
                if self.part.size() > most:
                    most, pauses = self.part.size(), 0
                if pauses == len(_PAUSES):
                    raise self._refused(str(error)) from error
                time.sleep(_PAUSES[pauses])
                pauses += 1

    def _connect(self) -> None:
        facts = self.part.facts()
        have = self.part.size() if facts else 0
        if facts and have and have == facts.size:
            return
        headers = {"User-Agent": "imdn_kd", "Accept-Encoding": "identity"}
        if facts and have:
            headers["Range"] = f"bytes={have}-"
            if facts.etag or facts.changed:
                headers["If-Range"] = facts.etag or facts.changed
        with self._open(headers) as response:
            self._connected = True
            if facts and response.status == HTTPStatus.PARTIAL_CONTENT:
                self._check_rest(response, facts, have)
            else:
                have, facts = 0, self._begin(response)
            self._receive(response, have, facts.size)

    def _open(self, headers: dict[str, str]) -> http.client.HTTPResponse:
        try:
            request = urllib.request.Request(self._url, headers=headers)  # noqa: S310 - checked by `download`
            response: http.client.HTTPResponse = _opener().open(request, timeout=_TIMEOUT)
            return response
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                self.part.forget()
            elif error.code != HTTPStatus.TOO_MANY_REQUESTS and error.code < HTTPStatus.INTERNAL_SERVER_ERROR:
                raise self._refused(f"{error.code} {error.reason}") from error
            raise _DroppedError(f"{error.code} {error.reason}") from error
        except (OSError, http.client.HTTPException) as error:
            reason = error.reason if isinstance(error, urllib.error.URLError) else error
            message = getattr(reason, "strerror", None) or str(reason)
            # What cannot be reached at all will not be reached a second later.
            if isinstance(error, (urllib.error.URLError, http.client.InvalidURL)) and not self._connected:
                raise self._refused(message) from error
            raise _DroppedError(message) from error

    def _begin(self, response: http.client.HTTPResponse) -> FileFacts:
        if response.headers.get_content_type() == "text/html":
            raise self._refused("the server sends a web page instead")
        facts = facts_in(response)
        if None not in (self._size, facts.size) and self._size != facts.size:
            raise self._refused(f"the server has {facts.size} bytes, but {self._size} were published")
        facts = replace(facts, size=facts.size or self._size)
        self._check_room(facts.size)
        self.part.begin(facts)
        return facts

    def _check_rest(self, response: http.client.HTTPResponse, facts: FileFacts, have: int) -> None:
        """Check that the response continues the part file; otherwise drop the part file."""
        starts_here = response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        if not starts_here or not facts_in(response).agree(facts):
            self.part.forget()
            raise _DroppedError("the file on the server has changed")
        self._check_room(facts.size)

    def _check_room(self, total: int | None) -> None:
        need = (total or 0) - self.part.size()
        free = shutil.disk_usage(self._target.parent).free
        if need > free:
            raise InputError(
                one_line(
                    f"{self._target}: needs {need / 1e9:.2f} GB, but {free / 1e9:.2f} GB are free there; make room or "
                    "choose another folder"
                ),
                code="download.disk-full",
            )

    def _receive(self, response: http.client.HTTPResponse, have: int, total: int | None) -> None:
        with self.part.path.open("ab") as file:
            self._on_progress(have, total)
            while have != total:
                try:
                    # Not `read`, which throws away what it has of a block when the connection is reset.
                    block = response.read1(_BLOCK)
                except (OSError, http.client.HTTPException) as error:
                    raise _DroppedError(f"the connection was lost after {have} bytes") from error
                if not block:
                    break
                file.write(block)
                have += len(block)
                self._on_progress(have, total)
        if total is not None and have < total:
            raise _DroppedError(f"the connection was lost after {have} of {total} bytes")

    def _refused(self, reason: str) -> InputError:
        return InputError(
            one_line(
                f"cannot download {self._url} ({reason}); get {self._target.name} by other means, put it into "
                f"{self._target.parent}, and run the same command again"
            ),
            code="download.failed",
        )


def _opener() -> urllib.request.OpenerDirector:
    """Http and https, with the proxies of the environment; no redirection leads to anything else."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPErrorProcessor,
        urllib.request.UnknownHandler,
    ):
        opener.add_handler(handler())
    return opener


@dataclass(frozen=True)
class FileFacts:
    """Facts about a file on a server: strong ETag, modification time, bytes; empty where not stated."""

    etag: str
    changed: str
    size: int | None

    def agree(self, other: FileFacts) -> bool:
        """Whether both can be of the same file; what one of them does not state is ignored."""
        pairs = ((self.etag, other.etag), (self.changed, other.changed), (self.size, other.size))
        return all(mine == others for mine, others in pairs if mine and others)


def facts_in(response: http.client.HTTPResponse) -> FileFacts:
    """Return the facts about the whole file that a response states, also if it carries only the rest of it."""
    etag = response.headers.get("ETag", "")
    size = response.headers.get("Content-Length", "")
    if response.status == HTTPStatus.PARTIAL_CONTENT:
        size = response.headers.get("Content-Range", "").rpartition("/")[2]
    # A weak ETag does not promise the same bytes.
    strong = "" if etag.startswith("W/") else etag
    return FileFacts(strong, response.headers.get("Last-Modified", ""), int(size) if size.isdecimal() else None)


class PartFile:
    """The received bytes of a file, in `NAME.part`, and the server's facts about it, in `NAME.part.json`."""

    def __init__(self, url: str, target: Path) -> None:
        self.path = target.with_name(f"{target.name}.part")
        self._notes = target.with_name(f"{target.name}.part.json")
        self._url = url

    def size(self) -> int:
        """Bytes received."""
        return self.path.stat().st_size if self.path.exists() else 0

    def facts(self) -> FileFacts | None:
        """Facts about the file on the server; None if unknown, or of another address."""
        try:
            notes = json.loads(self._notes.read_text(encoding="utf-8"))
            return FileFacts(**notes["facts"]) if notes["url"] == self._url else None
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def begin(self, facts: FileFacts) -> None:
        """Start an empty part file."""
        self.forget()
        self.path.write_bytes(b"")
        self._notes.write_text(json.dumps({"url": self._url, "facts": asdict(facts)}), encoding="utf-8")

    def forget(self) -> None:
        """Remove the part file and its facts."""
        for path in (self._notes, self.path):
            path.unlink(missing_ok=True)
