"""What lies on disk while a file is being downloaded."""

from __future__ import annotations

import http.client
import json
from dataclasses import asdict, dataclass
from http import HTTPStatus
from pathlib import Path


@dataclass(frozen=True)
class FileFacts:
    """What a server says of a file: the strong ETag, the time of change, and bytes; empty where it does not."""

    etag: str
    changed: str
    size: int | None

    def agree(self, other: FileFacts) -> bool:
        """Whether both are of the same file; what one of them does not tell, speaks not against it."""
        pairs = ((self.etag, other.etag), (self.changed, other.changed), (self.size, other.size))
        return all(mine == others for mine, others in pairs if mine and others)


def facts_in(response: http.client.HTTPResponse) -> FileFacts:
    """Return what a response says of the whole file, also if it brings only the rest of it."""
    etag = response.headers.get("ETag", "")
    size = response.headers.get("Content-Length", "")
    if response.status == HTTPStatus.PARTIAL_CONTENT:
        size = response.headers.get("Content-Range", "").rpartition("/")[2]
    # A weak ETag does not promise the same bytes.
    strong = "" if etag.startswith("W/") else etag
    return FileFacts(strong, response.headers.get("Last-Modified", ""), int(size) if size.isdecimal() else None)


class PartFile:
    """The bytes that have arrived of a file, in `NAME.part`, and what the server said of it, in `NAME.part.json`."""

    def __init__(self, url: str, target: Path) -> None:
        self.path = target.with_name(f"{target.name}.part")
        self._notes = target.with_name(f"{target.name}.part.json")
        self._url = url

    def size(self) -> int:
        """Bytes that have arrived."""
        return self.path.stat().st_size if self.path.exists() else 0

    def facts(self) -> FileFacts | None:
        """What the file is that the part is of; None if that is not known, or another file."""
        try:
            notes = json.loads(self._notes.read_text(encoding="utf-8"))
            return FileFacts(**notes["facts"]) if notes["url"] == self._url else None
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def begin(self, facts: FileFacts) -> None:
        """Start with nothing."""
        self.forget()
        self.path.write_bytes(b"")
        self._notes.write_text(json.dumps({"url": self._url, "facts": asdict(facts)}), encoding="utf-8")

    def forget(self) -> None:
        """Remove it all."""
        for path in (self._notes, self.path):
            path.unlink(missing_ok=True)
