"""Networks by name, for Python."""

from __future__ import annotations

import re
from typing import Any

from imdn_kd import zoo
from imdn_kd.archs.base import SRNetwork
from imdn_kd.registry import ARCHS


def create_model(name: str, **options: Any) -> SRNetwork:  # noqa: ANN401 - plain values
    """Build a network with its first weights, in training mode.

    Args:
        name: of a registered network, as `imdn_rtc`, or of one of BasicSR, as `EDSR`; `_xN` at its end sets the scale:
            `imdn_rtc_x2`. For the trained weights of the zoo, see `load_model`.
        options: of the network, see its class.

    Raises:
        InputError: no such network, or options that it cannot use.
    """
    found = re.fullmatch(r"(.+)_x(\d+)", name)
    if found is not None:
        name, options = found[1], {"upscale": int(found[2]), **options}
    network: SRNetwork = ARCHS.build({"type": name, **options})
    return network


def list_models(*, pretrained: bool = False) -> list[str]:
    """Names of the networks that `create_model` builds, without BasicSR's; or of those with weights in the zoo."""
    return [student.name for student in zoo.students()] if pretrained else [*ARCHS]
