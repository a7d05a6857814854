"""The user's own code: files and modules that register networks, losses and loss terms before options are used."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from imdn_kd.errors import InputError
from imdn_kd.registry import importing


def import_user_code(names: Sequence[str], folder: Path, where: str) -> None:
    """Import modules of the user, once each; what they register is found by its name from then on.

    Args:
        names: files (`my_networks.py`) or modules (`my_package.losses`).
        folder: from which relative paths, and modules that are not installed, are found.
        where: begins the messages, as `run.yml, line 3: imports`.

    Raises:
        InputError: one is not there, or fails, with the user's file and line.
    """
    for name in names:
        with importing(name):
            _import(name, folder.resolve(), f"{where}: {name}: ")


def _import(name: str, folder: Path, where: str) -> None:
    path = (folder / Path(name).expanduser()).resolve() if name.endswith(".py") else None
    if path is not None and not path.is_file():
        raise InputError(f"{where}there is no file {path}; correct the path", code="imports.not-found")
    # So that the user's modules can import their neighbours.
    place = str(folder if path is None else path.parent)
    if place not in sys.path:
        sys.path.append(place)
    try:
        _load(path, where) if path is not None else importlib.import_module(name)
    except InputError:
        raise
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and error.name and f"{name}.".startswith(f"{error.name}."):
            message = f"{where}there is no such module, neither installed nor in {place}; correct the name"
            raise InputError(message, code="imports.not-found") from error
        said = " ".join(str(error).split()) or "no message"
        message = f"{where}{_line_of(error)}{type(error).__name__}: {said}; correct it"
        raise InputError(message, code="imports.failed") from error


def _load(path: Path, where: str) -> None:
    known = sys.modules.get(path.stem)
    if known is not None:
        if Path(getattr(known, "__file__", None) or "").resolve() == path:
            return
        raise InputError(f"{where}another module is called {path.stem}; rename the file", code="imports.name-taken")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None  # noqa: S101 - the name ends with .py
    assert spec.loader is not None  # noqa: S101
    module: ModuleType = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[path.stem]
        raise


def _line_of(error: BaseException) -> str:
    """`FILE:LINE: ` of what failed in the user's code: the innermost line outside this package and importlib."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}: "
    ours = str(Path(__file__).resolve().parents[1])
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith((ours, "<frozen importlib"))
    ]
    own = [frame for frame in frames if "importlib" not in frame.filename and "site-packages" not in frame.filename]
    return f"{own[-1].filename}:{own[-1].lineno}: " if own else ""
