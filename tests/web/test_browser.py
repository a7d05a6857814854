"""The static page in a browser: it gives what `Upscaler` gives, compares, stops, and says what is wrong."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from imdn_kd.errors import InputError
from imdn_kd.image.resize import imresize
from imdn_kd.inference.model_file import ModelFile
from imdn_kd.inference.upscaler import Upscaler
from imdn_kd.web import page as pages
from imdn_kd.web.runtime import runtime_folder
from tests.fake_set import picture
from tests.web.browser import Watched, chromium, opened, served
from tests.web.pages import network

pytestmark = [pytest.mark.slow, pytest.mark.processes]

NETWORKS: dict[str, dict[str, object]] = {
    "x2": {},
    "grey": {"upscale": 1, "unshuffle": 2, "num_in_ch": 1},  # sides are multiples of 2
}
ISOLATED = {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"}
TILE = 48


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def folders(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Pages of small networks and small tiles, with the real runtime."""
    pytest.importorskip("onnxruntime")
    folder = tmp_path_factory.mktemp("pages")
    try:
        with runtime_folder() as runtime, pytest.MonkeyPatch.context() as patch:
            patch.setattr(pages, "TILE", TILE)
            for name, options in NETWORKS.items():
                pages.write_page(ModelFile(network(**options)), folder / name, name=name, runtime=runtime)
    except InputError as error:
        if error.code != "web.no-runtime":
            raise
        pytest.skip("needs onnxruntime-web from npm")
    return {name: folder / name for name in NETWORKS}


def as_png(pixels: np.ndarray) -> bytes:
    return bytes(imagecodecs.png_encode(np.ascontiguousarray(pixels)))


def as_turned_jpeg(pixels: np.ndarray) -> bytes:
    """A JPEG that is to be shown a quarter to the right."""
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(file, "JPEG", quality=98, subsampling=0, exif=exif)
    return file.getvalue()


def choose(watched: Watched, name: str, content: bytes) -> None:
    watched.page.set_input_files("#file", {"name": name, "mimeType": "image/png", "buffer": content})


def enlarged(watched: Watched, name: str, content: bytes) -> np.ndarray:
    """The file that the page offers for a picture."""
    choose(watched, name, content)
    watched.wait(f"#status:has-text('{name}: '):has-text(' px in ')")
    with watched.page.expect_download() as download:
        watched.page.click("#download")
    assert download.value.suggested_filename.startswith(f"{name.partition('.')[0]}_")
    return np.asarray(Image.open(download.value.path())).astype(int)


def cases() -> dict[str, np.ndarray]:
    fade = np.tile(np.linspace(0, 255, 60).astype(np.uint8)[None, :, None], (40, 1, 1))
    sizes = ((1, 1), (2, 3), (17, 257), (48, 48), (49, 131), (300, 200))
    return {
        **{f"{width}x{height}": picture((height, width), 1) for width, height in sizes},
        "grey": picture((30, 70), 1)[..., 0],
        "alpha": np.concatenate((picture((40, 60), 1), fade), 2),
        "even alpha": np.concatenate((picture((9, 7), 1), np.full((9, 7, 1), 200, np.uint8)), 2),
    }


@pytest.mark.parametrize("name", NETWORKS)
def test_without_a_network_it_gives_what_the_upscaler_gives(name, browser, folders):
    upscaler = Upscaler(network(**NETWORKS[name]), device="cpu", engine="torch")
    isolated = name == "grey"
    with (
        served(folders[name], ISOLATED if isolated else {}) as url,
        opened(browser, url, width=320) as watched,
    ):
        assert watched.page.evaluate("crossOriginIsolated") == isolated
        cores = watched.page.evaluate("navigator.hardwareConcurrency")
        watched.wait(f"#runs:has-text('{'threads' if isolated and cores > 1 else 'one thread'}')", "attached")
        watched.page.context.set_offline(True)
        for case, pixels in cases().items():
            found, expected = enlarged(watched, f"{case}.png", as_png(pixels)), upscaler(pixels)
            assert found.shape == expected.shape, case
            error = np.abs(found - expected)
            if pixels.ndim == 3 and pixels.shape[2] == 4:  # browsers hand out colours times alpha
                assert error[..., 3].max() <= 1
                error = error * expected[..., 3:] / 255 / 2
            assert error.max() <= 1, case
        pixels = picture((20, 30), 1)
        deep = enlarged(watched, "16 bits.png", as_png(pixels * np.uint16(257)))
        assert np.abs(deep - upscaler(pixels)).max() <= 1
        turned = enlarged(watched, "turned.jpg", as_turned_jpeg(pixels))
        assert np.abs(turned - upscaler(np.rot90(pixels, -1).copy())).mean() < 5
        watched.wait("#before:not([hidden])")
        assert watched.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert watched.foreign == watched.complaints == []


def test_it_compares_with_bicubic_stops_and_says_what_is_wrong(browser, folders):
    large, pixels = as_png(picture((800, 900), 1)), picture((50, 70), 2)
    read = """() => { const image = document.getElementById("before"), size = [image.naturalWidth, image.naturalHeight];
      const canvas = new OffscreenCanvas(...size).getContext("2d"); canvas.drawImage(image, 0, 0);
      return [...canvas.getImageData(0, 0, ...size).data]; }"""
    bomb = bytearray(as_png(pixels))
    bomb[16:24] = (30_000).to_bytes(4, "big") * 2
    with served(folders["x2"]) as url, opened(browser, url, width=320) as watched:
        page = watched.page

        def style(name: str) -> float:
            return float(page.evaluate(f"document.getElementById('view').style.getPropertyValue('{name}')")[:-2])

        choose(watched, "large.png", large)  # before the runtime is there
        watched.wait("#progress[value] + #cancel")
        watched.wait("#status:has-text('large.png: at work')")
        page.click("#cancel")
        watched.wait("#status:has-text('large.png: stopped.')")
        broken = {"bomb": bytes(bomb), "text": b"hello", "empty": b"", "cut": as_png(pixels)[:2000]}
        for name, content in broken.items():
            choose(watched, f"{name}.png", content)
            watched.wait(f"#status.bad:has-text('{name}.png: ')")
            assert page.locator("#view").is_hidden()
            assert page.locator("#working").is_hidden()
        choose(watched, "large.png", large)
        choose(watched, "<b>.png", as_png(pixels))  # instead of the one before
        watched.wait("#before:not([hidden])")
        assert page.locator("#status").text_content().startswith("<b>.png: 140x100 px")
        found = np.array(page.evaluate(read)).reshape(100, 140, 4)[..., :3]
        assert np.abs(found - imresize(pixels, scale=2)).max() <= 2
        page.fill("#at", "20")
        assert style("--at") == style("--cut") == 28
        page.select_option("#zoom", "4")
        assert page.locator("#stage").bounding_box()["width"] == 560
        page.locator("#pane").evaluate("(pane) => (pane.scrollLeft = 100)")
        page.wait_for_function("document.getElementById('view').style.getPropertyValue('--cut') > '0px'")
        page.wait_for_timeout(50)  # the event of scrolling
        assert style("--cut") == style("--at") + 100
        choose(watched, "next.png", as_png(pixels))
        watched.wait("#before:not([hidden])")
        assert page.evaluate("urls.length") == 2
        assert watched.foreign == watched.complaints == []
