"""Drawings of features of student and teachers, side by side: what the figures of the papers show of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources
from pathlib import Path
from string import Template

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from imdn_kd.archs.base import SRNetwork
from imdn_kd.data.patches import to_luma
from imdn_kd.distill.feature_names import semantic_names
from imdn_kd.distill.teacher import Teacher
from imdn_kd.errors import InputError
from imdn_kd.evaluation.embedded import picture_figure
from imdn_kd.evaluation.features import shared_features
from imdn_kd.image.rgb import RgbImage
from imdn_kd.losses.pairwise_ops import l2_normalize
from imdn_kd.utils.files import atomic_path, check_folder

MAX_SIDE = 512
"""Of a larger picture, the middle is drawn, px."""

NODES = 16
"""Rows and columns of nodes of the affinity graph, at most: features are pooled to these."""

KINDS = {
    "mean": "mean of the channels (Gao et al., ACCV 2018), black the lowest, white the highest",
    "energy": "sum of the squared channels (attention maps, Zagoruyko and Komodakis, ICLR 2017), white the highest",
    "cosine": "cosine of each pixel with that in the middle, black -1, white 1",
    "affinity": f"cosines of all pairs of up to {NODES}x{NODES} nodes (the affinity graph of Liu et al., CVPR 2019)",
}
"""What is drawn of a feature, with a line that explains it."""


@dataclass(frozen=True)
class Drawing:
    """One drawing.

    Attributes:
        feature: name of the feature.
        network: `student`, `teacher`, `teacher 2`, ...
        kind: one of `KINDS`.
        pixels: H x W, grey.
        shape: of the feature, channels, height, width.
    """

    feature: str
    network: str
    kind: str
    pixels: npt.NDArray[np.uint8]
    shape: tuple[int, ...]


def draw_features(student: SRNetwork, teachers: Sequence[Teacher], image: RgbImage) -> list[Drawing]:
    """Draw the features with a name that the student has, each beside those of the teachers that belong to it.

    Args:
        student: frozen and in eval mode from then on.
        teachers: get hooks on these features.
        image: LR, H x W x 3, RGB.
    """
    height, width = (min(side, MAX_SIDE) for side in image.shape[:2])
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    part = np.ascontiguousarray(image[top : top + height, left : left + width])
    lq = torch.from_numpy(part).permute(2, 0, 1)[None].float() / 255
    lq = to_luma(lq) if student.info.num_in_ch == 1 else lq
    mine = semantic_names(student)
    found = {"student": _features(Teacher(student), mine, lq)}
    for number, teacher in enumerate(teachers, 1):
        theirs = {name: other for name, (_, other) in shared_features(student, teacher.network).items()}
        found["teacher" if number == 1 else f"teacher {number}"] = _features(teacher, theirs, lq)
    return [
        Drawing(name, network, kind, _drawn(kind, features[name][0].float()), tuple(features[name].shape[1:]))
        for name in mine
        for network, features in found.items()
        if name in features
        for kind in KINDS
    ]


def check_target(target: Path, *, overwrite: bool) -> None:
    """Refuse, before the work, a target that is there.

    Args:
        target: page, with the suffix .html, or folder.
        overwrite: replace a page, or files in a folder.

    Raises:
        InputError: `file.exists` or `file.cannot-write`.
    """
    is_page = target.suffix.lower() in (".html", ".htm")
    if not is_page and target.exists() and not target.is_dir():
        raise InputError(f"{target}: is no folder; give a folder, or a page that ends in .html", code="file.exists")
    if not overwrite and (target.exists() if is_page else target.is_dir() and any(target.iterdir())):
        raise InputError(f"{target}: exists already; choose another name, or add --overwrite", code="file.exists")
    check_folder(target if is_page else target / "drawing.png")


def write_drawings(drawings: Sequence[Drawing], target: Path, *, title: str, overwrite: bool = False) -> None:
    """Write drawings as a page, or as PNG files `FEATURE_NETWORK_KIND.png` in a folder.

    Args:
        drawings: what `draw_features` returns.
        target: page, with the suffix .html, or folder.
        title: of the page.
        overwrite: replace files.

    Raises:
        InputError: see `check_target`.
    """
    check_target(target, overwrite=overwrite)
    if target.suffix.lower() in (".html", ".htm"):
        with atomic_path(target, overwrite=overwrite) as path:
            path.write_text(_page(drawings, title), encoding="utf-8")
        return
    for each in drawings:
        name = f"{each.feature}_{each.network.replace(' ', '')}_{each.kind}.png"
        with atomic_path(target / name, overwrite=overwrite) as path:
            Image.fromarray(each.pixels).save(path)


def _features(network: Teacher, hooks: dict[str, str], lq: Tensor) -> dict[str, Tensor]:
    network.hook([*hooks.values()], lq)
    _, found = network.forward_features(lq)
    return {name: found[hook] for name, hook in hooks.items()}


def _drawn(kind: str, feature: Tensor) -> npt.NDArray[np.uint8]:
    """Draw a feature, C x H x W."""
    if kind == "mean":
        drawn = feature.mean(0)
        return _levels(drawn, float(drawn.min()), float(drawn.max()))
    if kind == "energy":
        drawn = feature.square().sum(0)
        return _levels(drawn, 0.0, float(drawn.max()))
    if kind == "cosine":
        unit = l2_normalize(feature, 0)
        middle = unit[:, feature.shape[1] // 2, feature.shape[2] // 2]
        return _levels((unit * middle[:, None, None]).sum(0), -1.0, 1.0)
    size = min(NODES, feature.shape[1]), min(NODES, feature.shape[2])
    nodes = l2_normalize(functional.adaptive_avg_pool2d(feature, size).flatten(1), 0)
    return _levels(nodes.T @ nodes, -1.0, 1.0)


def _levels(values: Tensor, black: float, white: float) -> npt.NDArray[np.uint8]:
    part = (values - black) / (white - black) if white > black else torch.zeros_like(values)
    levels: npt.NDArray[np.uint8] = part.clamp(0, 1).mul(255).round().byte().numpy()
    return levels


def _page(drawings: Sequence[Drawing], title: str) -> str:
    template = resources.files("imdn_kd.evaluation").joinpath("features.html").read_text(encoding="utf-8")
    return Template(template).substitute(
        title=escape(title),
        legend="\n".join(f"<li>{kind}: {escape(meaning)}</li>" for kind, meaning in KINDS.items()),
        features="\n".join(_sections(drawings)),
    )


def _sections(drawings: Sequence[Drawing]) -> Iterator[str]:
    for feature, group in itertools.groupby(drawings, lambda drawing: drawing.feature):
        several = list(group)
        shapes = {each.network: "x".join(map(str, each.shape)) for each in several}
        described = ", ".join(f"{network} {shape}" for network, shape in shapes.items())
        yield f"<h2>{escape(feature)}: {escape(described)}</h2>"
        yield '<div class="maps">'
        for kind in KINDS:
            for each in several:
                if each.kind == kind:
                    yield picture_figure(each.pixels, f"{each.network}, {feature}: {kind}")
        yield "</div>"
