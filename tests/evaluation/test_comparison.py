"""Comparison pages: figures, places and maps, and that the page is whole, safe and usable."""

from __future__ import annotations

import base64
import io
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from imdn_kd.evaluation.compare_page import page, write_page
from imdn_kd.evaluation.comparison import compare_pictures
from imdn_kd.evaluation.crops import most_different
from imdn_kd.evaluation.metrics import psnr, ssim
from tests.fake_set import picture
from tests.refused import refused

HR = picture((60, 90), 1)
DARKER = HR // 2
MARKED = HR.copy()
MARKED[20:30, 40:50] ^= 0x80


def test_the_most_different_places_hold_what_differs_and_do_not_overlap():
    base = np.zeros((50, 70, 3), np.uint8)
    other = base.copy()
    other[5:15, 55:65] = 9  # 2,700
    other[40:44, 3:7] = 200  # 9,600
    assert most_different([base, other], side=10, count=3) == [(34, 0, 10, 10), (5, 55, 10, 10)]
    assert most_different([base, base], side=10) == [(0, 0, 10, 10)]
    assert most_different([base[:4, :2], other[:4, :2]], side=10) == [(0, 0, 4, 2)]

    places = most_different([HR, DARKER, MARKED], side=16, count=5)
    covered = np.zeros(HR.shape[:2], int)
    for top, left, height, width in places:
        covered[top : top + height, left : left + width] += 1
    assert len(places) == 5
    assert covered.max() == 1


def test_figures_and_maps_are_those_of_the_pictures():
    found = compare_pictures([("darker", DARKER), ("marked", MARKED)], HR, scale=2)
    hr, darker, marked = found.pictures
    assert (hr.psnr, hr.error, found.reference) == (None, None, "HR")
    assert (darker.psnr, darker.ssim) == (psnr(DARKER, HR, 2), ssim(DARKER, HR, 2))
    assert marked.error.max() == 128
    assert np.count_nonzero(marked.error) == 100
    assert "2 px cut" in found.protocol

    alone = compare_pictures([("hr", HR), ("darker", DARKER)])
    assert [each.psnr for each in alone.pictures] == [None, None]
    assert alone.pictures[0].error is None
    assert np.array_equal(alone.pictures[1].error, darker.error)


def test_an_hr_image_may_be_a_few_pixels_larger():
    cut = HR[:57, :88]
    found = compare_pictures([("cut", cut)], HR, scale=2)
    assert found.pictures[1].psnr == float("inf")
    for other in (HR[:57, :90], HR[:40, :60]):
        with refused("compare.size") as caught:
            compare_pictures([("a", cut), ("b", other)])
        assert len(caught.value.lines) == 1
    with refused("compare.size"):
        compare_pictures([("small", HR[:50])], HR)
    with refused("compare.size"):
        compare_pictures([("large", HR)], HR[:59])
    with refused("compare.too-few"):
        compare_pictures([("alone", HR)])


class Page(HTMLParser):
    """What a page consists of; refuses tags that do not close."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.ids, self.text = [], [], [], ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.ids += [value for key, value in attributes if key == "id"]
        if tag not in ("meta", "img", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        # The end of an option may be left out.
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def shown():
    name = '<script>alert("1")</script> & $title.png'
    return page(compare_pictures([(name, DARKER), ("marked.png", MARKED)], HR, 2), name), name


def test_a_page_is_whole_and_asks_for_nothing_else(shown):
    text, name = shown
    found = Page(text)
    assert not found.open
    assert len({*found.ids}) == len(found.ids)
    assert {*re.findall(r'find\("(\w+)"\)', text)} <= {*found.ids}
    assert not re.search(r"https?:|//[a-z]|url\(|@import", re.sub(r"base64,[^\"]*", "", text))
    for tag, attributes in found.tags:
        assert tag not in ("link", "iframe", "object")
        assert not {"srcset", "href", "action", "onclick", "onload"} & {*attributes}
        assert attributes.get("src", "data:").startswith("data:")
    assert [tag for tag, _ in found.tags].count("script") == 1
    assert found.text.count(name) >= 3


def test_every_picture_of_a_page_is_lossless_and_has_a_text(shown):
    found = Page(shown[0])
    images = [attributes for tag, attributes in found.tags if tag == "img" and "src" in attributes]
    assert all(attributes["alt"] for attributes in images)
    pixels = {
        attributes["alt"]: np.asarray(Image.open(io.BytesIO(base64.b64decode(attributes["src"].partition(",")[2]))))
        for attributes in images
    }
    assert np.array_equal(pixels["HR"], HR)
    assert np.array_equal(pixels["marked.png"], MARKED)
    assert pixels["error of marked.png"].shape == HR.shape[:2]
    assert pixels["error of marked.png"][25, 45] > 0
    assert pixels["error of marked.png"][19, 45] == 0
    for control in (attributes for tag, attributes in found.tags if tag == "input"):
        assert control["aria-label"]


def test_pages_that_are_there_stay(tmp_path):
    found = compare_pictures([("a", HR), ("b", MARKED)])
    write_page(found, tmp_path / "page.html", title="t")
    with refused("file.exists"):
        write_page(found, tmp_path / "page.html", title="other")
    write_page(found, tmp_path / "page.html", title="other", overwrite=True)
    assert "<h1>other</h1>" in (tmp_path / "page.html").read_text()
    assert len([*tmp_path.iterdir()]) == 1


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-headless-shell", "google-chrome"))), None)


@pytest.mark.processes
@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
@pytest.mark.parametrize("width", [320, 1280])
def test_a_browser_runs_the_page_without_scrolling_sideways(shown, tmp_path, width):
    """In a narrow window too; what the script found is written into the title, which the browser prints."""
    probe = """<script>
    addEventListener("load", () => {
      const stage = document.getElementById("stage"), range = document.getElementById("at");
      range.value = 20; range.dispatchEvent(new Event("input"));
      const right = document.getElementById("right"); right.value = 0; right.dispatchEvent(new Event("change"));
      document.title = JSON.stringify([
        document.documentElement.scrollWidth <= innerWidth, stage.style.getPropertyValue("--at"),
        stage.children[1].alt, !document.getElementById("slider").hidden, stage.getBoundingClientRect().width > 200,
      ]);
    });
    </script></body>"""
    path = tmp_path / "page.html"
    path.write_text(shown[0].replace("</body>", probe), encoding="utf-8")
    options = "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-sync"
    command = [CHROMIUM, *options.split(), f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},700"]
    result = subprocess.run([*command, "--dump-dom", path.as_uri()], capture_output=True, text=True, timeout=120)
    assert '<title>[true,"20%","HR",true,true]</title>' in result.stdout, result.stderr
