"""Where the files of onnxruntime-web come from; npm is played by a script."""

from __future__ import annotations

import stat
import tarfile

from imdn_kd.web import runtime as runtimes
from imdn_kd.web.runtime import FILES, runtime_folder
from tests.refused import refused
from tests.web.pages import files


def test_a_folder_without_the_runtime_is_refused(package, tmp_path):
    with refused("web.runtime-folder"), runtime_folder(tmp_path):
        pass
    (package / "dist/ort.wasm.min.mjs").rename(tmp_path / "away")
    try:
        with refused("web.runtime-folder") as caught, runtime_folder(package):
            pass
        assert "ort.wasm.min.mjs" in str(caught.value)
    finally:
        (tmp_path / "away").rename(package / "dist/ort.wasm.min.mjs")


def test_without_npm_or_with_another_package_nothing_is_used(package, tmp_path, monkeypatch):
    monkeypatch.setattr(runtimes, "user_cache_path", lambda _: tmp_path / "cache")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with refused("web.no-runtime"), runtime_folder():
        pass
    npm = tmp_path / "bin/npm"
    npm.parent.mkdir()
    for content, code in (("exit 1", "web.no-runtime"), ("echo > other.tgz", "web.runtime-integrity")):
        npm.write_text(f"#!/bin/sh\n{content}\n")
        npm.chmod(npm.stat().st_mode | stat.S_IXUSR)
        with refused(code), runtime_folder():
            pass
    assert not (tmp_path / "cache").exists()


def test_what_npm_gave_is_kept(package, tmp_path, monkeypatch):
    monkeypatch.setattr(runtimes, "user_cache_path", lambda _: tmp_path / "cache")
    with tarfile.open(tmp_path / "given.tgz", "w:gz") as archive:
        archive.add(package, "package")
    monkeypatch.setattr(runtimes, "INTEGRITY", runtimes._integrity(tmp_path / "given.tgz"))
    npm = tmp_path / "bin/npm"
    npm.parent.mkdir()
    npm.write_text(f"#!/bin/sh\n/bin/mv {tmp_path / 'given.tgz'} onnxruntime-web.tgz\n")
    npm.chmod(npm.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(npm.parent))
    for _ in range(2):  # the second time npm has nothing to give
        with runtime_folder() as folder:
            assert files(folder) == {"package.json", *(f"dist/{name}" for name in FILES)}
