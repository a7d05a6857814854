"""Feature hooks: read features inside any network while it runs, without changing its code or its output."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from imdn_kd.errors import InputError

SR = "sr"
"""The feature that is the network's own output."""

Size = tuple[int, int]
"""(height, width) of a feature map."""

MODULE_CALLS = "hooks.module-calls"
"""Code of the error about modules that a run does not call as often as asked."""

_FORM = re.compile(r"(?P<path>[^@:]*)(?:@(?P<call>\d+))?(?P<of_input>:input)?")


class FeatureInfo(NamedTuple):
    """What a dry run showed of one feature.

    Attributes:
        name: of the feature, wildcards expanded.
        path: of its module, "" for the network itself.
        shape: of the feature, N x C x H x W.
        minimum: lowest value.
        maximum: highest value.
        copied: whether the network changes the feature in place later, so that recordings keep a copy.
    """

    name: str
    path: str
    shape: tuple[int, ...]
    minimum: float
    maximum: float
    copied: bool


class FeatureHooks:
    """Records features of a network.

        hooks = FeatureHooks(network, ["body.*", "tail:input"])
        hooks.probe(image)
        with hooks.recording() as features:
            network(image)

    A feature is written `PATH[@CALL][:input]`:

    - `PATH`: a module as in `named_modules`, such as `IMDB3` or `model.1.sub.0`; `sr` or nothing is the network itself.
      `*` stands for any part of a name between two dots: `body.*` are all blocks of a body, in the network's order.
    - `@CALL`: which call of a module that is called several times in one run, from 0.
    - `:input`: the first tensor that the module is given, instead of the first that it returns.

    The hooks are on the modules themselves, so that wrappers around the network (for several processes, for mixed
    precision, `network.compile()`) do not matter. Copies and pickles of the network record nothing.

    Features are N x C x H x W. Those of transformers, N x HW x C, are turned into maps; other shapes are refused. Four
    dimensions are taken for a map, which cannot be checked.

    Call `probe` before the first recording: it finds which features are changed in place later (as by the activations
    of IMDN), and where to read the sizes of maps that the modules of a transformer are not told.

    Creating one tells PyTorch's compiler, for the whole process, to respect hooks.

    Args:
        network: takes images N x C x H x W.
        features: as above.

    Attributes:
        names: of the features, wildcards expanded: the keys of a recording.

    Raises:
        InputError: a feature cannot be read, or there is no such module.
    """

    def __init__(self, network: nn.Module, features: Sequence[str]) -> None:
        import torch._dynamo

        # By default the compiler gives modules of one class the same code, whether they have hooks or not.
        torch._dynamo.config.skip_nnmodule_hook_guards = False
        self._network = network
        self._points = {point.name: point for text in features for point in _find(network, text)}
        self.names = tuple(self._points)
        self._copied: Set[str] = frozenset()
        self._sources: Set[str] = frozenset()
        self._run: _Run | None = None
        self._handles = [self._before("", lambda run, given: run.begin(given))]
        for point in self._points.values():
            if point.of_input:
                self._handles.append(self._before(point.path, partial(_Run.take_input, point=point)))
            else:
                self._handles.append(self._after(point.path, partial(_Run.take_output, point=point)))
        self._handles.append(self._after("", lambda run, given, returned: run.end()))

    @contextmanager
    def recording(self, *, stop: bool = False) -> Iterator[dict[str, Tensor]]:
        """Record one run of the network inside a `with` block; yields the dictionary that is filled with the features.

        They are part of the autograd graph if there is one, and only the dictionary holds them.

        Args:
            stop: end the run, and the block, as soon as all features are there.

        Raises:
            InputError: the network did not run exactly once, a module was not called as asked or gave no map, or a
                feature was changed in place that `probe` did not see.
        """
        if self._run is not None:
            raise InputError("these hooks are recording already; end that recording first", code="hooks.not-one-run")
        run = _Run(self._copied, stop_at=len(self._points) if stop else None)
        self._run = run
        try:
            yield run.features
        except _Complete:
            return
        finally:
            self._run = None
        run.check(self._network, self._points.values())
        changed = next(iter(run.changed()), None)
        if changed is not None:
            raise InputError(
                f"feature {changed!r}: the network changes this feature in place, which probe() has not seen; "
                "call probe() before recording, with the network in the mode in which it is recorded",
                code="hooks.not-probed",
            )

    def probe(self, image: Tensor) -> list[FeatureInfo]:
        """Run the network in eval mode without gradients, and note what recordings need to know.

        A network in training mode is run in that mode as well, since it may then change other features in place. Modes,
        buffers and random number generators are restored.

        Args:
            image: N x C x H x W as the network takes it, on its device; best with unequal sides.

        Returns:
            What was found, in the order of `names`.

        Raises:
            InputError: see `recording`.
        """
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.no_grad())
            stack.enter_context(torch.compiler.set_stance("force_eager"))
            stack.enter_context(torch.random.fork_rng([image.device] if image.is_cuda else []))
            with _unchanged(self._network):
                self._network.eval()
                runs = [self._dry_run(image)]
            if self._network.training:
                with _unchanged(self._network):
                    # Two images, since batch normalisation cannot train on a single value.
                    runs.append(self._dry_run(torch.cat((image, image))))
        self._copied = frozenset(name for run in runs for name in run.changed())
        sources = frozenset(runs[0].sources)
        self._handles += [handle for path in sources - self._sources for handle in self._watch(path)]
        self._sources |= sources
        return [
            FeatureInfo(name, point.path, *runs[0].found[name], name in self._copied)
            for name, point in self._points.items()
        ]

    def remove(self) -> None:
        """Take the hooks off the network."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _dry_run(self, image: Tensor) -> _Run:
        handles = [handle for path, _ in self._network.named_modules() for handle in self._watch(path)]
        run = _Run(frozenset(), dry=True)
        self._run = run
        try:
            self._network(image)
        finally:
            self._run = None
            for handle in handles:
                handle.remove()
        run.check(self._network, self._points.values())
        return run

    def _watch(self, path: str) -> list[RemovableHandle]:
        """Note the sizes that the module is told and returns."""
        return [
            self._before(path, lambda run, given: run.note(path, given)),
            self._after(path, lambda run, given, returned: run.note(path, [returned])),
        ]

    def _before(self, path: str, act: Callable[[_Run, list[object]], None]) -> RemovableHandle:
        def on_call(given: list[object], _: object) -> None:
            if self._run is not None:
                act(self._run, given)

        return self._network.get_submodule(path).register_forward_pre_hook(_Hook(on_call), with_kwargs=True)

    def _after(self, path: str, act: Callable[[_Run, list[object], object], None]) -> RemovableHandle:
        def on_return(given: list[object], returned: object) -> None:
            if self._run is not None:
                act(self._run, given, returned)

        return self._network.get_submodule(path).register_forward_hook(_Hook(on_return), with_kwargs=True)


@dataclass(frozen=True)
class _HookPoint:
    """Where a feature is read: its name taken apart."""

    name: str
    path: str
    call: int | None
    of_input: bool


class _Hook:
    """Both kinds of hook, called between compiled graphs; a copy or pickle of it, as of its network, does nothing."""

    def __init__(self, act: Callable[[list[object], object], None] | None = None) -> None:
        self._act = act and torch.compiler.disable(act)  # type: ignore[no-untyped-call]

    def __call__(self, _: nn.Module, given: tuple[Any, ...], named: dict[str, Any], returned: object = None) -> None:
        if self._act is not None:
            self._act([*given, *named.values()], returned)

    def __reduce__(self) -> tuple[type[_Hook], tuple[()]]:
        return _Hook, ()


class _Complete(Exception):  # noqa: N818 - no error
    """All features of a run are there."""


class _Run:
    """One run of a network under way.

    Args:
        copied: names of features to keep copies of.
        dry: keep what is reported of features, not the features.
        stop_at: raise `_Complete` with so many features.
    """

    def __init__(self, copied: Set[str], *, dry: bool = False, stop_at: int | None = None) -> None:
        self.features: dict[str, Tensor] = {}
        self.found: dict[str, tuple[tuple[int, ...], float, float]] = {}
        self.sources: set[str] = set()  # paths of the modules that told sizes of maps
        self._copied, self._dry, self._stop_at = copied, dry, stop_at
        self._versions: list[tuple[str, Tensor, int]] = []
        self._calls: Counter[str] = Counter()
        self._sizes: list[tuple[str, Size]] = []
        self._batch = 0
        self._runs, self._running = 0, False

    def begin(self, given: list[object]) -> None:
        """The network is called."""
        if self._runs:
            raise InputError(
                "the network ran twice in one recording; record each run on its own", code="hooks.not-one-run"
            )
        self._runs, self._running = 1, True
        self.note("", given)
        self._batch = next((tensor.shape[0] for tensor in _tensors(given) if tensor.ndim), 0)

    def end(self) -> None:
        """The network returns. What its modules do later on (to compute activations again) is no part of the run."""
        self._running = False

    def note(self, path: str, values: list[object]) -> None:
        """Keep the sizes that are in the arguments or results of a module."""
        if self._running:
            self._sizes += ((path, size) for size in _sizes(values))

    def take_input(self, given: list[object], point: _HookPoint) -> None:
        """The module of a feature is called."""
        self._take(point, given, given)

    def take_output(self, given: list[object], returned: object, point: _HookPoint) -> None:
        """The module of a feature returns."""
        self._take(point, given, returned)

    def _take(self, point: _HookPoint, given: list[object], value: object) -> None:
        if not self._running:
            return
        self._calls[point.name] += 1
        if self._calls[point.name] != 1 + (point.call or 0):
            return
        tensor = next(_tensors(value), None)
        if tensor is None or not tensor.is_floating_point():
            what = type(value).__name__ if tensor is None else f"tensor of {tensor.dtype}"
            raise InputError(
                f"feature {point.name!r}: there is a {what} where a feature map was expected; name another module",
                code="hooks.no-map",
            )
        if tensor.is_inference() or point.name in self._copied:
            tensor = tensor.clone()
        else:
            self._versions.append((point.name, tensor, tensor._version))
        feature = self._as_map(point, tensor, given)
        if self._dry:
            self.found[point.name] = (tuple(feature.shape), feature.min().item(), feature.max().item())
        else:
            self.features[point.name] = feature
            if len(self.features) == self._stop_at:
                raise _Complete

    def _as_map(self, point: _HookPoint, tensor: Tensor, given: list[object]) -> Tensor:
        if tensor.ndim == 4:
            return tensor
        size = None
        if tensor.ndim == 3 and tensor.shape[0] == self._batch:
            size = self._size_of(point.path, tensor.shape[1], given)
        if size is None:
            shape = "x".join(map(str, tensor.shape))
            advice = "name another module" if self._dry else "call probe() before recording, or name another module"
            raise InputError(
                f"feature {point.name!r}: its shape, {shape}, is no map N x C x H x W, and H and W are not known; "
                f"{advice}",
                code="hooks.no-map",
            )
        return tensor.transpose(1, 2).reshape(tensor.shape[0], tensor.shape[2], *size)

    def _size_of(self, path: str, length: int, given: list[object]) -> Size | None:
        """Height and width of the map of `length` positions in module `path`, which was given `given`."""
        own = next((size for size in _sizes(given) if size[0] * size[1] == length), None)
        if own is not None:
            return own
        fitting = [(source, size) for source, size in self._sizes if size[0] * size[1] == length]
        # The nearest module around it, or else all that came before, where they agree.
        around = [each for each in fitting if each[0] == "" or path.startswith(f"{each[0]}.")]
        if around:
            fitting = [max(around, key=lambda each: len(each[0]))]
        if len({size for _, size in fitting}) != 1:
            return None
        source, size = fitting[-1]
        self.sources.add(source)
        return size

    def changed(self) -> list[str]:
        """Names of the features whose tensors were changed in place since."""
        return [name for name, tensor, version in self._versions if tensor._version != version]

    def check(self, network: nn.Module, points: Iterable[_HookPoint]) -> None:
        """Raise InputError unless the network ran, and called the modules as asked."""
        if not self._runs:
            raise InputError(
                "the network was not run; run it once in the recording, before its hooks are removed",
                code="hooks.not-one-run",
            )
        for point in points:
            calls, wanted = self._calls[point.name], point.call or 0
            if wanted < calls and (point.call is not None or calls == 1):
                continue
            about = f"feature {point.name!r}: its module is "
            if calls:
                first, last = (f"{point.path or SR}@{k}{':input' * point.of_input}" for k in (0, calls - 1))
                raise InputError(
                    f"{about}called {calls} times in one run; write which call, {first} to {last}",
                    code=MODULE_CALLS,
                )
            if isinstance(network.get_submodule(point.path), (nn.ModuleList, nn.ModuleDict)):
                raise InputError(
                    f"{about}a list, which is not called itself; name its parts, {point.path}.*",
                    code=MODULE_CALLS,
                )
            raise InputError(f"{about}never called in a run; name another one", code=MODULE_CALLS)


def _find(network: nn.Module, text: str) -> list[_HookPoint]:
    form = _FORM.fullmatch(text)
    if form is None:
        raise InputError(
            f"feature {text!r} cannot be read; write PATH[@CALL][:input], as in body.7, act@0 or IMDB3:input",
            code="hooks.unreadable",
        )
    path = "" if form["path"] == SR else form["path"]
    call = None if form["call"] is None else int(form["call"])
    of_input = form["of_input"] is not None
    known = [each for each, _ in network.named_modules(remove_duplicate=False)]
    if path in known:
        return [_HookPoint(text, path, call, of_input)]
    matching = [each for each in known if each and _matches(each, path)]
    if not matching:
        alike = [each for each in known if each.casefold() == path.casefold()]
        near = alike or difflib.get_close_matches(path, known, n=1)
        at_top = ", ".join(name for name, _ in network.named_children())
        hint = f"did you mean {near[0]!r}?" if near else f"at its top it has: {at_top}"
        raise InputError(
            f"feature {text!r}: {type(network).__name__} has no module {path!r}; {hint}",
            code="hooks.unknown-module",
        )
    suffix = text[len(form["path"]) :]
    return [_HookPoint(each + suffix, each, call, of_input) for each in matching]


def _matches(path: str, pattern: str) -> bool:
    parts, patterns = path.split("."), pattern.split(".")
    return len(parts) == len(patterns) and all(map(fnmatchcase, parts, patterns))


def _tensors(value: object) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _tensors(part)


def _sizes(values: list[object]) -> Iterator[Size]:
    """Height and width wherever they are told among arguments or results, then those of maps."""
    for value in values:
        if isinstance(value, (list, tuple)) and len(value) == 2 and all(type(side) is int for side in value):
            yield value[0], value[1]
    for first, second in pairwise(values):
        if type(first) is int and type(second) is int:
            yield first, second
    for tensor in _tensors(values):
        if tensor.ndim == 4:
            yield tensor.shape[2], tensor.shape[3]


@contextmanager
def _unchanged(network: nn.Module) -> Iterator[None]:
    """Put modes and buffers back at the end."""
    modes = [(module, module.training) for module in network.modules()]
    buffers = [
        (module, name, buffer, buffer.clone())
        for module in network.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
        for module, name, buffer, value in buffers:
            if not torch.equal(buffer, value):
                buffer.copy_(value)
            module._buffers[name] = buffer
