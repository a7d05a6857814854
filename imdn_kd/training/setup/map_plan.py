"""Which maps of teachers' features are cached, or why the teacher runs in every iteration instead."""

from __future__ import annotations

from collections.abc import Mapping

from imdn_kd.data.schema import TrainDataOptions
from imdn_kd.distill.cached_maps import CachedMap, fits_patches
from imdn_kd.distill.distiller import Distiller
from imdn_kd.distill.terms import FeatureTerm
from imdn_kd.training.schema import TrainOptions
from imdn_kd.training.setup.teacher_cache import TeacherCache

GIB = 2**30


def plan_maps(options: TrainOptions, distiller: Distiller, cache: TeacherCache) -> None:
    """Let the cache keep, and the distiller compare with, all maps that the loss terms need, or none.

    A teacher that runs for one of them gives the others for nothing; so they are cached together or not at all. That
    depends on the options and the images alone, so that a run that is resumed sees the same.

    Args:
        options: of the run, with `distill.cache`.
        distiller: made of these.
        cache: gets the maps, and a note about them.
    """
    if not any(term.uses_teacher_output for term in distiller.terms):
        cache.leave_out_output()
        distiller.cache_key = None
    wanted = {name: maps for name, maps in distiller.maps().items() if maps}
    if not wanted:
        return
    assert options.distill is not None  # noqa: S101 - it asks for the cache
    limit, why = options.distill.cache_limit, _obstacle(options, wanted)
    losses = {
        each: term.loss
        for term in distiller.terms
        if isinstance(term, FeatureTerm)
        for each in wanted.get(term.name, {}).values()
        if each is not None
    }
    size = cache.nbytes(losses) / GIB
    what = f"{len(losses)} map{'s' * (len(losses) > 1)} of the teacher's features take{'s' * (len(losses) == 1)}"
    if not why and size > limit:
        why = (
            f"{what} {size:.2g} GiB, more than distill.cache_limit, {limit:g}; raise it, or compare "
            "fewer or pooled features, as PairwiseLoss with beta or StatisticsLoss do"
        )
    if why:
        cache.notes = [f"distill.cache: teachers run in every iteration, since {why}"]
        return
    distiller.use_cached(cache.add_maps(losses))
    cache.notes = [
        f"distill.cache: {what} {_bytes(size)} in the store, cut from those of whole images"
        f"{_turned(options.datasets.train)}; {_border(distiller)}",
    ]
    if distiller.teacher_required:
        cache.notes.append("distill.cache: teachers run nevertheless, for a term that shows them other images")


def _obstacle(options: TrainOptions, wanted: Mapping[str, Mapping[tuple[int, int], CachedMap | None]]) -> str:
    """Why maps cannot be cached; empty if they can."""
    data = options.datasets.train
    sides = [stage.gt_size // options.scale for stage in data.stages()]
    for name, maps in wanted.items():
        found = [each for each in maps.values() if each is not None]
        if len(found) < len(maps):
            return f"{name} compares features that are pooled to another size, which cannot be cached"
        if not fits_patches(found, sides):
            pitch = max(each.pitch for each in found)
            return (
                f"a px of the maps of {name} has {float(pitch):g} LR px, of which patches of "
                f"{' and '.join(map(str, sides))} px are no multiple; change datasets.train.gt_size"
            )
    if data.use_channel_shuffle or data.use_inversion:
        return "features of shuffled or inverted colours do not follow from those of the image"
    return ""


def _turned(data: TrainDataOptions) -> str:
    flips = data.use_hflip if data.use_flip is None else data.use_flip
    return ", and flipped and turned with the patches" if flips or data.use_rot else ""


def _border(distiller: Distiller) -> str:
    """How maps of patches and of images differ."""
    infos = [teacher.info for teacher in distiller.teachers]
    if any(info.global_pool_modules or info.receptive_radius is None for info in infos):
        return "those that a teacher makes of patches differ, since it sees more of an image than a neighbourhood"
    radius = max(info.receptive_radius or 0 for info in infos)
    return f"those that a teacher makes of patches differ up to {radius} px from their edges"


def _bytes(gib: float) -> str:
    return f"{gib:.2g} GiB" if gib >= 1 else f"{gib * 1024:.2g} MiB"
