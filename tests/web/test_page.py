"""The static page: what is written, what is refused, and what it does in a browser."""

from __future__ import annotations

import functools
import http.server
import io
import json
import stat
import tarfile
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from imdn_kd.archs.base import SRNetwork
from imdn_kd.errors import InputError
from imdn_kd.image.resize import imresize
from imdn_kd.inference.model_file import ModelFile, save_model
from imdn_kd.inference.upscaler import Upscaler
from imdn_kd.registry import ARCHS
from imdn_kd.web import runtime as runtimes
from imdn_kd.web.page import TILE, write_page
from imdn_kd.web.runtime import FILES, runtime_folder
from tests.cli.run import run
from tests.fake_set import picture
from tests.inference.test_cropping import lively
from tests.refused import refused
from tests.web.browser import opened


def network(**options: object) -> SRNetwork:
    torch.manual_seed(0)
    return lively(ARCHS.build({"type": "Plain", "num_feat": 4, "num_block": 2, "upscale": 2, **options}).eval())


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the names of the runtime's files."""
    folder = tmp_path_factory.mktemp("onnxruntime-web")
    (folder / "dist").mkdir()
    for name in (*FILES, "ort.js"):
        (folder / "dist" / name).write_text(name)
    (folder / "package.json").write_text('{"version": "9.9.9"}')
    return folder


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_page_holds_what_it_needs_and_says_what_it_is(package, tmp_path):
    pytest.importorskip("onnxruntime")
    model = ModelFile(network(), card="# <b>\n\n## Data and licences\n\nCC0 & <i>\nfree.\n\n## Limits\n\nmany")
    made = write_page(model, tmp_path / "page", name="<s>", runtime=package)

    assert made.bytes == sum(path.stat().st_size for path in (tmp_path / "page").rglob("*") if path.is_file())
    assert {f"runtime/{name}" for name in (*FILES.values(), "LICENSE.txt")} == {
        name for name in files(tmp_path / "page") if name.startswith("runtime/")
    }
    assert (
        json.loads((tmp_path / "page/model.json").read_text()).items()
        >= {
            **{"name": "<s>", "scale": 2, "channels": 3, "value_range": 1.0, "size_multiple": 1, "min_size": 1},
            **{"overlap": 4, "tile": TILE},
        }.items()
    )
    text = (tmp_path / "page/index.html").read_text()
    assert all(part in text for part in ("&lt;s&gt;", "CC0 &amp; &lt;i&gt; free.", "onnxruntime-web 9.9.9"))
    assert "many" not in text
    assert "$" not in text
    assert [path.name for path in tmp_path.iterdir()] == ["page"]


def test_only_a_page_is_replaced_and_only_if_asked(package, tmp_path):
    pytest.importorskip("onnxruntime")
    page, model = tmp_path / "page", ModelFile(network())
    page.mkdir()
    write_page(model, page, name="first", runtime=package)
    with refused("file.exists"):
        write_page(model, page, name="second", runtime=package)
    (page / "left over").touch()
    write_page(model, page, name="third", runtime=package, overwrite=True)
    assert json.loads((page / "model.json").read_text())["name"] == "third"
    assert not (page / "left over").exists()
    other = tmp_path / "other"
    other.mkdir()
    (other / "model.json").write_text("[]")
    for target in (other, other / "model.json"):
        with refused("file.exists"):
            write_page(model, target, name="x", runtime=package, overwrite=True)
    assert files(other) == {"model.json"}


@pytest.mark.parametrize(
    ("spec", "code"),
    [
        ({"type": "IMDN", "num_feat": 8, "num_block": 1}, "web.cannot-tile"),
        ({"type": "Plain", "num_in_ch": 4}, "web.channels"),
        ({"type": "IMDN_AS", "num_feat": 8, "num_block": 1}, "web.cannot-tile"),
    ],
)
def test_networks_that_a_page_cannot_run_are_refused(spec, code, package, tmp_path):
    with refused(code):
        write_page(ModelFile(ARCHS.build(spec)), tmp_path / "page", name="x", runtime=package)
    assert not [*tmp_path.iterdir()]


def test_the_command_refuses_in_one_line(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    save_model(tmp_path / "imdn.safetensors", ModelFile(ARCHS.build({"type": "IMDN", "num_feat": 8, "num_block": 1})))
    for options in (["--to", "web"], ["--to", "web", "--int8", "--images", "x"], ["--to", "onnx", "--runtime", "x"]):
        done = run(capfd, "export", "imdn.safetensors", *options, "-o", "page")
        assert done.code == 2
        assert len(done.err.strip().splitlines()) == 1
    assert files(tmp_path) == {"imdn.safetensors"}


def test_a_folder_without_the_runtime_is_refused(package, tmp_path):
    with refused("web.runtime-folder"), runtime_folder(tmp_path):
        pass
    (package / "dist/ort.wasm.min.mjs").rename(tmp_path / "away")
    try:
        with refused("web.runtime-folder") as caught, runtime_folder(package):
            pass
        assert "ort.wasm.min.mjs" in str(caught.value)
    finally:
        (tmp_path / "away").rename(package / "dist/ort.wasm.min.mjs")


def test_without_npm_or_with_another_package_nothing_is_used(package, tmp_path, monkeypatch):
    monkeypatch.setattr(runtimes, "user_cache_path", lambda _: tmp_path / "cache")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with refused("web.no-runtime"), runtime_folder():
        pass
    npm = tmp_path / "bin/npm"
    npm.parent.mkdir()
    for content, code in (("exit 1", "web.no-runtime"), ("echo > other.tgz", "web.runtime-integrity")):
        npm.write_text(f"#!/bin/sh\n{content}\n")
        npm.chmod(npm.stat().st_mode | stat.S_IXUSR)
        with refused(code), runtime_folder():
            pass
    assert not (tmp_path / "cache").exists()


def test_what_npm_gave_is_kept(package, tmp_path, monkeypatch):
    monkeypatch.setattr(runtimes, "user_cache_path", lambda _: tmp_path / "cache")
    with tarfile.open(tmp_path / "given.tgz", "w:gz") as archive:
        archive.add(package, "package")
    monkeypatch.setattr(runtimes, "INTEGRITY", runtimes._integrity(tmp_path / "given.tgz"))
    npm = tmp_path / "bin/npm"
    npm.parent.mkdir()
    npm.write_text(f"#!/bin/sh\n/bin/mv {tmp_path / 'given.tgz'} onnxruntime-web.tgz\n")
    npm.chmod(npm.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(npm.parent))
    for _ in range(2):  # the second time npm has nothing to give
        with runtime_folder() as folder:
            assert files(folder) == {"package.json", *(f"dist/{name}" for name in FILES)}


class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def page_url(tmp_path_factory: pytest.TempPathFactory):
    """Where a page is served that runs a small network, with the real runtime."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("playwright")
    folder = tmp_path_factory.mktemp("served") / "page"
    try:
        write_page(ModelFile(network()), folder, name="small")
    except InputError as error:
        if error.code != "web.no-runtime":
            raise
        pytest.skip("needs onnxruntime-web from npm")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def as_png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.mark.slow
@pytest.mark.processes
def test_a_browser_without_a_network_gives_what_the_upscaler_gives(page_url):
    upscaler = Upscaler(network(), device="cpu", engine="torch")
    fade = np.tile(np.linspace(0, 255, 60).astype(np.uint8)[None, :, None], (40, 1, 1))
    cases = {
        **{f"{w}x{h}": picture((h, w), 1) for h, w in ((1, 1), (2, 3), (17, 257), (260, 300), (1000, 1500))},
        "grey": picture((30, 40), 1)[..., 0],
        "alpha": np.concatenate((picture((40, 60), 1), fade), 2),
        "even alpha": np.concatenate((picture((9, 7), 1), np.full((9, 7, 1), 200, np.uint8)), 2),
    }
    with opened(page_url, width=320) as watched:
        page = watched.page
        watched.wait("#runs:has-text('Web')", "attached")
        page.context.set_offline(True)
        for name, pixels in cases.items():
            page.set_input_files("#file", {"name": f"{name}.png", "mimeType": "image/png", "buffer": as_png(pixels)})
            watched.wait(f"#status:has-text('{name}.png: {2 * pixels.shape[1]}x')")
            with page.expect_download() as download:
                page.click("#download")
            assert download.value.suggested_filename == f"{name}_x2.png"
            found, expected = np.asarray(Image.open(download.value.path())).astype(int), upscaler(pixels)
            assert found.shape == expected.shape, name
            error = np.abs(found - expected)
            if pixels.ndim == 3 and pixels.shape[2] == 4:  # browsers hand out colours times alpha
                assert error[..., 3].max() <= 1
                error = error * expected[..., 3:] / 255 / 2
            assert error.max() <= 1, name
        watched.wait("#before:not([hidden])")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert watched.foreign == watched.complaints == []


@pytest.mark.slow
@pytest.mark.processes
def test_a_browser_compares_with_bicubic_stops_and_says_what_is_wrong(page_url):
    large, pixels = picture((700, 800), 1), picture((50, 70), 2)
    read = """() => { const image = document.getElementById("before"), size = [image.naturalWidth, image.naturalHeight];
      const canvas = new OffscreenCanvas(...size).getContext("2d"); canvas.drawImage(image, 0, 0);
      return [...canvas.getImageData(0, 0, ...size).data]; }"""
    bomb = bytearray(as_png(pixels))
    bomb[16:24] = (30_000).to_bytes(4, "big") * 2
    with opened(page_url) as watched:
        page = watched.page

        def choose(name: str, content: bytes) -> None:
            page.set_input_files("#file", {"name": name, "mimeType": "image/png", "buffer": bytes(content)})

        watched.wait("#status:has-text('Ready.')")
        choose("large.png", as_png(large))
        watched.wait("#progress[value]")
        page.click("#cancel")
        for name, content in (("bomb", bomb), ("text", b"hello"), ("empty", b""), ("cut", as_png(pixels)[:2000])):
            choose(f"{name}.png", content)
            watched.wait(f"#status.bad:has-text('{name}.png: ')")
            assert page.locator("#view").is_hidden()
            assert page.locator("#working").is_hidden()
        choose("large.png", as_png(large))
        choose("<b>.png", as_png(pixels))  # instead of the one before
        watched.wait("#before:not([hidden])")
        found = np.array(page.evaluate(read)).reshape(100, 140, 4)[..., :3]
        assert np.abs(found - imresize(pixels, scale=2)).max() <= 2
        page.fill("#at", "20")
        page.select_option("#zoom", "2")
        assert page.locator("#stage").evaluate("(stage) => stage.style.getPropertyValue('--at')") == "20%"
        assert page.locator("#stage").bounding_box()["width"] == 280
        assert page.locator("#status").text_content().startswith("<b>.png: 140x100 px")
    assert watched.foreign == watched.complaints == []
