"""Downloads of large files: resumed after interruptions, checked before they appear under their name."""

from __future__ import annotations

import hashlib
from pathlib import Path
from urllib.parse import urlsplit

from imdn_kd.data.preparation.sources.transfer import Progress, Transfer
from imdn_kd.errors import InputError
from imdn_kd.image.reader import one_line

_BLOCK = 2**20


def download(
    url: str, target: Path | str, *, checksum: str, size: int | None = None, on_progress: Progress | None = None
) -> None:
    """Download a file.

    What has arrived stays beside `target` as `NAME.part`, after Ctrl-C and lost connections as well, and the next call
    goes on from there, provided that the file on the server is still the same; else it starts again.

    Args:
        url: http or https.
        target: where to; appears, or is replaced, when the download is complete and right.
        checksum: `md5:...` or `sha256:...`.
        size: bytes, where known.
        on_progress: called with the bytes that are there, and with all of them if their number is known.

    Raises:
        InputError: not reachable, not the file that was published, not enough room, or a folder that cannot be written.
    """
    target = Path(target)
    if urlsplit(url).scheme not in ("http", "https"):
        raise InputError(one_line(f"{url}: is no address to download from; give one with https://"))
    transfer = Transfer(url, target, size, on_progress)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        transfer.run()
        found = _checksum(transfer.part.path, checksum.partition(":")[0])
        if found != checksum.lower():
            transfer.part.forget()
            raise InputError(
                one_line(
                    f"{url}: what came is not the file that was published (its checksum is {found}, not {checksum}); "
                    f"run the same command again, or get {target.name} by other means and put it into {target.parent}"
                )
            )
        transfer.part.path.replace(target)
        transfer.part.forget()
    except OSError as error:
        advice = "make room or choose another folder, and run the same command again"
        raise InputError(one_line(f"{target}: cannot write it ({error.strerror or error}); {advice}")) from error


def _checksum(path: Path, kind: str) -> str:
    digest = hashlib.new(kind, usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return f"{kind}:{digest.hexdigest()}"
