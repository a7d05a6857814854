"""The page, in a headless Chromium as wide as a phone."""

import shutil
import threading
from urllib.parse import urlsplit

import pytest

from tests.cli.run import run
from tests.serve.test_endpoint import until

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-headless-shell", "google-chrome"))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.processes,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium"),
]


@pytest.fixture(scope="module")
def browser(served):
    sync = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    with sync.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield found
        found.close()


@pytest.fixture(scope="module")
def asked():
    """Addresses that the page asked for."""
    return []


@pytest.fixture(scope="module")
def page(browser, served, asked):
    page = browser.new_page(viewport={"width": 375, "height": 800})
    page.set_default_timeout(120_000)
    page.on("request", lambda request: asked.append(request.url))
    page.goto(served.address)
    page.wait_for_selector("#go")
    yield page
    page.close()


def put(page, path):
    """Give the page a file in the place of the former."""
    former = page.locator("#file button[aria-label=Clear]")
    if former.count():
        former.click()
    page.set_input_files("#file input[type=file]", path)
    page.wait_for_selector(f"#file :text('{path.stem}')")


def test_a_visitor_upscales_compares_and_downloads(page, asked, served, pictures, tmp_path, capfd):
    put(page, pictures["photo.jpg"])
    page.get_by_label("Scale", exact=True).fill("3")
    page.click("#go")
    page.wait_for_selector("#facts :text('31x20 to 93x60 px by plain_m_x3 in torch')")
    cut = "parseFloat(document.querySelectorAll('#slider img')[1].style.clipPath.split(' ')[3])"
    page.wait_for_function(f"{cut} == 50")  # percent, once the page is laid out
    knob = page.locator("[data-testid=slider]").bounding_box()
    middle = knob["x"] + knob["width"] / 2, knob["y"] + knob["height"] / 2
    page.mouse.move(*middle)
    page.mouse.down()
    page.mouse.move(middle[0] + 60, middle[1], steps=4)
    page.mouse.up()
    page.wait_for_function(f"{cut} > 60")
    assert page.locator("#crops figcaption").all_inner_texts() == ["bicubic", "student"]
    seen = page.evaluate("[...document.images].map(each => [each.naturalWidth, each.naturalHeight])")
    assert seen == [[93, 60]] * 4
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    with page.expect_download() as download:
        page.click("#download")
    run(capfd, "upscale", pictures["photo.jpg"], "-o", tmp_path, "--scale", 3, "--engine", "torch")
    assert download.value.suggested_filename == "photo_x3.jpg"
    assert download.value.path().read_bytes() == (tmp_path / "photo.jpg").read_bytes()
    hosts = {urlsplit(url).netloc for url in asked if urlsplit(url).scheme not in ("data", "blob")}
    assert hosts == {urlsplit(served.address).netloc}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("bomb.png", "bomb.png: has 30000x30000 px, 900 MP, and this server takes 200 MP at most"),
        ("text.png", "text.png: is not an image that can be read, or is damaged"),
    ],
)
def test_what_cannot_be_done_is_said_and_the_page_stays_up(page, pictures, large, tmp_path, name, said):
    (tmp_path / "text.png").write_text("no picture")
    put(page, large.get(name, tmp_path / name))
    page.click("#go")
    page.wait_for_selector(f"[data-testid=toast-body] :text('{said}')")
    assert page.locator("#download").is_disabled()
    assert page.locator("#facts").inner_text().strip() == ""
    page.click("[data-testid=toast-close]")
    put(page, pictures["dot.png"])
    page.click("#go")
    page.wait_for_selector("#facts :text('1x1 to 3x3 px')")


def test_a_visitor_waits_and_stops_or_leaves(page, browser, served, pictures):
    gate = threading.Event()
    try:
        served.queue._pool.submit(gate.wait)  # the worker is held
        put(page, pictures["dot.png"])
        page.click("#go")
        until(lambda: len(served.queue._entries) == 1)
        other = browser.new_page()
        other.goto(served.address)
        put(other, pictures["dot.png"])
        other.click("#go")
        other.wait_for_selector(":text('waiting, 1 before this one')")
        page.get_by_role("button", name="Stop").click()
        page.wait_for_selector("#facts :text('stopped')")
        until(lambda: len(served.queue._entries) == 1)
        other.close()
        until(lambda: not served.queue._entries)
    finally:
        gate.set()
