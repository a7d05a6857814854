"""The files of onnxruntime-web, which a page needs: from a folder, or from npm, kept for the next time."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from platformdirs import user_cache_path

from imdn_kd.errors import InputError
from imdn_kd.utils.files import atomic_path
from imdn_kd.utils.text import one_line

PACKAGE = "onnxruntime-web"
VERSION = "1.30.0"
INTEGRITY = "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
"""Of the archive that npm gives for this version, as in a package-lock.json."""

FILES = {
    "ort.wasm.min.mjs": "ort.wasm.js",
    "ort.webgpu.min.mjs": "ort.webgpu.js",
    "ort-wasm-simd-threaded.mjs": "ort-wasm-simd-threaded.js",
    "ort-wasm-simd-threaded.wasm": "ort-wasm-simd-threaded.wasm",
    "ort-wasm-simd-threaded.asyncify.mjs": "ort-wasm-simd-threaded.asyncify.js",
    "ort-wasm-simd-threaded.asyncify.wasm": "ort-wasm-simd-threaded.asyncify.wasm",
}
"""Files in `dist` of the package, and their names in a page: many servers do not know `.mjs` as a script."""

_ADVICE = (
    f"install npm, or give a folder that holds the package {PACKAGE} of npm, such as node_modules/{PACKAGE} (--runtime)"
)
_SECONDS = 600


@contextmanager
def runtime_folder(folder: Path | None = None) -> Iterator[Path]:
    """The unpacked package: `folder`, or else that of npm, as long as the block runs.

    Raises:
        InputError: `web.runtime-folder`: `folder` lacks files of it; `web.no-runtime`: there is no npm, or it cannot
            get the package; `web.runtime-integrity`: what it got is another one.
    """
    if folder is not None:
        _check(folder)
        yield folder
        return
    archive = _archive()
    with TemporaryDirectory(prefix="imdn_kd_") as temporary:
        with tarfile.open(archive) as content:
            members = (member for member in content if Path(member.name).name in (*FILES, "package.json"))
            content.extractall(temporary, members, filter="data")
        _check(Path(temporary, "package"))
        yield Path(temporary, "package")


def stated_version(folder: Path) -> str:
    """The version of an unpacked package."""
    return str(json.loads((folder / "package.json").read_text(encoding="utf-8"))["version"])


def copy_runtime(folder: Path, target: Path) -> None:
    """Copy the files that a page needs into `target`, which is made."""
    target.mkdir()
    for source, name in FILES.items():
        shutil.copyfile(folder / "dist" / source, target / name)


def _check(folder: Path) -> None:
    missing = [name for name in FILES if not (folder / "dist" / name).is_file()]
    try:
        stated_version(folder)
    except (OSError, ValueError, KeyError, TypeError):
        missing.append("package.json")
    if missing:
        raise InputError(
            f"{folder}: is not the package {PACKAGE}, or another version of it: {missing[0]} is missing; give a folder "
            f"that holds {PACKAGE} {VERSION} of npm",
            code="web.runtime-folder",
        )


def _archive() -> Path:
    """The archive of the package, fetched once."""
    path = user_cache_path("imdn_kd") / f"{PACKAGE}-{VERSION}.tgz"
    if path.is_file() and _integrity(path) == INTEGRITY:
        return path
    npm = shutil.which("npm")
    if npm is None:
        raise InputError(f"a page needs {PACKAGE} {VERSION}, and there is no npm; {_ADVICE}", code="web.no-runtime")
    with TemporaryDirectory(prefix="imdn_kd_") as folder:
        command = [npm, "pack", f"{PACKAGE}@{VERSION}", "--silent", "--ignore-scripts"]
        try:
            done = subprocess.run(  # noqa: S603 - fixed arguments
                command, cwd=folder, capture_output=True, text=True, timeout=_SECONDS, stdin=subprocess.DEVNULL
            )
            reason = one_line(done.stderr.strip()[-200:]) if done.returncode else ""
        except (OSError, subprocess.TimeoutExpired) as error:
            reason = one_line(str(error))
        found = sorted(Path(folder).glob("*.tgz"))
        if not found:
            raise InputError(
                f"npm cannot get {PACKAGE} {VERSION} ({reason or 'it made no file'}); {_ADVICE}", code="web.no-runtime"
            )
        if _integrity(found[0]) != INTEGRITY:
            raise InputError(
                f"npm gave another {PACKAGE} {VERSION} than the published one; {_ADVICE}", code="web.runtime-integrity"
            )
        with atomic_path(path) as kept:
            shutil.copyfile(found[0], kept)
    return path


def _integrity(path: Path) -> str:
    digest = hashlib.sha512(path.read_bytes()).digest()
    return f"sha512-{base64.b64encode(digest).decode()}"
