"""Tables and JSON of `imdn-kd benchmark`, `imdn-kd profile` and `imdn-kd export`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from imdn_kd.evaluation.benchmark import SetScore
from imdn_kd.evaluation.profile import Profile
from imdn_kd.evaluation.tables import Report, Table
from imdn_kd.inference.export.job import Export


def report_scores(scores: Sequence[SetScore], *, left: int = 0) -> Report:
    """Lay out scores, one or more.

    Args:
        scores: of models on data sets.
        left: images that are not measured yet, those of data sets without scores included.
    """
    runs = sorted({score.run for score in scores if score.run})
    notes = [f"Protocol{who}: {described}; 8-bit results, means over images." for who, described in _protocols(scores)]
    if runs:
        notes.append(f"Networks run in {', '.join(runs)}.")
    inputs = "Inputs" if all(score.scale == 1 for score in scores) else "LR images"
    if left:
        total = left + sum(len(score.images) for score in scores)
        notes.append(f"Stopped: {left} of {total} images are not measured yet; the means are over those that are.")
    notes += dict.fromkeys(note for score in scores for note in score.notes)
    main = Table(
        title="PSNR and SSIM",
        columns=("Model", "Scale", "Data", "Images", "PSNR dB", "SSIM", "s/image", inputs),
        rows=tuple(
            (
                *(score.model, f"x{score.scale}", score.data, _images(score)),
                *(f"{score.psnr:.3f}", _ssim(score.ssim), f"{score.seconds:.3f}", score.lr_source),
            )
            for score in scores
        ),
        notes=tuple(notes),
        texts=frozenset({"Model", "Data", inputs}),
    )
    explained = tuple(_explain(score) for score in scores if score.alternatives)
    data = {
        "protocol": _protocol_as_data(scores[0]),
        "left": left,
        "scores": [_as_data(score) for score in scores],
    }
    return Report((main, *explained), data)


def _protocols(scores: Sequence[SetScore]) -> list[tuple[str, str]]:
    """Each protocol in words, and what was measured by it, if there are several."""
    by: dict[str, dict[str, None]] = {}
    for score in scores:
        named = f"{score.data} ({score.lr_source})" if score.scale == 1 else f"{score.data} x{score.scale}"
        by.setdefault(score.protocol.describe(score.scale), {})[named] = None
    return [("" if len(by) == 1 else f" of {', '.join(named)}", described) for described, named in by.items()]


def _protocol_as_data(score: SetScore) -> dict[str, Any]:
    return {**dataclasses.asdict(score.protocol), "description": score.protocol.describe(score.scale)}


def report_profiles(profiles: Sequence[Profile]) -> Report:
    """Lay out profiles, one or more."""
    timed = any(profile.timing for profile in profiles)
    columns: tuple[str, ...] = ("Model", "Scale", "Output", "Params", "MACs G", "Activ. M")
    notes = [
        "MACs: multi-adds of convolutions and matrix products. Activ.: activations, elements of convolution outputs."
    ]
    if timed:
        columns += ("ms", "middle half", "Memory MiB")
        runs = sorted({f"{len(p.timing.seconds)} runs in {p.timing.run}" for p in profiles if p.timing})
        notes.append(f"Median time of {', '.join(runs)}, runs of all rows in turn; memory less the weights.")
    table = Table("Costs of one image", columns, tuple(map(_costs, profiles)), tuple(notes), frozenset({"Model"}))
    return Report((table,), {"notes": notes, "profiles": [_costs_as_data(profile) for profile in profiles]})


def report_export(export: Export, images: str, scores: Sequence[SetScore] = ()) -> Report:
    """Lay out what was exported, and how it compares with PyTorch on `images`, which says where these are from.

    `scores` are those of the network before and after it was brought to 8 bits.
    """
    parity = export.parity
    smallest, largest = (
        parity.sizes[0].size,
        max((each.size for each in parity.sizes), key=lambda size: size[0] * size[1]),
    )
    table = Table(
        title=f"{export.metadata['name']} as {export.format}",
        columns=("File", "kB", "Largest difference", "PSNR dB", "PyTorch ms", f"{export.runtime} ms"),
        rows=(
            (
                *(", ".join(map(str, export.files)), f"{export.bytes / 1000:,.1f}", f"{parity.difference:.2g}"),
                *(f"{parity.psnr:.1f}", _figure(1000 * parity.torch_seconds), _figure(1000 * parity.runtime_seconds)),
            ),
        ),
        notes=(
            f"Against PyTorch on {images}, {len(parity.sizes)} sizes from {_size(smallest)} to {_size(largest)} px; "
            f"differences of the range. Times for {_size(parity.timed)} px.",
        ),
        texts=frozenset({"File"}),
    )
    data = {
        **{"format": export.format, "files": [str(path) for path in export.files], "bytes": export.bytes},
        **{"runtime": export.runtime, "images": images, "difference": parity.difference, "psnr": parity.psnr},
        **{"torch_seconds": parity.torch_seconds, "runtime_seconds": parity.runtime_seconds},
        "timed": _size(parity.timed),
        "sizes": [
            {"size": _size(each.size), "difference": each.difference, "psnr": each.psnr} for each in parity.sizes
        ],
        "metadata": export.metadata,
    }
    if not scores:
        return Report((table,), data)
    scored = report_scores(scores)
    return Report((table, *scored.tables), {**data, "scores": scored.data})


def _costs(profile: Profile) -> tuple[str, ...]:
    counts, timing = profile.counts, profile.timing
    measured: tuple[str, ...] = ()
    if timing:
        low, high = timing.quartiles
        spread = f"{_figure(1000 * low, 3)}-{_figure(1000 * high, 3)}"
        measured = _figure(1000 * timing.median), spread, _figure(timing.peak_bytes / 2**20)
    return (
        *(profile.name, f"x{profile.scale}", _size(profile.output_size)),
        *(f"{counts.parameters:,}", _figure(counts.multi_adds / 1e9), _figure(counts.activations / 1e6)),
        *measured,
    )


def _costs_as_data(profile: Profile) -> dict[str, Any]:
    data = dataclasses.asdict(profile)
    if profile.timing:
        data["timing"]["median"] = profile.timing.median
        data["timing"]["quartiles"] = profile.timing.quartiles
    return data


def _figure(value: float, digits: int = 4) -> str:
    """The value with so many significant digits, or all before the point."""
    return f"{value:.0f}" if value >= 1000 else f"{value:.{digits}g}"


def _size(size: tuple[int, int]) -> str:
    return f"{size[1]}x{size[0]}"


def _explain(score: SetScore) -> Table:
    rows = [
        (
            *(other.name, f"{other.psnr:.3f}", f"{other.psnr - score.psnr:+.3f}"),
            *(_ssim(other.ssim), f"{other.ssim - score.ssim:+.4f}", other.protocol.describe(score.scale)),
        )
        for other in score.alternatives
    ]
    figures = f"{score.psnr:.3f} dB, {_ssim(score.ssim)}"
    return Table(
        title=f"{score.model} on {score.data} x{score.scale} ({figures}) by other protocols",
        columns=("Protocol", "PSNR dB", "PSNR +-", "SSIM", "SSIM +-", "What is measured"),
        rows=tuple(rows),
        texts=frozenset({"Protocol", "What is measured"}),
    )


def _as_data(score: SetScore) -> dict[str, Any]:
    means = {"psnr": score.psnr, "ssim": score.ssim, "seconds": score.seconds}
    return {
        **{key: getattr(score, key) for key in ("model", "scale", "data", "lr_source", "run", "notes", "left")},
        "protocol": _protocol_as_data(score),
        **means,
        "images": [dataclasses.asdict(image) for image in score.images],
        "alternatives": [
            {
                **{"name": other.name, "description": other.protocol.describe(score.scale)},
                **{"psnr": other.psnr, "ssim": other.ssim},
            }
            for other in score.alternatives
        ],
    }


def _images(score: SetScore) -> str:
    measured = len(score.images)
    return f"{measured} of {measured + score.left}" if score.left else str(measured)


def _ssim(value: float) -> str:
    return f"{value:.4f}"
