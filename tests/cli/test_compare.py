"""`imdn-kd compare`."""

import re

import numpy as np
import pytest

from imdn_kd.evaluation.metrics import psnr
from imdn_kd.image.io import Picture, write_image
from imdn_kd.image.resize import imresize
from tests.cli.run import run
from tests.fake_set import picture


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    hr = picture((41, 62), 3)
    write_image(folder / "hr.png", Picture(hr))
    write_image(folder / "a.png", Picture(hr // 2))
    (folder / "other").mkdir()
    write_image(folder / "other" / "a.png", Picture(hr // 3))
    write_image(folder / "grey16.png", Picture(hr[..., 0].astype(np.uint16) * 257))
    write_image(folder / "small.png", Picture(hr[:20, :31]))
    write_image(folder / "tiny.png", Picture(hr[:1, :1]))
    write_image(folder / "clear.png", Picture(np.dstack([hr, hr[..., 0] // 2])))
    return folder


def test_pictures_with_the_ground_truth(files, tmp_path, capfd):
    target = tmp_path / "sub" / "page.html"
    given = [files / name for name in ("a.png", "other/a.png", "grey16.png")]
    result = run(capfd, "compare", *given, "--hr", files / "hr.png", "-o", target)
    assert result.code == 0, result.err
    assert result.out == f"{target}: 4 pictures of 62x41 px\n"
    text = target.read_text()
    assert str(files / "other" / "a.png") in text
    assert f"<td>{psnr(picture((41, 62), 3) // 2, picture((41, 62), 3), 1):.2f}</td>" in text


def test_models_on_a_picture_and_on_one_that_is_made_of_the_ground_truth(files, tmp_path, capfd):
    names = ("--model", "plain_m_x2", "--model", "imdn_rtc_x2")
    result = run(capfd, "compare", files / "small.png", *names, "-o", tmp_path / "a.html")
    assert (result.code, result.out) == (0, f"{tmp_path / 'a.html'}: 3 pictures of 62x40 px\n"), result.err
    assert "PSNR, dB" not in (tmp_path / "a.html").read_text()

    labels = ("--label", "distilled <1>", "--label", "teacher")
    result = run(capfd, "compare", "--hr", files / "hr.png", *names, *labels, "-o", tmp_path / "b.html")
    rows = re.findall(r'<tr><th scope="row">(.*?)</th>', (tmp_path / "b.html").read_text())
    assert rows[:4] == ["HR", "bicubic", "distilled &lt;1&gt;", "teacher"]
    assert (result.code, result.out) == (0, f"{tmp_path / 'b.html'}: 4 pictures of 62x40 px\n"), result.err
    hr = picture((41, 62), 3)[:40]
    figures = re.findall(r"<td>(\d\d\.\d\d)</td>", (tmp_path / "b.html").read_text())
    assert figures[0] == f"{psnr(imresize(imresize(hr, 1 / 2), 2), hr, 2):.2f}"


@pytest.mark.parametrize(
    "arguments",
    [
        ["a.png"],
        [],
        ["small.png", "--model", "plain_m_x2", "--model", "imdn_rtc_x2", "--label", "one"],
        ["a.png", "small.png"],
        ["a.png", "--hr", "small.png"],
        ["a.png", "no.png"],
        ["a.png", "clear.png"],
        ["a.png", "hr.png", "-o", "page.png"],
        ["a.png", "hr.png", "-o", "exists.html"],
        ["a.png", "hr.png", "--model", "plain_m_x2"],
        ["--model", "plain_m_x2"],
        ["a.png", "--model", "plain_m_x2", "--model", "plain_m_x3"],
        ["a.png", "--model", "plain_x"],
        ["--hr", "tiny.png", "--model", "plain_m_x2"],
    ],
)
def test_what_cannot_be_compared_is_said_in_one_line(files, tmp_path, capfd, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "exists.html").write_text("mine")
    given = [files / each if each.endswith(".png") and each != "page.png" else each for each in arguments]
    result = run(capfd, "compare", *given)
    assert (result.code, result.err.count("\n")) == (2, 1), result.err
    assert [path.name for path in tmp_path.iterdir()] == ["exists.html"]
    assert (tmp_path / "exists.html").read_text() == "mine"


def test_the_smallest_pictures(files, tmp_path, capfd):
    tiny = files / "tiny.png"
    result = run(capfd, "compare", tiny, tiny, "--hr", tiny, "-o", tmp_path / "x.html")
    assert result.code == 0, result.err
    assert "<td>inf</td><td>-</td>" in (tmp_path / "x.html").read_text()
