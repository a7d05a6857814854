"""Networks of BasicSR (https://github.com/XPixelGroup/BasicSR) as networks of this toolkit.

BasicSR is imported by `import_basicsr` alone, and not before something of it is asked for. The registry `ARCHS` asks
here for names that it does not have, so that EDSR, RCAN, RRDBNet, MSRResNet, SwinIR, ECBSR and what a project has added
to BasicSR's own registry can be built by their `type`.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import json
import sys
import warnings
from functools import cache, cached_property
from types import ModuleType
from typing import Any

from torch import nn

from imdn_kd.archs.adopted import MixedPrecision
from imdn_kd.archs.base import ModelInfo, SRNetwork
from imdn_kd.archs.probing import measure_info
from imdn_kd.errors import InputError
from imdn_kd.utils.extras import how_to_install

_OTHER_WORK = {
    **dict.fromkeys(("BasicVSR", "BasicVSRPlusPlus", "DUF", "EDVR", "IconVSR", "TOFlow"), "is for video"),
    "SpyNet": "estimates motion",
    **dict.fromkeys(("DFDNet", "HiFaceGAN"), "restores faces of one size"),
    "StyleGAN2Generator": "makes images of noise",
    **dict.fromkeys(
        ("HiFaceGANDiscriminator", "StyleGAN2Discriminator", "UNetDiscriminatorSN_basicsr", "VGGStyleDiscriminator"),
        "is a discriminator",
    ),
    "VGGFeatureExtractor": "extracts features",
}
"""What is in BasicSR's registry, but does not make one larger image of one image.

Told by their names, since building some of these downloads weights or unpickles files.
"""

_SUFFIX = "_basicsr"
"""Ends the name of what BasicSR registers so that projects can have the name without it."""

_CHANNEL_OPTIONS = ("num_in_ch", "in_chans", "in_channels")


def import_basicsr(name: str) -> ModuleType:
    """Import a module of BasicSR by its full name.

    Its last release (1.4.2, 2022) needs `torchvision.transforms.functional_tensor`, which torchvision 0.17 has removed:
    the public module that has taken over its functions is put in the place.

    Raises:
        InputError: BasicSR is not installed, or does not work.
    """
    if importlib.util.find_spec("basicsr") is None:
        raise InputError(
            f"networks of BasicSR need its package (and Python below 3.13); {how_to_install('train')}",
            code="model.needs-basicsr",
        )
    try:
        # BasicSR uses names of SciPy and distutils that are deprecated, which its users cannot change.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            alias = "torchvision.transforms.functional_tensor"
            functional = importlib.import_module("torchvision.transforms.functional")
            if importlib.util.find_spec(alias) is None:
                sys.modules[alias] = functional
            return importlib.import_module(name)
    except Exception as error:  # of a release as old: ImportError, AttributeError (NumPy), OSError (OpenCV), ...
        raise InputError(
            f"networks of BasicSR cannot be used: importing it fails ({_one_line(error)}); install what it lacks",
            code="model.needs-basicsr",
        ) from error


def find(name: str) -> type[SRNetwork] | None:
    """Return the network that BasicSR calls `name`, or None if there is none or BasicSR cannot be imported.

    The class is one of BasicSR's own, with the same modules, keys of weights and initial values, that says its info
    and its `spec` besides. Its receptive field is unknown.

    Raises:
        InputError: it is not a network that makes one larger image of one image.
    """
    registry = _registry()
    key = next((key for key in (name, name + _SUFFIX) if key in registry), None)
    if key is None:
        return None
    if key in _OTHER_WORK:
        raise InputError(
            f"{name} of BasicSR {_OTHER_WORK[key]} and is no super-resolution network of single images; "
            f"choose one of {', '.join(names())}",
            code="model.not-super-resolution",
        )
    return _adapt(key, registry[key])


def names() -> list[str]:
    """The networks that `find` has, sorted; empty where BasicSR cannot be imported."""
    return sorted(name.removesuffix(_SUFFIX) for name in _registry() if name not in _OTHER_WORK)


def advice() -> str:
    """What to do so that `find` finds something; empty where it does."""
    try:
        import_basicsr("basicsr.archs")
    except InputError as error:
        return str(error)
    return ""


class _BasicSRNetwork(SRNetwork):
    """What is added to a class of BasicSR."""

    @cached_property
    def info(self) -> ModelInfo:
        """See `SRNetwork.info`; measured once."""
        channels = next((self.spec[key] for key in _CHANNEL_OPTIONS if key in self.spec), 3)
        return measure_info(self, channels)

    # The class cannot be imported by its name, which is what pickling does by default.
    def __reduce__(self) -> tuple[Any, ...]:
        return _blank, (type(self).__name__,), self.__dict__


@cache
def _adapt(name: str, theirs: type[nn.Module]) -> type[SRNetwork]:
    parameters = inspect.signature(theirs.__init__).parameters.values()
    # Without options that no file can hold (SwinIR's `norm_layer`), and without the `**kwargs` in which SwinIR lets
    # misspelt options vanish.
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    signature = inspect.Signature([p for p in parameters if p.kind in named and _is_plain(p.default)])

    def init(self: SRNetwork, *args: Any, **keywords: Any) -> None:  # noqa: ANN401 - see `signature`
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "torch.meshgrid")  # SwinIR calls it as one did in 2022
                theirs.__init__(self, *args, **keywords)
        except Exception as error:  # BasicSR checks little: AttributeError, AssertionError, UnboundLocalError, ...
            given = ", ".join(f"{key}: {value}" for key, value in keywords.items())
            raise InputError(
                f"the network {name!r} of BasicSR cannot be built with {given} ({_one_line(error)}); correct "
                "the values",
                code="registry.invalid-value",
            ) from error
        _ = self.info  # what is no super-resolution network is refused now

    init.__signature__ = signature  # type: ignore[attr-defined]
    own = [_BasicSRNetwork, MixedPrecision] if theirs.__name__ == "SwinIR" else [_BasicSRNetwork]
    without_self = signature.replace(parameters=list(signature.parameters.values())[1:])
    body = {"__init__": init, "__doc__": theirs.__doc__, "__module__": __name__, "__signature__": without_self}
    return type(name, (*own, theirs), body)


def _blank(name: str) -> SRNetwork:
    """An instance of a network without its contents, for copies and pickles."""
    network_class = find(name)
    if network_class is None:
        raise InputError(
            f"no network of BasicSR is called {name!r}; {advice() or 'import what registers it'}",
            code="registry.unknown-name",
        )
    network: SRNetwork = network_class.__new__(network_class)
    return network


def _registry() -> dict[str, Any]:
    try:
        import_basicsr("basicsr.archs")
        registry = import_basicsr("basicsr.utils.registry").ARCH_REGISTRY
    except InputError:
        return {}
    # Classes alone: what the plug-in has added are functions, which build networks of ours.
    return {name: entry for name, entry in registry if isinstance(entry, type) and issubclass(entry, nn.Module)}


def _is_plain(default: object) -> bool:
    if default is inspect.Parameter.empty:
        return True
    try:
        json.dumps(default)
    except TypeError:
        return False
    return True


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
