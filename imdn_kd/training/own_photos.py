"""An option file for photographs of one's own: held-out ones, networks, and lengths that fit a time."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import yaml

from imdn_kd import zoo
from imdn_kd.config.options import check_options
from imdn_kd.data.store import Store
from imdn_kd.errors import InputError
from imdn_kd.image.io import find_images
from imdn_kd.inference.model_file import load_model
from imdn_kd.registry import ARCHS
from imdn_kd.training.forecast import seconds_of_cache, seconds_of_iteration
from imdn_kd.training.run import check, device_of
from imdn_kd.training.schema import TrainOptions
from imdn_kd.utils.files import atomic_path

NONE = "none"
"""Stands for no teacher."""

NETWORK = "plain_s"
"""The network of a student that is not named."""

FEWEST = 300
"""Iterations without which nothing is learned."""

_MOST = 200_000
_STEP = 8
"""Sides of LR patches are multiples of this, px."""

_HELD_OUT = 5
_TRAINING_SHARE = 0.75
"""Part of the time for iterations; the rest is for opening data, validation and the scores at the end."""


@dataclass(frozen=True)
class InitRequest:
    """What `imdn-kd init` was asked for.

    Attributes:
        photos: folder of the photographs, those in folders inside included.
        name: of the run and its data.
        scale: factor of the enlargement, 2 or more.
        student: a student of the zoo or a model file, whose weights it begins with; or a network, as `plain_s`, with
            random ones.
        teacher: a student of the zoo or a model file; `none`: none; empty: the best of the zoo for the scale.
        minutes: that training may take.
        root: folder of all data sets.
    """

    photos: Path
    name: str
    scale: int
    student: str
    teacher: str
    minutes: float
    root: Path

    @property
    def held_out(self) -> Path:
        """Folder of the photographs that weights are selected on."""
        return self.root / f"{self.name}_valid"

    @property
    def store(self) -> Path:
        """The packed photographs."""
        return self.root / f"{self.name}.store"


def check_request(request: InitRequest) -> None:
    """Refuse what cannot work, before anything is written.

    Raises:
        InputError: `init.scale`, `init.minutes`, `init.name`, `init.too-few`; as `find_images` and `load_model`.
    """
    if request.scale < 2:
        raise InputError(
            f"--scale is {request.scale}; give 2 or more. For networks that restore, begin with "
            "options/quickstart_denoise.yml",
            code="init.scale",
        )
    if not 0 < request.minutes <= 10_000:
        raise InputError(
            f"--minutes is {request.minutes:g}; give a number above 0, and 10,000 at most", code="init.minutes"
        )
    if not request.name or request.name.startswith(".") or set(request.name) & set("/\\\0"):
        raise InputError(f"--name is {request.name!r}; give the name of a folder, without slashes", code="init.name")
    found = len(find_images(request.photos, recursive=True))
    if found < 2:
        raise InputError(
            f"{request.photos}: holds {found} photographs; give 2 or more, since some are held out to select on",
            code="init.too-few",
        )
    student = _network(request)
    for role, model in (("student", student.weights), ("teacher", teacher_of(request))):
        if model is not None:
            scale = load_model(model).network.info.scale
            if scale != request.scale:
                raise InputError(
                    f"--{role} {model}: enlarges x{scale}, but --scale is {request.scale}; give another one",
                    code="init.scale",
                )


def teacher_of(request: InitRequest) -> str | None:
    """Name or file of the teacher; None for no teacher."""
    if request.teacher == NONE:
        return None
    best = zoo.defaults().get(request.scale)
    return request.teacher or (None if best is None else best.name)


def hold_out(request: InitRequest) -> int:
    """Copy a tenth of the photographs, one to five, to a folder of their own, unless it is there; return their number.

    Raises:
        InputError: `file.cannot-write`.
    """
    if request.held_out.is_dir():
        return len(find_images(request.held_out))
    photos = find_images(request.photos, recursive=True)
    count = min(max(len(photos) // 10, 1), _HELD_OUT)
    part = request.held_out.with_name(f"{request.held_out.name}.part")
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        for number in range(count):
            photo = photos[len(photos) * number // count]
            shutil.copyfile(photo, part / f"{number + 1:02}_{photo.name}")
        part.replace(request.held_out)
    except OSError as error:
        raise InputError(
            f"{request.held_out}: cannot be written ({error.strerror}); choose another --root", code="file.cannot-write"
        ) from error
    return count


def plan_run(request: InitRequest) -> dict[str, Any]:
    """The content of the option file; how long an iteration takes here is measured.

    Raises:
        InputError: `init.minutes`, the time is too short; `init.too-small`, the photographs are; as
            `imdn_kd.training.run.check`.
    """
    content = _content(request, 1000)
    options = check_options(content, TrainOptions, "imdn-kd init")
    setup, device = check(options), device_of(options)
    seconds, cache = seconds_of_iteration(setup, 0, device), seconds_of_cache(setup, device)
    fit = int((_TRAINING_SHARE * 60 * request.minutes - cache) / seconds)
    if fit < FEWEST:
        needed = (FEWEST * seconds + cache) / 60 / _TRAINING_SHARE
        raise InputError(
            f"--minutes {request.minutes:g}: {max(fit, 0)} iterations fit; give {needed:.2g} or more",
            code="init.minutes",
        )
    return _content(request, _rounded(min(fit, _MOST)))


def write_options(path: Path, content: Mapping[str, Any], heading: str, *, overwrite: bool = False) -> None:
    """Write an option file.

    Args:
        path: the file.
        content: what it says.
        heading: lines of its first comment.
        overwrite: replace a file that is there.

    Raises:
        InputError: `file.exists`, `file.cannot-write`.
    """
    lines = "".join(f"# {line}\n" for line in heading.splitlines())
    with atomic_path(path, overwrite=overwrite) as temporary:
        text = yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True)
        temporary.write_text(lines + text, encoding="utf-8")


@dataclass(frozen=True)
class _Student:
    spec: dict[str, Any]
    weights: str | None


def _network(request: InitRequest) -> _Student:
    name = request.student
    if zoo.find(name) is not None or Path(name).is_file():
        return _Student(load_model(name).network.spec, name)
    spec = {"type": name, "upscale": request.scale}
    ARCHS.build(spec)
    return _Student(spec, None)


def _content(request: InitRequest, total: int) -> dict[str, Any]:
    student, teacher = _network(request), teacher_of(request)
    brief = request.minutes < 20
    content: dict[str, Any] = {
        "name": request.name,
        "scale": request.scale,
        "datasets": {
            "train": {
                "name": request.name,
                "type": "StoreDataset",
                "dataroot": str(request.store),
                "gt_size": _lr_side(request, 32 if brief else 48) * request.scale,
                "batch_size_per_gpu": 8 if brief else 16,
                "sampling": "area",
                "sharpness": 4,
            },
            "val": {"name": request.held_out.name, "dataroot_gt": str(request.held_out)},
        },
        "network_g": student.spec,
    }
    if student.weights is not None:
        content["path"] = {"pretrain_network_g": student.weights}
    if teacher is not None:
        content["network_t"] = {"weights": teacher}
        content["distill"] = {"cache": True, "objectives": {"l_kd": {"type": "L1Loss"}}}
    content["train"] = {
        "total_iter": total,
        "warmup_iter": min(100, total // 10),
        "optim_g": {"type": "Muon", "lr": 2e-2 if student.weights is None else 5e-3},
        "scheduler": {"type": "CosineAnnealingRestartLR", "periods": [total], "eta_min": 1e-5},
        "ema_decay": round(min(0.999, 1 - 20 / total), 4),
        "pixel_opt": {"type": "L1Loss"},
    }
    content["val"] = {"val_freq": max(total // 4, 1), "select_on": request.held_out.name}
    content["logger"] = {"print_freq": max(total // 20, 1), "save_checkpoint_freq": max(total // 4, 1)}
    return content


def _lr_side(request: InitRequest, wanted: int) -> int:
    """Side of the LR patches, px: less than wanted where half of the photographs are smaller."""
    store = Store(request.store)
    sides = sorted(min(size) for size in store.sizes(store.lq_plane(Fraction(request.scale))).tolist())
    side = min(wanted, sides[len(sides) // 2] // _STEP * _STEP)
    if not side:
        raise InputError(
            f"{request.photos}: half of the photographs have sides below {_STEP * request.scale} px; give larger ones",
            code="init.too-small",
        )
    return int(side)


def _rounded(count: int) -> int:
    """Two digits, downwards."""
    return int(f"{str(count)[:2]:0<{len(str(count))}}")
