"""Speed and memory as ratios, both sides in one run: `make bench`, or `python -m tests.bench [NAME ...]`.

Runs of the two sides are interleaved and medians compared, so that a busy machine slows both.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from imdn_kd import zoo
from imdn_kd.archs import IMDN
from imdn_kd.inference.cropping import AdaptiveCropping, tensor_bytes
from imdn_kd.inference.upscaler import Upscaler
from tests import (
    bench_batch,
    bench_browser,
    bench_cropping,
    bench_data,
    bench_distill,
    bench_engines,
    bench_losses,
    bench_plain,
    bench_quality,
    bench_restoration,
    bench_training,
)

RUNS = 9


def compare(
    title: str,
    ours: Callable[[], object],
    other: Callable[[], object],
    runs: int = RUNS,
    pause: float = 0,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Print and return the time of `ours` as a part of the time of `other`.

    Before each call `pause` seconds pass, in which what a side does in the background comes to rest.
    """
    times: dict[int, list[float]] = {0: [], 1: []}
    for number in range(runs + 1):
        for side, call in enumerate((ours, other)):
            time.sleep(pause)
            start = clock()
            call()
            if number:  # the first round warms up
                times[side].append(clock() - start)
    a, b = (statistics.median(times[side]) for side in (0, 1))
    print(f"{title:<78} {a / b:6.2f}   ({a:.4f} s / {b:.4f} s)")
    return a / b


def network() -> IMDN:
    torch.manual_seed(0)
    return IMDN(upscale=4).eval()


def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (180, 320, 3), np.uint8)


def plain(model: IMDN) -> Callable[[], object]:
    """What a user would otherwise write: eager, NCHW, from pixels to pixels."""
    image = pixels()

    def call() -> object:
        with torch.no_grad():
            x = torch.from_numpy(image).permute(2, 0, 1)[None].float().div(255).contiguous()
            return model(x).clamp(0, 1).mul(255).round().byte()[0].permute(1, 2, 0).numpy()

    return call


def upscale_fp32() -> None:
    """Upscaler against the plain network, IMDN x4, output 1280x720."""
    model, image = network(), pixels()
    upscaler = Upscaler(model, precision="fp32", device="cpu")
    compare("upscale fp32 / plain eager NCHW, IMDN x4, 1280x720 out", lambda: upscaler(image), plain(model))


def upscale_bf16() -> None:
    """The same in bf16; only CPUs with AVX512-BF16 or AMX gain."""
    model, image = network(), pixels()
    upscaler = Upscaler(model, precision="bf16", device="cpu")
    compare("upscale bf16 / plain eager NCHW, IMDN x4, 1280x720 out", lambda: upscaler(image), plain(model), runs=3)


def _budget(tensors: float) -> int:
    """The memory budget of which `tensors` bytes are planned for tensors."""
    return next(budget for budget in range(10**6, 10**10, 10**5) if tensor_bytes(budget) >= tensors)


def exact_cropping() -> None:
    """Exact and local crops against the whole image, at a quarter of the memory that the whole image takes."""
    model = network().to(memory_format=torch.channels_last)
    image = torch.rand(1, 3, 180, 320).contiguous(memory_format=torch.channels_last)
    whole = AdaptiveCropping(model, mode="whole")
    default = AdaptiveCropping(model)
    compare("exact cropping / whole image, default budget", lambda: default(image), lambda: whole(image))
    in_memory = AdaptiveCropping(model, crop_size=128)
    compare(
        "exact cropping / whole image, 128 px, features in memory",
        lambda: in_memory(image),
        lambda: whole(image),
    )
    for parts in (2, 4, 16):
        memory = _budget(180 * 320 * 3584 / parts)
        exact = AdaptiveCropping(model, memory=memory)
        title = f"exact cropping / whole image, 1/{parts} of its memory, features on disk"
        compare(title, partial(exact, image), partial(whole, image))
    local = AdaptiveCropping(model, mode="local", memory=_budget(180 * 320 * 3584 / 4))
    compare("local cropping / whole image, 1/4 of its memory", lambda: local(image), lambda: whole(image))


def students() -> None:
    """Students of the zoo, against IMDN of the same factor (of any weights), result 1280x720."""
    for student in zoo.students():
        side = np.random.default_rng(0).integers(0, 256, (720 // student.scale, 1280 // student.scale, 3), np.uint8)
        small, large = (
            Upscaler(model, precision="fp32", device="cpu")
            for model in (student.name, IMDN(upscale=student.scale).eval())
        )
        compare(
            f"{student.name} / IMDN x{student.scale}, fp32, 1280x720 out", partial(small, side), partial(large, side), 5
        )


def folders() -> None:
    """A folder of photographs, several at the same time, against one by one."""
    bench_batch.folders(compare)


def videos() -> None:
    """A clip, against the network alone on its frames."""
    bench_batch.videos(compare)


def resizing() -> None:
    """MATLAB bicubic of a thousand images, against BasicSR."""
    bench_data.many_images(compare)


def patches() -> None:
    """Training patches from a store, against BasicSR's data set."""
    bench_data.patch_rate(compare)


def degradation() -> None:
    """Second-order degradation of a batch, against the update of plain_m: CPU time."""
    bench_data.degradation(compare)


def leak_check() -> None:
    """The leak check of a photograph, against decoding it."""
    bench_data.leak_check(compare)


def training() -> None:
    """Updates of the trainer, against a bare loop."""
    bench_training.against_bare_loop()


def training_basicsr() -> None:
    """Updates of the trainer, against BasicSR's pipeline."""
    bench_training.against_basicsr()


def pairwise() -> None:
    """The pair-wise loss over all pairs, against the form with two matrices of all pairs."""
    bench_losses.pairwise(compare)


def distillation() -> None:
    """Updates with a teacher, against updates without one."""
    bench_distill.update(compare)


def cached_maps() -> None:
    """Features of a teacher from the cache against a live teacher."""
    bench_distill.cached_maps(compare)


def zoo_mix() -> None:
    """Updates with the losses of the zoo and a cached teacher, against a bare loop with L1."""
    bench_distill.zoo_mix(compare)


def plain_speed() -> None:
    """The plain family against IMDN_RTC."""
    bench_plain.speed(compare)


def reparam() -> None:
    """Updates of re-parameterised networks against those of plain ones."""
    bench_plain.reparam(compare)


def peers() -> None:
    """Engines, the runtimes by hand, and plain PyTorch."""
    bench_engines.peers()


_LARGE = """
import sys, time, resource
import numpy as np
from imdn_kd import zoo
from imdn_kd.archs import IMDN
from imdn_kd.inference.upscaler import Upscaler
image = np.random.default_rng(0).integers(0, 256, (3000, 4000, 3), np.uint8)
upscaler = Upscaler(IMDN(upscale=2), memory=2 * 2**30, crop=sys.argv[1], device="cpu", precision="fp32")
start = time.perf_counter()
result = upscaler(image)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
seconds, above, images = time.perf_counter() - start, peak - 2 * 2**30, image.nbytes + result.nbytes
print(f"{seconds:.0f} {above / 2**20:.0f} {images / 2**20:.0f}")
"""


def large_image() -> None:
    """12 megapixels, IMDN x2, in 2 GiB: takes minutes and 25 GB of disk; run it by name."""
    for crop in ("exact", "local"):
        result = subprocess.run([sys.executable, "-c", _LARGE, crop], capture_output=True, text=True, check=True)
        seconds, above, images = result.stdout.split()
        title = f"12 MP, IMDN x2, 2 GiB, {crop}: peak RSS of the process above the budget / images"
        print(f"{title:<78} {float(above) / float(images):6.2f}   ({above} MiB / {images} MiB, {seconds} s)")


def cropping() -> None:
    """Ways to crop, official IMDN x2: needs its weights and Kodak's photographs; run it by name."""
    bench_cropping.cropping()


def restoration() -> None:
    """Students of scale 1 beside non-local means: takes minutes and Kodak's photographs; run it by name."""
    bench_restoration.restoration()
    bench_restoration.degraded()


def sizes() -> None:
    """Memory after many different sizes, for each engine; run it by name."""
    bench_engines.sizes()


def psnr_time() -> None:
    """PSNR beside time, drawn into docs: takes minutes, official weights and larger networks; run it by name."""
    bench_quality.psnr_time()


def browser() -> None:
    """The static page against `imdn-kd upscale`: needs Chromium, playwright and npm; run it by name."""
    bench_browser.browser()


BENCHMARKS = {
    f.__name__: f
    for f in (
        *(
            upscale_fp32,
            upscale_bf16,
            students,
            exact_cropping,
            resizing,
            degradation,
            leak_check,
            patches,
            training,
            training_basicsr,
        ),
        *(folders, videos),
        *(pairwise, distillation, cached_maps, zoo_mix, plain_speed, reparam, peers),
        *(large_image, cropping, restoration, sizes, psnr_time, browser),
    )
}
ON_REQUEST = ("large_image", "cropping", "restoration", "sizes", "psnr_time", "browser")

if __name__ == "__main__":
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads; time of the first side / time of the second\n"
    )
    for name in sys.argv[1:] or [name for name in BENCHMARKS if name not in ON_REQUEST]:
        BENCHMARKS[name]()
    print(f"\npeak memory of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")
