"""The models that visitors may choose from."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from imdn_kd import zoo
from imdn_kd.errors import InputError
from imdn_kd.inference.model_file import ModelFile
from imdn_kd.inference.upscaler import Upscaler

BEST, FAST = "best", "fast"


class Models:
    """Upscalers by name: the best and the fastest student of each scale, those of the zoo, and model files.

    Most are made when they are first asked for. Several threads may call one.

    Args:
        files: opened model files.
        options: of all Upscalers.

    Raises:
        InputError: as `Upscaler`.

    Attributes:
        scales: the scale that each name has if none is asked for.
        default: the name that is taken if none is given: the first model file, or else `best`.
    """

    def __init__(self, files: Sequence[ModelFile] = (), **options: Any) -> None:  # noqa: ANN401 - see Upscaler
        self._makers: dict[str, Callable[[], Upscaler]] = {
            BEST: partial(Upscaler, **options),
            FAST: partial(Upscaler, fast=True, **options),
        }
        self.scales = {name: max(zoo.defaults(fast=name == FAST)) for name in self._makers}
        for student in zoo.students():
            self._add(student.name, partial(Upscaler, student.name, **options), student.scale)
        own = [
            self._add(file.name or f"model {number}", partial(Upscaler, file, **options), file.network.info.scale)
            for number, file in enumerate(files, 1)
        ]
        self.default = own[0] if own else BEST
        self._made: dict[str, Upscaler] = {}
        self._making = threading.Lock()
        for name in (BEST, *own):  # which refuses bad options and files before anything is served
            self.upscaler(name)

    def _add(self, name: str, maker: Callable[[], Upscaler], scale: int) -> str:
        """Add a model and return its name, which is changed if another one has it."""
        free = name
        while free in self._makers:
            free += "*"
        self._makers[free], self.scales[free] = maker, scale
        return free

    def upscaler(self, name: str) -> Upscaler:
        """The one with this name.

        Raises:
            InputError: `serve.no-model`, there is none; or as `Upscaler`.
        """
        if name not in self._makers:
            raise InputError(
                f"model {name!r} is not offered; choose one of {', '.join(self._makers)}", code="serve.no-model"
            )
        with self._making:
            if name not in self._made:
                self._made[name] = self._makers[name]()
            return self._made[name]
