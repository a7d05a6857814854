"""What teachers make of all training images, written down before training: their outputs and maps of features."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from imdn_kd.data.store import Pixels, Store
from imdn_kd.data.store_writer import add_planes
from imdn_kd.distill.cached_maps import CachedMap
from imdn_kd.distill.schema import TeacherOptions
from imdn_kd.distill.teacher import Teacher, mean_of
from imdn_kd.errors import InputError, naming
from imdn_kd.image.rgb import RgbImage


class TeacherCache:
    """The results of teachers for all images of a store, as planes of it.

    Args:
        store: the store.
        scale: the factor.
        teachers: in the order of `options`.
        options: which teachers these are.
        sources: planes of the inputs, where there are several degraded versions of each image; they may be missing
            until `fill`. By default the LR images of the store.

    Attributes:
        key: name of the plane of outputs, made from the weights and settings of the teachers: others get another one.
        planes: names and descriptions of what is wanted; see `names` for the planes that hold it.
        notes: what the user should know of maps of features, a line each.
    """

    def __init__(
        self,
        store: Store,
        scale: int,
        teachers: Sequence[Teacher],
        options: Sequence[TeacherOptions],
        *,
        sources: Sequence[str] = (),
    ) -> None:
        self._store, self._scale, self._teachers = store, scale, teachers
        self._versioned = bool(sources)
        self._sources = sources or (store.lq_plane(Fraction(scale)),)
        self._described = [
            {
                "network": teacher.network.spec,
                "weights": _checksum(teacher.network),
                "value_range": teacher.value_range,
                "mean": each.mean,
                "self_ensemble": each.self_ensemble,
                "weight": each.weight,
                "precision": str(teacher.precision).removeprefix("torch."),
            }
            for each, teacher in zip(options, teachers, strict=True)
        ]
        description = {"scale": str(scale), "teachers": self._described}
        self.key = self._name("sr", description)
        self.planes: dict[str, dict[str, Any]] = {self.key: description}
        self.notes: list[str] = []
        self._maps: dict[str, tuple[CachedMap, nn.Module]] = {}

    @property
    def path(self) -> Path:
        """Folder of the store."""
        return self._store.path

    @property
    def is_there(self) -> bool:
        """Whether it is complete."""
        store = Store(self._store.path)
        return all(store.has(plane) for plane in (*self._sources, *itertools.chain(*self.names().values())))

    def names(self) -> dict[str, list[str]]:
        """The planes of the store for what is wanted: one for each source."""
        return {name: [self._plane(name, source) for source in self._sources] for name in self.planes}

    @property
    def lr_pixels(self) -> int:
        """Of all images that the teachers run on."""
        sizes = self._store.sizes("gt") // self._scale
        return len(self._sources) * int(sizes.prod(axis=1).sum())

    def leave_out_output(self) -> None:
        """Keep no outputs, since nobody compares them."""
        del self.planes[self.key]

    def nbytes(self, maps: Collection[CachedMap]) -> int:
        """Size of maps for all images, bytes."""
        sizes = (self._store.sizes("gt") // self._scale).tolist()
        return len(self._sources) * sum(each.nbytes(*size) for each in maps for size in sizes)

    def add_maps(self, maps: Mapping[CachedMap, nn.Module]) -> dict[CachedMap, str]:
        """Keep maps of features, too; return the names of their planes.

        Args:
            maps: each with a loss that compares it. The teachers have hooks on their features.
        """
        names = {}
        for each, loss in maps.items():
            teacher = {k: v for k, v in self._described[each.teacher].items() if k not in ("self_ensemble", "weight")}
            description = {
                "scale": str(self._scale),
                "pitch": str(each.pitch),
                "channels": each.channels,
                "dtype": str(each.dtype),
                "feature": each.feature,
                "summary": each.summary,
                "teachers": [teacher],
            }
            names[each] = name = self._name("map", description)
            self.planes[name], self._maps[name] = description, (each, loss)
        return names

    def fill(self, device: torch.device, on_image: Callable[[int, int], None] = lambda done, total: None) -> None:
        """Compute what is missing; can be interrupted and resumed.

        Args:
            device: where.
            on_image: called with the number of images that are done, and of all.

        Raises:
            InputError: the store cannot be written, or a teacher gives values that cannot be kept.
        """
        for teacher in self._teachers:
            teacher.to(device)
        store = Store(self._store.path)
        total = len(store) * len(self._sources)
        for first, source in zip(range(0, total, len(store)), self._sources, strict=True):
            self._fill_from(store, source, lambda index, first=first: on_image(first + index, total))  # type: ignore[misc]
        on_image(total, total)

    def _fill_from(self, store: Store, source: str, on_image: Callable[[int], None]) -> None:
        wanted = {self._plane(name, source): name for name in self.planes}
        more = {"input": source} if self._versioned else {}
        described = {plane: self.planes[name] | more for plane, name in wanted.items()}

        def make(index: int, planes: Collection[str]) -> Mapping[str, Pixels]:
            on_image(index)
            with naming(f"{store.path}: {store.name(index)}"):
                made = self._run(store.image(index, source), [wanted[plane] for plane in planes])
                return {plane: made[wanted[plane]] for plane in planes}

        with writing(store.path):
            add_planes(store.path, described, make)

    def _run(self, lr: RgbImage, planes: Collection[str]) -> dict[str, Pixels]:
        """Run each teacher that is needed once."""
        maps = {plane: self._maps[plane] for plane in planes if plane in self._maps}
        if not maps:
            return {self.key: enlarge(self._teachers, lr)}
        lq, output = _as_input(self._teachers, lr), self.key in planes
        needed = {each.teacher for each, _ in maps.values()} | (set(range(len(self._teachers))) if output else set())
        runs = {number: self._teachers[number].forward_features(lq) for number in sorted(needed)}
        made: dict[str, Pixels] = {}
        if output:
            made[self.key] = _as_image(self._teachers, mean_of(self._teachers, [sr for sr, _ in runs.values()]))
        for plane, (each, loss) in maps.items():
            with naming(self._teachers[each.teacher].name):
                made[plane] = each.of(loss, runs[each.teacher][1][each.feature])
        return made

    def _plane(self, name: str, source: str) -> str:
        return f"{name}_of_{source}" if self._versioned else name

    def _name(self, kind: str, description: Mapping[str, Any]) -> str:
        stamp = hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()
        return f"{kind}_x{self._scale}_{stamp[:12]}"


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say of an error while a store is written what to do about it."""
    try:
        yield
    except OSError as error:
        advice = "see to it, and do the same again, which resumes from here"
        raise InputError(
            f"{path}: cannot be written ({error.strerror}); {advice}", code="store.cannot-write"
        ) from error


def enlarge(teachers: Sequence[Teacher], lr: RgbImage) -> RgbImage:
    """The mean output of the teachers for an image.

    Raises:
        InputError: `teacher.not-finite`.
    """
    lq = _as_input(teachers, lr)
    return _as_image(teachers, mean_of(teachers, [teacher(lq) for teacher in teachers]))


def _as_input(teachers: Sequence[Teacher], lr: RgbImage) -> Tensor:
    return torch.from_numpy(lr.copy()).permute(2, 0, 1)[None].to(teachers[0].mean.device).float() / 255


def _as_image(teachers: Sequence[Teacher], sr: Tensor) -> RgbImage:
    if not sr.isfinite().all():
        names = ", ".join(teacher.name for teacher in teachers)
        raise InputError(
            f"{names}: gives values that are not finite; check weights, value_range and precision",
            code="teacher.not-finite",
        )
    sr = sr.clamp(0, 1).mul(255).round().byte()
    pixels: RgbImage = sr[0].permute(1, 2, 0).contiguous().cpu().numpy()
    return pixels


def _checksum(network: nn.Module) -> str:
    """SHA-256 over the names and the values of all weights."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(value.cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
