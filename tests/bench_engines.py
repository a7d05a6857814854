"""Benches of engines: the same picture through plain PyTorch, the runtimes as anyone would run them, and `Upscaler`.

The runtimes are called with their own interfaces here, not by `imdn_kd.inference.engines`.
"""

from __future__ import annotations

import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path

import numpy as np
import psutil
import torch
from torch import nn

from imdn_kd import Upscaler
from imdn_kd.inference.model_file import load_model
from tests.official import official
from tests.shared_data import SHARED

Pixels = np.ndarray
Run = Callable[[Pixels], Pixels]
STUDENTS = ("plain_m_x2", "plain_m_x4", "imdn_rtc_x2", "imdn_rtc_x4")
ROUNDS = 5


def peers() -> None:
    """Times of the ways to run a network, plain eager PyTorch = 1: a picture that becomes 1280x720, uint8 to uint8."""
    print(f"{processor()}; medians of {ROUNDS} interleaved runs")
    for threads in (1, 2):
        with _threads(threads):
            for name, network, scale in _networks():
                _compare(f"{name}, {threads} thread{'s' * (threads > 1)}", network, scale, threads)


def sizes() -> None:
    """Memory of a process after 20, 520 and 1040 pictures of different sizes, for each engine: it is to stay flat."""
    for engine in ("torch", *(name for name in ("onnxruntime", "openvino", "ncnn") if find_spec(name))):
        subprocess.run([sys.executable, "-c", f"from tests.bench_engines import grow; grow('{engine}')"], check=True)


def grow(engine: str) -> None:
    """Upscale pictures of 24 to 200 px a side, and print what the process takes meanwhile."""
    upscaler, random, memory = Upscaler("plain_m_x4", device="cpu", engine=engine), np.random.default_rng(0), []
    for number in range(1, 1041):
        upscaler(random.integers(0, 256, (*random.integers(24, 201, 2), 3), np.uint8))
        if number in (20, 520, 1040):
            memory.append(f"{psutil.Process().memory_info().rss / 1e6:.0f} MB")
    print(f"{engine:<12} {', '.join(memory)}", flush=True)


def processor() -> str:
    """Its name, and the extensions that matter to networks."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    found = dict(line.replace("\t", "").split(":", 1) for line in lines if ":" in line)
    known = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "avx_vnni", "amx_bf16", "amx_int8")
    flags = [flag for flag in known if flag in found.get("flags", "").split()]
    return f"{found.get('model name', platform.processor()).strip()} ({' '.join(flags)})"


def _networks() -> Iterator[tuple[str, nn.Module, int]]:
    if SHARED.exists():
        yield "IMDN x4", official("IMDN_x4").network, 4
    for name in STUDENTS:
        network = load_model(name).network
        yield name, network, network.info.scale  # type: ignore[union-attr]


def _compare(title: str, network: nn.Module, scale: int, threads: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (720 // scale, 1280 // scale, 3), np.uint8)
    runs, times = _ways(network, image, threads), {}
    with torch.no_grad():
        expected = runs["eager"](image).astype(np.int16)
        for name, run in runs.items():
            for _ in range(2):  # engines may prepare a size when it comes again
                error = int(np.abs(run(image).astype(np.int16) - expected).max())
            if error > 1:
                print(f"  {title}: {name} is off by {error} levels")
        for _ in range(ROUNDS):
            for name, run in runs.items():
                start = time.perf_counter()
                run(image)
                times.setdefault(name, []).append(time.perf_counter() - start)
    seconds = {name: statistics.median(values) for name, values in times.items()}
    print(f"{title} (eager {seconds['eager'] * 1000:.1f} ms)")
    for name, value in seconds.items():
        print(f"    {name:<28} {value / seconds['eager']:5.2f}   {1 / value:6.1f} pictures a second")


def _ways(network: nn.Module, image: Pixels, threads: int) -> dict[str, Run]:
    runs: dict[str, Run] = {"eager": _eager(network)}
    runs["channels last"] = _eager(network, torch.channels_last)
    if find_spec("triton"):
        runs["torch.compile"] = _eager(torch.compile(network))
    if find_spec("onnxruntime") and find_spec("onnx"):
        runs["ONNX Runtime"] = _onnxruntime(_onnx(network, image), threads)
    if find_spec("openvino") and find_spec("onnx"):
        runs["OpenVINO, free size"] = _openvino(_onnx(network, image), threads)
        runs["OpenVINO, fixed size"] = _openvino(_onnx(network, image), threads, image.shape[:2])
    runs["Upscaler, torch"] = Upscaler(network, device="cpu", precision="fp32", engine="torch")
    runs["Upscaler, auto"] = Upscaler(network, device="cpu", precision="fp32")
    return runs


def _eager(network: nn.Module, layout: torch.memory_format = torch.contiguous_format) -> Run:
    def run(image: Pixels) -> Pixels:
        pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float().div(255).contiguous(memory_format=layout)
        sr = network(pixels).clamp(0, 1).mul(255).round().byte()
        return sr[0].permute(1, 2, 0).contiguous().numpy()

    return run


def _by_arrays(graph: Callable[[np.ndarray], np.ndarray]) -> Run:
    """From a function of N x C x H x W floats."""

    def run(image: Pixels) -> Pixels:
        pixels = np.ascontiguousarray(image.transpose(2, 0, 1)[None], np.float32) / np.float32(255)
        sr = np.rint(graph(pixels).clip(0, 1) * 255).astype(np.uint8)
        return np.ascontiguousarray(sr[0].transpose(1, 2, 0))

    return run


def _onnx(network: nn.Module, image: Pixels) -> bytes:
    file = BytesIO()
    axes = {"x": {2: "h", 3: "w"}, "y": {2: "sh", 3: "sw"}}
    sample = torch.zeros(1, 3, *image.shape[:2])
    names = {"input_names": ["x"], "output_names": ["y"], "dynamic_axes": axes}
    torch.onnx.export(network, (sample,), file, dynamo=False, opset_version=17, **names)  # type: ignore[arg-type]
    return file.getvalue()


def _onnxruntime(onnx: bytes, threads: int) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
    return _by_arrays(lambda pixels: session.run(None, {"x": pixels})[0])


def _openvino(onnx: bytes, threads: int, size: tuple[int, int] | None = None) -> Run:
    import openvino

    core = openvino.Core()
    model = core.read_model(BytesIO(onnx))
    if size:
        model.reshape([1, 3, *size])
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    compiled = core.compile_model(model, "CPU", settings)
    return _by_arrays(lambda pixels: compiled([pixels])[0])


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    yield
    torch.set_num_threads(before)
