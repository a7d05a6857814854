"""What `imdn-kd upscale` says of a file: a line for people, or a JSON object on a line for programs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from imdn_kd.inference.batch import FileResult
    from imdn_kd.inference.upscaler import NetworkRun, Upscaler

KEYS = (
    "input, output, status (done, skipped, failed), reason (why it failed), input_width, input_height, width, height "
    "(px), frames (of a video), models (in the order in which they ran), engine, precision, device, seconds (reading "
    "and writing included), megapixels_per_second (of the result), left_out (what the output does not hold)"
)


def told(done: FileResult, upscaler: Upscaler, *, as_json: bool, quiet: bool) -> str:
    """The line for a file, empty if there is nothing to say (here: why one failed is said at the end)."""
    networks = upscaler.networks(done.given, done.size) if done.status == "done" else []
    if as_json:
        return json_of(done, networks)
    return "" if quiet or done.status == "failed" else line_of(done, networks)


def line_of(done: FileResult, networks: Sequence[NetworkRun]) -> str:
    """The line for people.

    Args:
        done: what became of the file.
        networks: what it went through.
    """
    if done.status != "done":
        return f"{done.job.target}: exists already, skipped"
    (height, width), (tall, wide) = done.given, done.size
    frames = f", {done.frames} frames" if done.frames else ""
    models = " and ".join(dict.fromkeys(each.model for each in networks))
    how = f"{models} in {_engine(networks[0])}" if networks else "no network, since it does not grow"
    sizes = f"{width}x{height} to {wide}x{tall} px{frames}"
    return f"{done.job.target}: {sizes}, by {how}, {_pace(done.pixels, done.seconds)}"


def json_of(done: FileResult, networks: Sequence[NetworkRun]) -> str:
    """The line for programs, with the `KEYS`; arguments as those of `line_of`."""
    first = networks[0] if networks else None
    rate = done.pixels / 1e6 / done.seconds if done.status == "done" and done.seconds else None
    content = {
        **{"input": str(done.job.source), "output": str(done.job.target), "status": done.status, "reason": done.reason},
        **{"input_width": done.given[1], "input_height": done.given[0]},
        **{"width": done.size[1], "height": done.size[0], "frames": done.frames},
        "models": [each.model for each in networks],
        **{key: first and getattr(first, key) for key in ("engine", "precision", "device")},
        "seconds": round(done.seconds, 3),
        "megapixels_per_second": rate and round(rate, 3),
        "left_out": list(done.left_out),
    }
    return json.dumps(content)


def summary(results: Sequence[FileResult], seconds: float) -> str:
    """How many files there were and what became of them.

    Args:
        results: of all files.
        seconds: that all of them took.
    """
    counts = Counter(result.status for result in results)
    said = f"{len(results)} files: {', '.join(f'{count} {status}' for status, count in counts.items())}"
    pixels = sum(result.pixels for result in results)
    return f"{said}; {_pace(pixels, seconds)}" if pixels else said


def _pace(pixels: int, seconds: float) -> str:
    rate = pixels / 1e6 / max(seconds, 1e-9)
    return f"{seconds:.2f} s, {f'{rate:.0f}' if rate >= 10 else f'{rate:.2g}'} MP/s"


def _engine(network: NetworkRun) -> str:
    """What ran it, with what is not usual: another precision than fp32, a GPU."""
    also = [network.precision] if network.precision != "fp32" else []
    also += [network.device] if network.device != "cpu" else []
    return f"{network.engine} ({', '.join(also)})" if also else network.engine
