"""The user's own files and modules, named in option files and on the command line."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from imdn_kd.config.imports import import_user_code
from imdn_kd.config.options import Options, read_options
from imdn_kd.registry import ARCHS
from tests.refused import refused

SET = "from imdn_kd.registry import ARCHS\n@ARCHS.register\ndef {name}():\n    return 3\n"


class Run(Options):
    """A run.

    Attributes:
        imports: modules of the user.
    """

    imports: list[str] | None = None


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    """Forget what a test has imported and registered."""
    before: list[Any] = [dict(sys.modules), list(sys.path), dict(ARCHS._builders), dict(ARCHS._sources)]
    yield
    for name in sys.modules.keys() - before[0].keys():
        if name.startswith("own_"):
            del sys.modules[name]
    sys.path[:] = before[1]
    ARCHS._builders, ARCHS._sources = before[2:]


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    return folder


def test_a_file_registers_what_is_in_it_once(tmp_path):
    write(tmp_path, own_nets="import own_helpers\n" + SET.format(name="own_net"), own_helpers="")
    for _ in range(2):
        import_user_code(["own_nets.py"], tmp_path, "here")
    assert ARCHS.source("own_net") == "own_nets.py"
    assert ARCHS.source("imdn") is None


def test_modules_are_found_beside_the_file(tmp_path):
    (tmp_path / "own_package").mkdir()
    write(tmp_path / "own_package", __init__="", nets=SET.format(name="own_other"))
    import_user_code(["own_package.nets"], tmp_path, "here")
    assert ARCHS.source("own_other") == "own_package.nets"


def test_a_path_is_seen_from_the_file_that_names_it(tmp_path, monkeypatch):
    (tmp_path / "deep").mkdir()
    write(tmp_path / "deep", own_deep=SET.format(name="own_third"))
    (tmp_path / "deep" / "base.yml").write_text("imports: [own_deep.py]\n")
    (tmp_path / "run.yml").write_text("_base_: deep/base.yml\n")
    monkeypatch.chdir(tmp_path / "deep")
    read_options(tmp_path / "run.yml", Run)
    assert ARCHS.source("own_third") == "own_deep.py"


@pytest.mark.parametrize(
    ("code", "text", "said"),
    [
        ("imports.not-found", None, "there is no file {}; correct the path"),
        ("imports.failed", "x = 1\ny = z\n", "{}:2: NameError: name 'z' is not defined; correct it"),
        ("imports.failed", "x = 1\n\nclass A(\n", "{}:3: SyntaxError: '(' was never closed"),
        ("imports.failed", "import own_missing\n", "{}:1: ModuleNotFoundError: No module named 'own_missing'"),
        ("imports.failed", "raise SystemExit('no')\n", "{}:1: SystemExit: no"),
        ("imports.failed", SET.format(name="imdn_x"), "{}:2: ValueError: the network 'imdn_x' is registered already"),
    ],
)
def test_errors_show_the_line_of_the_user(tmp_path, code, text, said):
    path = tmp_path / "own_broken.py"
    if text is not None:
        path.write_text(text)
    ARCHS._builders["imdn_x"] = dict
    (tmp_path / "run.yml").write_text("\nimports: [own_broken.py]\n")
    with refused(code) as caught:
        read_options(tmp_path / "run.yml", Run)
    (line,) = caught.value.lines
    assert line.startswith(f"{tmp_path / 'run.yml'}, line 2: imports: own_broken.py: {said.format(path)}")
    assert "own_broken" not in sys.modules


def test_names_that_are_taken_or_unknown(tmp_path):
    write(tmp_path, json="")
    with refused("imports.name-taken"):
        import_user_code(["json.py"], tmp_path, "here")
    with refused("imports.not-found") as caught:
        import_user_code(["own_nothing.here"], tmp_path, "here")
    assert str(caught.value).startswith("here: own_nothing.here: there is no such module")
