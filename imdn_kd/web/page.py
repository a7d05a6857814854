"""`write_page`: a static page that enlarges pictures by a model, wholly in the browser."""

from __future__ import annotations

import json
import re
import secrets
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from html import escape
from importlib import resources
from pathlib import Path
from string import Template
from tempfile import TemporaryDirectory

from imdn_kd import __version__
from imdn_kd.archs.base import ModelInfo
from imdn_kd.archs.quantize import ranges_of
from imdn_kd.errors import InputError
from imdn_kd.inference.export.job import Export, export_model
from imdn_kd.inference.export.photographs import Photograph
from imdn_kd.inference.model_file import ModelFile
from imdn_kd.inference.tiles import round_up
from imdn_kd.utils.files import check_folder
from imdn_kd.web.runtime import PACKAGE, copy_runtime, runtime_folder, stated_version

MODEL_FILE = "model.json"
"""What the page knows of its network; a folder with this file is a page."""

TILE = 256
"""Side of the tiles, overlap included, px; more where the receptive field asks for it."""

MOST_PIXELS = 2**26
"""Of a result: browsers take several times its bytes to show it."""

_FORMAT = "imdn_kd.web.1"


def write_page(
    model: ModelFile,
    folder: Path | str,
    *,
    name: str,
    runtime: Path | None = None,
    photographs: Sequence[Photograph] = (),
    overwrite: bool = False,
    on_step: Callable[[], object] = lambda: None,
) -> Export:
    """Write a folder with a page, a model and a runtime, for any web server.

    Args:
        model: what the page runs.
        folder: to write, complete or not at all.
        name: of the model, which the page says.
        runtime: a folder with the package onnxruntime-web; by default npm gets it.
        photographs: see `export_model`.
        overwrite: replace a page that is there; other files beside it stay.
        on_step: see `export_model`.

    Returns:
        The folder, its bytes, and how ONNX Runtime compares with PyTorch.

    Raises:
        InputError: as `export_model` and `runtime_folder`; `web.cannot-tile`: the network gives no exact result in
            tiles; `web.channels`, `web.enlarged-input`: it takes no pictures as they are; `file.exists`;
            `web.current-folder`: the folder to replace is where the process is.
    """
    folder, info = Path(folder), model.network.info
    _check_model(info, name)
    if ranges_of(model.network.state_dict()):
        raise InputError(f"{name}: the page has no 8 bits; export it to onnx or openvino", code="export.no-int8")
    _check_target(folder, overwrite=overwrite)
    folder.absolute().parent.mkdir(parents=True, exist_ok=True)
    with (
        runtime_folder(runtime) as package,
        TemporaryDirectory(prefix=".imdn_kd_", dir=folder.absolute().parent) as temporary,
    ):
        made = Path(temporary, "page")
        made.mkdir()
        export = export_model(model, "onnx", made / "model.onnx", name=name, photographs=photographs, on_step=on_step)
        copy_runtime(package, made / "runtime")
        _write_texts(made, export.metadata, info, f"{PACKAGE} {stated_version(package)}")
        size = sum(file.stat().st_size for file in made.rglob("*") if file.is_file())
        _publish(made, folder, Path(temporary, secrets.token_hex(4)), overwrite=overwrite)
    return replace(export, format="web", files=(folder,), bytes=size)


def _check_model(info: ModelInfo, name: str) -> None:
    if info.global_pool_modules or info.receptive_radius is None:
        reason = (
            "pools over the whole picture" if info.global_pool_modules else "has a receptive field that is not known"
        )
        raise InputError(
            f"{name}: {reason}, so a page cannot run it in tiles; take a student of the zoo such as plain_m_x4",
            code="web.cannot-tile",
        )
    if info.num_in_ch not in (1, 3):
        raise InputError(f"{name}: takes {info.num_in_ch} channels; a page has pictures of 1 or 3", code="web.channels")
    if info.enlarged_input:
        raise InputError(
            f"{name}: takes pictures that were enlarged before; take a network that enlarges them itself",
            code="web.enlarged-input",
        )


def _check_target(folder: Path, *, overwrite: bool) -> None:
    check_folder(folder)
    if not folder.is_dir():
        if folder.exists():
            raise InputError(f"{folder}: is a file; name a folder", code="file.exists")
        return
    if folder.resolve() in (here := Path.cwd().resolve(), *here.parents):
        raise InputError(
            f"{folder}: is or holds the folder you are in, which cannot be replaced; name another folder",
            code="web.current-folder",
        )
    if not any(folder.iterdir()):
        return
    try:
        is_page = json.loads((folder / MODEL_FILE).read_text(encoding="utf-8"))["format"] == _FORMAT
    except (OSError, ValueError, KeyError, TypeError):
        is_page = False
    if not (overwrite and is_page):
        advice = "choose another folder, or allow overwriting (--overwrite)" if is_page else "choose another folder"
        raise InputError(
            f"{folder}: holds {'a page' if is_page else 'something else'} already; {advice}", code="file.exists"
        )


def _write_texts(made: Path, metadata: dict[str, str], info: ModelInfo, runtime: str) -> None:
    overlap = info.receptive_radius or 0
    step, name = info.size_multiple, metadata["name"]
    known = {
        "format": _FORMAT,
        "name": name,
        "scale": info.scale,
        "channels": info.num_in_ch,
        "value_range": float(metadata["value_range"]),
        "size_multiple": step,
        "min_size": info.min_size,
        "overlap": round_up(overlap, step),
        "tile": round_up(max(TILE, 4 * overlap, info.min_size), step),
        "most_pixels": MOST_PIXELS,
        "runtime": runtime,
    }
    (made / MODEL_FILE).write_text(json.dumps(known, indent=2) + "\n", encoding="utf-8")
    enlarges = info.scale > 1
    static = resources.files("imdn_kd.web").joinpath("static")
    for file in static.iterdir():
        if file.name == "ort-LICENSE.txt":
            (made / "runtime" / "LICENSE.txt").write_bytes(file.read_bytes())
        elif file.name != "index.html":
            (made / file.name).write_bytes(file.read_bytes())
    kilobytes = (made / "model.onnx").stat().st_size // 1000
    page = Template(static.joinpath("index.html").read_text(encoding="utf-8")).substitute(
        title=f"Enlarge pictures {info.scale} times" if enlarges else "Restore pictures",
        name=escape(name),
        before="bicubic" if enlarges else "original",
        suffix=f"x{info.scale}" if enlarges else "restored",
        about=escape(f"The network is {name}, {kilobytes} kB, exported by imdn_kd {__version__}."),
        licence=_paragraphs(metadata.get("licence") or "The model file does not state a licence."),
        runtime=escape(runtime),
    )
    (made / "index.html").write_text(page, encoding="utf-8")


def _paragraphs(text: str) -> str:
    """HTML of paragraphs in Markdown, of which only code is marked up."""
    paragraphs = "\n".join(f"<p>{escape(' '.join(part.split()))}</p>" for part in text.split("\n\n"))
    return re.sub(r"`([^`<]+)`", r"<code>\1</code>", paragraphs)


def _publish(made: Path, folder: Path, aside: Path, *, overwrite: bool) -> None:
    """Put the page where it belongs; an earlier one goes aside first, and comes back if that fails."""
    _check_target(folder, overwrite=overwrite)  # once more: it may have appeared
    earlier = folder.exists()
    if earlier:
        _keep_others(folder, made)
        shutil.move(folder, aside)
    try:
        made.replace(folder)
    except BaseException:
        if earlier:
            aside.replace(folder)
        raise


def _keep_others(earlier: Path, made: Path) -> None:
    """Take over what was put beside an earlier page, as the files by which a host is configured."""
    for path in earlier.rglob("*"):
        target = made / path.relative_to(earlier)
        if path.is_file() and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target)
