"""`imdn-kd doctor`."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from imdn_kd.cli.screen import say

EXTRAS = {
    "train": (("accelerate", "basicsr", "spandrel", "lmdb", "tensorboard"), "train and distil; networks of others"),
    "deploy": (("onnx", "onnxruntime", "openvino", "ncnn", "pnnx"), "faster engines on the CPU; export"),
    "video": (("av",), "upscale videos"),
    "study": (("matplotlib",), "figures of studies"),
    "hub": (("huggingface_hub",), "save to and load from the Hugging Face Hub"),
    "web": (("gradio",), "serve a page that upscales pictures"),
    "docs": (("sphinx", "myst_parser", "furo"), "build the documentation"),
    "dev": (("pytest", "hypothesis", "ruff", "mypy"), "test and check imdn_kd itself"),
}
"""The extras of setup.py: modules, and what they are good for."""

_ENGINES = {
    "torch": "always there; every network, every precision of PyTorch",
    "onnxruntime": "often faster than torch",
    "openvino": "often the fastest; bf16 on processors that have it",
    "ncnn": "for phones; runs on PCs too",
    "torch-compile": "needs a C++ compiler; takes long to get ready, so that auto leaves it out",
}
_PACKAGES = ("torch", "numpy", "pillow", "scikit-image", "safetensors", "accelerate", "basicsr", "spandrel")
_TESTED = "imdn_rtc_x2"


def doctor(
    test: Annotated[bool, typer.Option("--test/--no-test", help="Time a student, a few seconds.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Show what is installed and what it gives: versions, devices, engines, extras, the zoo, the cache folder, speed.

    imdn-kd doctor

    imdn-kd doctor --no-test --json
    """
    import json

    found = _found()
    if test:
        found["speed"] = _speed()
    say(json.dumps(found, indent=2) if as_json else "\n".join(_lines(found)))


def _found() -> dict[str, Any]:
    import psutil
    import torch

    from imdn_kd import __version__, zoo
    from imdn_kd.inference.engines import base
    from imdn_kd.inference.engines.remembered import memory_file
    from imdn_kd.utils.extras import how_to_install

    engines: dict[str, Any] = {}
    for name in base.NAMES:
        there = name in base.installed()
        kind = base.engine_kind(name) if there and name != base.TORCH else None
        engines[name] = {
            "installed": there,
            "version": torch.__version__ if name == base.TORCH else kind and kind.version(),
            "precisions": ["fp32", "bf16"] if name == base.TORCH else list(kind.precisions()) if kind else [],
            "gives": _ENGINES[name],
        }
    extras = {
        name: {
            "missing": (missing := [module for module in modules if find_spec(module) is None]),
            "gives": gives,
            "install": how_to_install(name) if missing else None,
        }
        for name, (modules, gives) in EXTRAS.items()
    }
    devices = [f"cuda:{index}: {torch.cuda.get_device_name(index)}" for index in range(torch.cuda.device_count())]
    devices += ["mps"] if torch.backends.mps.is_available() else []
    cache = memory_file().parent
    memory = psutil.virtual_memory()
    return {
        "versions": {"imdn_kd": __version__, "python": platform.python_version(), **_versions()},
        "system": {
            "platform": platform.platform(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "memory_gb": round(memory.total / 1e9, 1),
            "free_memory_gb": round(memory.available / 1e9, 1),
        },
        "devices": [*devices, "cpu"],
        "engines": engines,
        "extras": extras,
        "zoo": {"folder": str(zoo.FOLDER), "students": [student.name for student in zoo.students()]},
        "cache": {"folder": str(cache), "writable": _writable(cache)},
    }


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _writable(folder: Path) -> bool:
    """Whether the folder, or the nearest one above that exists, can be written to."""
    there = next(each for each in (folder, *folder.parents) if each.exists())
    return os.access(there, os.W_OK)


def _speed() -> dict[str, Any]:
    from imdn_kd.evaluation.speed import RESULT, measure_speed

    speed = measure_speed(_TESTED)
    return {
        "model": _TESTED,
        "result": [RESULT[1], RESULT[0]],
        "engine": speed.run.engine,
        "device": speed.run.device,
        "milliseconds": round(1000 * speed.seconds, 1),
        "megapixels_per_second": round(speed.megapixels_per_second, 2),
    }


def _lines(found: dict[str, Any]) -> list[str]:
    system, cache = found["system"], found["cache"]
    lines = [", ".join(f"{name} {number}" for name, number in found["versions"].items())]
    lines += [f"{system['platform']}, {system['cores']} cores, {system['threads']} threads of PyTorch"]
    lines += [f"memory: {system['memory_gb']} GB, {system['free_memory_gb']} GB free"]
    lines += [f"devices: {', '.join(found['devices'])}", "", "engines (what runs networks on the CPU)"]
    for name, engine in found["engines"].items():
        what = (
            f"{engine['version'] or ''} ({', '.join(engine['precisions'])})" if engine["installed"] else "not installed"
        )
        lines.append(f"  {name} {what}: {engine['gives']}")
    lines += ["", "extras"]
    for name, extra in found["extras"].items():
        how = f"without {', '.join(extra['missing'])}; {extra['install']}" if extra["missing"] else "installed"
        lines.append(f"  {name} ({extra['gives']}): {how}")
    lines += ["", f"zoo: {', '.join(found['zoo']['students']) or 'no students'}"]
    lines += [f"cache: {cache['folder']}{'' if cache['writable'] else ', cannot be written: nothing is remembered'}"]
    if speed := found.get("speed"):
        width, height = speed["result"]
        lines += [
            f"speed: {speed['model']} makes {width}x{height} px in {speed['milliseconds']:.0f} ms, "
            f"{speed['megapixels_per_second']:.1f} MP/s, by {speed['engine']} on {speed['device']}"
        ]
    return lines
