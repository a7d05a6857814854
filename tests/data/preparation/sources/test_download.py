from __future__ import annotations

import hashlib
import json
import random
import socket
import threading
from collections import namedtuple
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from imdn_kd.data.preparation.sources import download as download_module
from imdn_kd.data.preparation.sources.download import download
from imdn_kd.errors import InputError

CONTENT = random.Random(0).randbytes(3_000_000)
MD5 = f"md5:{hashlib.md5(CONTENT).hexdigest()}"
SHA256 = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"


@dataclass
class Behaviour:
    """What the server does; `cut_at` are the bytes after which it drops the first connections."""

    content: bytes = CONTENT
    etag: str = '"one"'
    changed: str = "Mon, 01 Jan 2024 00:00:00 GMT"
    ranges: bool = True
    if_range: bool = True
    length: bool = True
    cut_at: list[int] = field(default_factory=list)
    refusals: list[int] = field(default_factory=list)
    redirect: str = ""
    kind: str = "application/zip"
    requests: list[dict[str, str]] = field(default_factory=list)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        does: Behaviour = self.server.behaviour
        does.requests.append({key.lower(): value for key, value in self.headers.items()})
        if does.refusals:
            return self.send_error(does.refusals.pop(0))
        if does.redirect and self.path != "/moved":
            self.send_response(302)
            self.send_header("Location", does.redirect)
            self.send_header("Content-Length", "0")
            return self.end_headers()
        start = self._start(does)
        if start is not None and start >= len(does.content):
            return self.send_error(416)
        self.send_response(200 if start is None else 206)
        if start is not None:
            self.send_header("Content-Range", f"bytes {start}-{len(does.content) - 1}/{len(does.content)}")
        body = does.content[start or 0 :]
        if does.length:
            self.send_header("Content-Length", str(len(body)))
        for name, value in (("ETag", does.etag), ("Last-Modified", does.changed), ("Content-Type", does.kind)):
            if value:
                self.send_header(name, value)
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body[: does.cut_at.pop(0)] if does.cut_at else body)
        self.close_connection = True

    def _start(self, does: Behaviour) -> int | None:
        start = self.headers.get("Range")
        condition = self.headers.get("If-Range")
        if start is None or not does.ranges or (does.if_range and condition not in (None, does.etag, does.changed)):
            return None
        return int(start.removeprefix("bytes=").rstrip("-"))

    def log_message(self, *_: object) -> None:
        pass


class Http(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """Clients that hang up are part of the tests."""


@dataclass
class Server:
    url: str
    behaviour: Behaviour


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(download_module, "_PAUSES", (0.0, 0.0, 0.0))
    monkeypatch.setattr(download_module, "_TIMEOUT", 5.0)
    with Http(("127.0.0.1", 0), Handler) as http:
        http.behaviour = Behaviour()
        thread = threading.Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        yield Server(f"http://127.0.0.1:{http.server_port}/a.zip", http.behaviour)
        http.shutdown()
        thread.join()


def ranges(server: Server) -> list[str | None]:
    return [request.get("range") for request in server.behaviour.requests]


def fetch(server: Server, folder: Path, checksum: str = MD5, **options: object) -> None:
    """Download, and make sure that the file and nothing else is there."""
    download(server.url, folder / "a.zip", checksum=checksum, **options)
    assert (folder / "a.zip").read_bytes() == server.behaviour.content
    assert [path.name for path in folder.iterdir()] == ["a.zip"]


@pytest.mark.parametrize("checksum", [MD5, SHA256, MD5.upper().replace("MD5", "md5")])
def test_download(server, tmp_path, checksum):
    seen = []
    fetch(server, tmp_path / "new", checksum, size=len(CONTENT), on_progress=lambda *at: seen.append(at))
    assert (seen[0], seen[-1]) == ((0, len(CONTENT)), (len(CONTENT), len(CONTENT)))
    assert [at for at, _ in seen] == sorted(at for at, _ in seen)


def test_a_target_that_is_there_is_replaced(server, tmp_path):
    (tmp_path / "a.zip").write_bytes(b"old")
    fetch(server, tmp_path)


def test_lost_connections(server, tmp_path):
    server.behaviour.cut_at = [1_000_000, 500_000, 0, 0, 1, 0]
    fetch(server, tmp_path)
    starts = [None, 1_000_000, 1_500_000, 1_500_000, 1_500_000, 1_500_001, 1_500_001]
    assert ranges(server) == [start and f"bytes={start}-" for start in starts]


def test_a_server_that_gives_no_length(server, tmp_path):
    server.behaviour.length = False
    fetch(server, tmp_path)
    server.behaviour.cut_at = [1_000_000]
    fetch(server, tmp_path, size=len(CONTENT))


def test_a_server_that_gives_up(server, tmp_path):
    server.behaviour.cut_at = [1_000_000, *[0] * 9]
    error = error_of(server, tmp_path)
    assert error.code == "download.failed"
    assert "the connection was lost after 1000000 of 3000000 bytes" in str(error)
    assert len(server.behaviour.requests) == 4
    assert (tmp_path / "a.zip.part").stat().st_size == 1_000_000


def test_a_server_that_ignores_ranges(server, tmp_path):
    server.behaviour.ranges = False
    server.behaviour.cut_at = [1_000_000, 500_000, 2_000_000]
    fetch(server, tmp_path)
    assert len(server.behaviour.requests) == 4


def test_a_server_that_ignores_ranges_and_always_breaks_off(server, tmp_path):
    server.behaviour.ranges = False
    server.behaviour.cut_at = [1_000_000] * 99
    assert "lost after 1000000" in str(error_of(server, tmp_path))
    assert len(server.behaviour.requests) == 4


class Stop:
    """Ctrl-C when half of the file is there."""

    def __call__(self, have: int, _: int | None) -> None:
        if have > len(CONTENT) // 2:
            raise KeyboardInterrupt


def interrupt(server: Server, folder: Path) -> int:
    """Break off a download; returns how much of it is kept."""
    with pytest.raises(KeyboardInterrupt):
        download(server.url, folder / "a.zip", checksum=MD5, on_progress=Stop())
    assert not (folder / "a.zip").exists()
    return (folder / "a.zip.part").stat().st_size


@pytest.mark.parametrize(
    "etag, changed, condition",
    [
        ('"one"', "Mon, 01 Jan 2024 00:00:00 GMT", '"one"'),
        ('W/"weak"', "Mon, 01 Jan 2024 00:00:00 GMT", None),
        ("", "", ""),
    ],
)
def test_an_interrupted_download_goes_on(server, tmp_path, etag, changed, condition):
    server.behaviour.etag, server.behaviour.changed = etag, changed
    kept = interrupt(server, tmp_path)
    assert len(CONTENT) // 2 < kept < len(CONTENT)
    seen = []
    fetch(server, tmp_path, on_progress=lambda *at: seen.append(at))
    assert seen[0] == (kept, len(CONTENT))
    request = server.behaviour.requests[-1]
    assert (request["range"], request.get("if-range", "")) == (
        f"bytes={kept}-",
        changed if condition is None else condition,
    )


def test_a_complete_part_is_not_asked_for_again(server, tmp_path):
    interrupt(server, tmp_path)
    (tmp_path / "a.zip.part").write_bytes(CONTENT)
    fetch(server, tmp_path)
    assert len(server.behaviour.requests) == 1


@pytest.mark.parametrize("if_range", [True, False])
@pytest.mark.parametrize("validators", [('"two"', "Tue, 02 Jan 2024 00:00:00 GMT"), ("", "")])
def test_the_part_of_a_changed_file_is_dropped(server, tmp_path, validators, if_range):
    does = server.behaviour
    if not any(validators):
        does.etag = does.changed = ""
    interrupt(server, tmp_path)
    does.content = random.Random(1).randbytes(3_100_000)
    does.if_range, (does.etag, does.changed) = if_range, validators
    fetch(server, tmp_path, f"md5:{hashlib.md5(does.content).hexdigest()}")


def test_a_part_that_is_longer_than_the_file(server, tmp_path):
    interrupt(server, tmp_path)
    (tmp_path / "a.zip.part").write_bytes(bytes(len(CONTENT) + 1))
    fetch(server, tmp_path)


@pytest.mark.parametrize("notes", ["", "[]", '{"url": "http://elsewhere"}', None])
def test_a_part_of_something_else_is_dropped(server, tmp_path, notes):
    (tmp_path / "a.zip.part").write_bytes(b"what is this")
    if notes is not None:
        (tmp_path / "a.zip.part.json").write_text(notes)
    fetch(server, tmp_path)
    assert ranges(server) == [None]


def test_notes_of_another_address(server, tmp_path):
    interrupt(server, tmp_path)
    path = tmp_path / "a.zip.part.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "url": "http://elsewhere/a.zip"}))
    fetch(server, tmp_path)
    assert ranges(server) == [None, None]


def test_a_server_that_is_busy(server, tmp_path):
    server.behaviour.refusals = [503, 429]
    fetch(server, tmp_path)


def test_redirections(server, tmp_path):
    server.behaviour.redirect = "/moved"
    fetch(server, tmp_path)
    server.behaviour.redirect = "ftp://127.0.0.1/a.zip"
    assert error_of(server, tmp_path).code == "download.failed"


def error_of(server: Server, folder: Path, **options: object) -> InputError:
    with pytest.raises(InputError) as caught:
        download(server.url, folder / "a.zip", **{"checksum": MD5, **options})
    assert "\n" not in str(caught.value)
    return caught.value


def test_wrong_checksum(server, tmp_path):
    error = error_of(server, tmp_path, checksum=f"md5:{'0' * 32}")
    assert error.code == "download.checksum"
    assert f"{MD5}, not md5:000" in str(error)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("code, text", [(404, "404 Not Found"), (403, "403 Forbidden")])
def test_refusals(server, tmp_path, code, text):
    server.behaviour.refusals = [code] * 9
    error = error_of(server, tmp_path)
    assert error.code == "download.failed"
    assert f"{server.url} ({text})" in str(error)
    assert len(server.behaviour.requests) == 1


def test_a_refusal_keeps_the_part(server, tmp_path):
    kept = interrupt(server, tmp_path)
    server.behaviour.refusals = [404]
    error_of(server, tmp_path)
    assert (tmp_path / "a.zip.part").stat().st_size == kept


def test_a_server_that_stays_busy(server, tmp_path):
    server.behaviour.refusals = [503] * 9
    assert error_of(server, tmp_path).code == "download.failed"
    assert len(server.behaviour.requests) == 4


def test_nobody_listens(server, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        server.url = f"http://127.0.0.1:{free.getsockname()[1]}/a.zip"
    assert error_of(server, tmp_path).code == "download.failed"
    assert list(tmp_path.iterdir()) == []


def test_no_such_host(server, tmp_path, monkeypatch):
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    server.url = "https://nowhere.invalid/a.zip"
    assert error_of(server, tmp_path).code == "download.failed"


@pytest.mark.parametrize("url", ["file:///etc/hostname", "ftp://nowhere/a.zip", "a.zip"])
def test_other_addresses(server, tmp_path, url):
    server.url = url
    assert error_of(server, tmp_path).code == "download.url"


def test_another_size_than_published(server, tmp_path):
    kept = interrupt(server, tmp_path)
    server.behaviour.content, server.behaviour.etag, server.behaviour.changed = b"short", '"two"', ""
    assert error_of(server, tmp_path, size=len(CONTENT)).code == "download.failed"
    assert (tmp_path / "a.zip.part").stat().st_size == kept


def test_a_page_to_log_in(server, tmp_path):
    server.behaviour.content, server.behaviour.kind = b"<html>", "text/html; charset=utf-8"
    assert error_of(server, tmp_path).code == "download.failed"


def test_no_room(server, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(download_module.shutil, "disk_usage", lambda _: usage(0, 0, 2_000_000))
    assert error_of(server, tmp_path).code == "download.disk-full"
    assert list(tmp_path.iterdir()) == []


def test_room_for_the_rest_is_enough(server, tmp_path, monkeypatch):
    interrupt(server, tmp_path)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(download_module.shutil, "disk_usage", lambda _: usage(0, 0, 2_000_000))
    fetch(server, tmp_path)


def test_a_full_disk(server, tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(download_module.PartFile, "begin", full)
    assert error_of(server, tmp_path).code == "download.cannot-write"


def test_a_folder_that_is_a_file(server, tmp_path):
    (tmp_path / "file").write_text("")
    assert error_of(server, tmp_path / "file").code == "download.cannot-write"
