"""The sdist and the wheel, installed on the oldest and the newest Python at hand.

PyTorch and what stands on it are left out: they take gigabytes, and the other tests run with them. What remains of the
requirements is enough for the commands that do not touch pictures.
"""

from __future__ import annotations

import email
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import imdn_kd
from imdn_kd import zoo

ROOT = Path(__file__).resolve().parents[1]
LIGHT = ("filelock", "platformdirs", "psutil", "pydantic", "pyyaml", "rich", "typer")
"""Requirements that are small, and enough to read option files and to run a command."""

pytestmark = [pytest.mark.slow, pytest.mark.processes]


def run(*command: object, cwd: Path) -> str:
    # Neither this checkout nor what is installed beside it may help.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run([str(word) for word in command], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def interpreters() -> list[Path]:
    """The oldest and the newest Python from 3.10 on, of the path and of pyenv."""
    found = {sys.version_info[:2]: Path(sys.executable)}
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    for minor in range(10, 30):
        name = f"python3.{minor}"
        for path in (*sorted(pyenv.glob(f"3.{minor}.*/bin/{name}")), shutil.which(name)):
            # Shims of pyenv are found on the path, but run only versions that are switched on.
            works = path and subprocess.run([str(path), "-c", "import venv, ensurepip"], capture_output=True)
            if works and works.returncode == 0:
                found.setdefault((3, minor), Path(path))
    return [found[version] for version in sorted({min(found), max(found)})]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The sdist, made of what the repository has, and the wheel, made of the sdist."""
    work = tmp_path_factory.mktemp("built")
    (work / "tree").mkdir()
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, work / "tree")
    shutil.copytree(ROOT / "imdn_kd", work / "tree/imdn_kd", ignore=shutil.ignore_patterns("__pycache__"))
    build = "import sys; from setuptools import build_meta; getattr(build_meta, 'build_' + sys.argv[1])(sys.argv[2])"
    run(sys.executable, "-c", build, "sdist", work, cwd=work / "tree")
    (sdist,) = work.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(work / "unpacked", filter="data")
    (unpacked,) = (work / "unpacked").iterdir()
    run(sys.executable, "-c", build, "wheel", work, cwd=unpacked)
    (wheel,) = work.glob("*.whl")
    return sdist, wheel


def test_both_hold_the_whole_package(built):
    sdist, wheel = built
    package = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "imdn_kd").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with tarfile.open(sdist) as archive:
        in_sdist = {name.partition("/")[2] for name in archive.getnames()}
    in_wheel = set(zipfile.ZipFile(wheel).namelist())

    assert package | {"LICENSE", "README.md", "setup.py"} <= in_sdist
    assert package == {name for name in in_wheel if ".dist-info/" not in name}
    assert any(name.endswith("LICENSE") for name in in_wheel)


@pytest.fixture(scope="module")
def metadata(built):
    with zipfile.ZipFile(built[1]) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return email.message_from_bytes(archive.read(name))


def test_the_metadata_are_those_of_the_version(built, metadata):
    assert [imdn_kd.__version__ in path.name for path in built] == [True, True]
    assert (metadata["Name"], metadata["Version"]) == ("imdn_kd", imdn_kd.__version__)
    assert metadata["Requires-Python"] == ">=3.10"
    extras = set(metadata.get_all("Provides-Extra"))
    assert {"train", "deploy", "study", "video", "hub", "docs", "dev"} <= extras
    # What messages and documents tell people to install is there.
    source = "".join(path.read_text(encoding="utf-8") for path in ROOT.glob("imdn_kd/**/*.py"))
    told = set(re.findall(r"how_to_install\([\"'](\w+)[\"']\)", source))
    assert told
    told |= set(re.findall(r'install "?\.\[([\w,]+)\]', (ROOT / "README.md").read_text(encoding="utf-8")))
    assert {name for names in told for name in names.split(",")} <= extras


@pytest.mark.parametrize("number", [0, 1], ids=["oldest", "newest"])
def test_a_fresh_environment_runs_commands(built, metadata, tmp_path, number):
    pythons = interpreters()
    if number >= len(pythons):
        pytest.skip("there is no other Python to try")
    run(pythons[number], "-m", "venv", "--without-pip", tmp_path / "fresh", cwd=tmp_path)
    python = tmp_path / "fresh/bin/python"
    needed = [each for each in metadata.get_all("Requires-Dist") if re.match(r"[\w.-]+", each)[0].lower() in LIGHT]
    assert len(needed) == len(LIGHT)
    install = (sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-compile")
    run(*install, *needed, cwd=tmp_path)
    run(*install, "--no-deps", "--no-index", built[1], cwd=tmp_path)
    command = tmp_path / "fresh/bin/imdn-kd"

    # Every file is one of this Python.
    run(python, "-m", "compileall", "-q", next((tmp_path / "fresh").glob("lib/*/site-packages/imdn_kd")), cwd=tmp_path)
    assert run(command, "--version", cwd=tmp_path) == f"imdn-kd {imdn_kd.__version__}\n"
    assert "upscale" in run(command, "--help", cwd=tmp_path)
    assert "# Option files" in run(command, "options", "docs", "train", cwd=tmp_path)
    student = zoo.students()[0].name
    assert run(command, "zoo", "card", student, cwd=tmp_path).startswith(f"# {student}")
