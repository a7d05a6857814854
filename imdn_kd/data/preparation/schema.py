"""Options of `imdn-kd prepare`: source images, degradations, output format."""

from __future__ import annotations

import difflib
from fractions import Fraction
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from imdn_kd.config.options import Integer, Options
from imdn_kd.data.base import exact_scale
from imdn_kd.data.degradation.schema import Bicubic, Step, check_steps
from imdn_kd.data.preparation.sources.catalogue import NAMED_SETS, SAMPLE
from imdn_kd.errors import InputError

Format = Literal["store", "folder", "lmdb"]


def _check_scale(scale: float) -> float:
    try:
        exact_scale(scale)
    except InputError as error:
        message = "give a factor from 1 up with at most two decimals, such as 2 or 1.5, not {given}"
        raise PydanticCustomError("scale", message, {"given": scale}) from error
    return scale


Scale = Annotated[float, AfterValidator(_check_scale)]

PATH_SOURCES = ("folder", "lmdb", "store")


class PrepareOptions(Options):
    """Options of `imdn-kd prepare`.

    Attributes:
        source: name of a data set, or kind of `path`: `folder` (folder or archive of images), `lmdb`, `store`.
        path: the folder, archive, LMDB or store.
        places: folders to search for the files of a named data set, before --root; nothing is downloaded then.
        scale: downscaling factors (default: 2, 3 and 4; with given LR images, theirs).
        degradation: `bicubic` (MATLAB's), `given` (LR images that come with the HR images), or a list of steps
            (default: `bicubic`; with `lr`, and for a store, `given`).
        lr: folder, archive or LMDB of the given LR images, by scale.
        exclude_like: folders of benchmarks; images that look like one of theirs are left out.
        format: `store`, `folder` or `lmdb` (default: store; benchmarks: folder).
        name: name of the data set (default: that of the source).
        output: path of the result (default: `NAME.store`, `NAME` or `NAME_lmdb` in --root).
        manual_seed: seed of the random numbers in the steps.
    """

    source: str
    path: str | None = None
    places: list[str] = Field(default_factory=list)
    scale: list[Scale] = Field(default_factory=list)
    degradation: Literal["bicubic", "given"] | list[Step] | None = None
    lr: dict[Scale, str] = Field(default_factory=dict)
    exclude_like: list[str] = Field(default_factory=list)
    format: Format | None = None
    name: str | None = None
    output: str | None = None
    manual_seed: Integer = Field(0, ge=0)

    @model_validator(mode="after")
    def _fits_together(self) -> PrepareOptions:
        if isinstance(self.degradation, list):
            check_steps(self.degradation, downscales=self.scales() != (Fraction(1),))
        known = (*PATH_SOURCES, *SAMPLE, *NAMED_SETS)
        if self.source not in known:
            near = difflib.get_close_matches(self.source, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
            raise PydanticCustomError("source", f"no data set is called {self.source!r}; {hint}")
        if (self.source in PATH_SOURCES) != (self.path is not None):
            raise PydanticCustomError(
                "path", f"the sources {', '.join(PATH_SOURCES)} need a path, and only these take one"
            )
        if self.lr and self.source not in ("folder", "lmdb"):
            raise PydanticCustomError("lr", "only the sources folder and lmdb take lr")
        if self.places and self.source not in NAMED_SETS:
            raise PydanticCustomError("places", "only data sets with a name take places (--from)")
        if self.name is not None and (not self.name or self.name in (".", "..") or set(self.name) & set("/\\\0")):
            raise PydanticCustomError("name", "give the name of a folder, without slashes")
        if self.degradation == "given" and self.source in SAMPLE:
            raise PydanticCustomError("given", f"{self.source} has no LR images of its own; leave degradation out")
        if self.lr and self.degradation not in (None, "given"):
            raise PydanticCustomError("lr", "lr names given images; degradation must be `given`, or left out")
        return self

    def given_places(self) -> dict[Fraction, str]:
        """Paths of the given LR images, by scale."""
        return {exact_scale(scale): place for scale, place in self.lr.items()}

    def scales(self) -> tuple[Fraction, ...]:
        """The scales as fractions, sorted, without repetition."""
        return tuple(sorted({exact_scale(scale) for scale in (*self.scale, *self.lr)}))

    def steps(self) -> tuple[Step, ...] | None:
        """The degradations that make the LR images; None if these are given."""
        if self.lr or self.degradation == "given" or (self.degradation is None and self.source == "store"):
            return None
        return tuple(self.degradation) if isinstance(self.degradation, list) else (Bicubic(),)
