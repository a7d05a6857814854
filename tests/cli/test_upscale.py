import json
import os
import re
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from imdn_kd import zoo
from imdn_kd.archs import IMDN_RTC
from imdn_kd.inference.model_file import ModelFile, save_model
from imdn_kd.inference.upscaler import Upscaler
from imdn_kd.registry import ARCHS
from tests.basicsr_compat import needs_basicsr
from tests.cli.run import run, started
from tests.shared_data import SHARED, needs_shared


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model") / "student.safetensors"
    save_model(path, ModelFile(IMDN_RTC(num_feat=8, num_block=1)))
    return path


def photo(path, mode="RGB", size=(12, 10)):
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).convert(mode).save(path)
    return path


def size_of(path):
    with Image.open(path) as image:
        return image.size


def test_help_names_every_option(capfd):
    result = run(capfd, "upscale", "--help")
    assert result.code == 0
    for option in ("--output", "--model", "--scale", "--size", "--fit", "--skip-existing", "--json", "--memory"):
        assert option in result.out


def test_one_file_to_a_file_is_what_the_upscaler_gives(capfd, model, tmp_path):
    source = photo(tmp_path / "a.png")
    result = run(capfd, "upscale", source, "-o", tmp_path / "b.png", "--model", model)
    assert (result.code, result.err, result.out.count("\n")) == (0, "", 1)
    with Image.open(source) as before, Image.open(tmp_path / "b.png") as after:
        assert np.array_equal(np.asarray(after), np.asarray(Upscaler(model)(before)))


def test_what_is_done_is_said_file_by_file(capfd, model, tmp_path):
    for name in ("a", "b[1]"):
        photo(tmp_path / "in" / f"{name}.png")
    (tmp_path / "in" / "c.png").write_bytes(b"")
    command = ("upscale", tmp_path / "in", "-o", tmp_path / "out", "-m", model, "--overwrite", "--engine", "torch")
    result = run(capfd, *command, "--device", "cpu")
    *lines, counts = result.out.splitlines()
    start = r"out/(a|b\[1\]).png: 12x10 to 24x20 px, by student in torch, \d+\.\d\d s, \d[\d.e-]* MP/s"
    assert len(lines) == 2
    assert all(re.fullmatch(re.escape(f"{tmp_path}/") + start, line) for line in lines)
    assert re.fullmatch(r"3 files: 2 done, 1 failed; \d+\.\d\d s, \d[\d.e-]* MP/s", counts)
    assert run(capfd, *command, "--quiet") == (1, "", result.err)
    objects = [
        json.loads(line) for line in run(capfd, *command, "--json", "-q", "--precision", "bf16").out.splitlines()
    ]
    documented = " ".join(run(capfd, "upscale", "--help").out.replace("\u2502", " ").split())
    for entry in objects:
        assert all(key in documented for key in entry)
    kept = {
        key: objects[0][key] for key in ("models", "engine", "precision", "device", "input_width", "width", "reason")
    }
    assert [*kept.values()] == [["student"], "torch", "bf16", "cpu", 12, 24, ""]
    assert objects[0]["megapixels_per_second"] > 0
    assert (objects[2]["status"], objects[2]["models"], objects[2]["engine"]) == ("failed", [], None)


def test_the_networks_are_named_in_the_order_in_which_they_run(capfd, tmp_path):
    source = photo(tmp_path / "a.png")
    for scale, names in (("3", ["imdn_rtc_x3"]), ("8", ["imdn_rtc_x4", "imdn_rtc_x2"]), ("1", [])):
        result = run(capfd, "upscale", source, "-o", tmp_path / f"{scale}.png", "--scale", scale, "--fast", "--json")
        assert json.loads(result.out)["models"] == names


@needs_basicsr
def test_a_checkpoint_of_basicsr_enlarges(capfd, tmp_path):
    spec = {"type": "EDSR", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 4, "num_block": 1, "upscale": 2}
    network = ARCHS.build(spec)
    torch.save({"params": network.state_dict()}, tmp_path / "edsr.pth")
    source = photo(tmp_path / "a.png")
    arch = "EDSR: {num_in_ch: 3, num_out_ch: 3, num_feat: 4, num_block: 1, upscale: 2}"
    one = run(capfd, "upscale", source, "-o", tmp_path / "one.png", "-m", tmp_path / "edsr.pth", "--arch", arch)
    options = {"name": "run", "network_g": spec, "path": {"pretrain_network_g": str(tmp_path / "edsr.pth")}}
    (tmp_path / "train.yml").write_text(yaml.safe_dump(options))
    two = run(capfd, "upscale", source, "-o", tmp_path / "two.png", "-opt", tmp_path / "train.yml")
    assert one[::2] == two[::2] == (0, "")
    with Image.open(source) as before:
        expected = np.asarray(Upscaler(network, precision="fp32")(before))
    for name in ("one.png", "two.png"):
        with Image.open(tmp_path / name) as after:
            assert np.array_equal(np.asarray(after), expected)
    assert run(capfd, "upscale", source, "-o", tmp_path / "b.png", "--arch", arch).code == 2


@needs_shared
@pytest.mark.parametrize("name", ["realesr-general-x4v3.pth", "DAT_light_x2_params.pth"])
def test_a_checkpoint_of_spandrel_enlarges(capfd, tmp_path, name):
    pytest.importorskip("spandrel")
    source = photo(tmp_path / "a.png")
    model = SHARED / "weights" / "teachers" / name
    assert run(capfd, "upscale", source, "-o", tmp_path / "b.png", "-m", model)[::2] == (0, "")
    scale = 4 if "x4" in name else 2
    assert size_of(tmp_path / "b.png") == (12 * scale, 10 * scale)


def test_folders_keep_their_structure(capfd, model, tmp_path):
    for name in ("in/a.png", "in/sub/b.jpg", "in/sub/deep/c.bmp", "in/.hidden.png", "in/notes.txt"):
        if name.endswith("txt"):
            (tmp_path / name).write_text("x")
        else:
            photo(tmp_path / name)
    flat = run(capfd, "upscale", tmp_path / "in", "-o", tmp_path / "flat", "-m", model)
    assert flat.out.startswith(f"{tmp_path / 'flat' / 'a.png'}: ")
    deep = run(capfd, "upscale", tmp_path / "in", "-r", "-o", tmp_path / "deep", "-m", model, "--format", "webp")
    assert "\n3 files: 3 done; " in deep.out
    written = sorted(str(path.relative_to(tmp_path / "deep")) for path in (tmp_path / "deep").rglob("*.*"))
    assert written == ["a.webp", "sub/b.webp", "sub/deep/c.webp"]


def test_glob_patterns_and_several_inputs(capfd, model, tmp_path):
    for name in ("x1.png", "x2.png", "y1.png"):
        photo(tmp_path / name)
    result = run(capfd, "upscale", tmp_path / "x*.png", tmp_path / "y1.png", "-o", tmp_path / "out", "-m", model)
    assert "\n3 files: 3 done; " in result.out


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ((), (24, 20)),
        (("--scale", "2.5"), (30, 25)),
        (("--size", "31x17"), (31, 17)),
        (("--fit", "100x50"), (60, 50)),
        (("--self-ensemble",), (24, 20)),
        (("--precision", "bf16"), (24, 20)),
        (("--crop", "local", "--crop-size", "8"), (24, 20)),
        (("--crop", "paper"), (24, 20)),
        (("--memory", "1MiB"), (24, 20)),
    ],
)
def test_options(capfd, model, tmp_path, options, size):
    photo(tmp_path / "a.png")
    result = run(capfd, "upscale", tmp_path / "a.png", "-o", tmp_path / "out", "-m", model, *options)
    assert result.code == 0
    assert size_of(tmp_path / "out" / "a.png") == size


@pytest.mark.parametrize(("memory", "lines"), [("500MB", 1), ("1199MB", 1), ("1.2GB", 0), ("2GiB", 0)])
def test_less_memory_than_pytorch_needs_is_told(capfd, model, tmp_path, memory, lines):
    source = photo(tmp_path / "a.png")
    result = run(capfd, "upscale", source, "-o", tmp_path / "out", "-m", model, "--memory", memory, "--device", "cpu")
    assert (result.code, result.err.count("\n")) == (0, lines)


def test_options_reach_the_upscaler(capfd, model, tmp_path, monkeypatch):
    seen = {}

    class Spy(Upscaler):
        def __init__(self, *arguments, **keywords):
            seen.update(keywords)
            super().__init__(*arguments, **keywords)

    monkeypatch.setattr("imdn_kd.inference.upscaler.Upscaler", Spy)
    options = ("--self-ensemble", "--precision", "bf16", "--crop", "local", "--crop-size", "8", "--memory", "2MB")
    options += ("--device", "cpu", "--scratch", tmp_path, "--engine", "torch")
    run(capfd, "upscale", photo(tmp_path / "a.png"), "-o", tmp_path / "out", "-m", model, *options)
    assert seen == {
        "self_ensemble": True,
        "precision": "bf16",
        "engine": "torch",
        "crop": "local",
        "crop_size": 8,
        "memory": 2_000_000,
        "device": "cpu",
        "scratch": tmp_path,
        "fast": False,
    }


def test_nothing_is_overwritten_silently(capfd, model, tmp_path):
    source, target = photo(tmp_path / "a.png"), tmp_path / "out" / "a.png"
    target.parent.mkdir()
    target.write_bytes(b"precious")
    refused = run(capfd, "upscale", source, "-o", target.parent, "-m", model)
    assert refused.code == 1
    assert "--overwrite" in refused.err
    assert target.read_bytes() == b"precious"
    skipped = run(capfd, "upscale", source, "-o", target.parent, "-m", model, "--skip-existing")
    assert skipped == (0, f"{target}: exists already, skipped\n", "")
    assert target.read_bytes() == b"precious"
    assert run(capfd, "upscale", source, "-o", target.parent, "-m", model, "--overwrite").code == 0
    assert size_of(target) == (24, 20)


def test_the_input_itself_is_not_overwritten(capfd, model, tmp_path):
    source = photo(tmp_path / "a.png")
    before = source.read_bytes()
    result = run(capfd, "upscale", source, "-o", tmp_path, "-m", model, "--overwrite")
    assert result.code == 2
    assert "would replace an input" in result.err
    assert source.read_bytes() == before


def test_no_other_input_is_overwritten_either(capfd, model, tmp_path):
    photo(tmp_path / "a" / "x.png")
    other = photo(tmp_path / "b" / "sub" / "x.png")
    before = other.read_bytes()
    folders = (tmp_path / "a", other.parent)
    result = run(capfd, "upscale", *folders, "-o", other.parent, "-m", model, "--overwrite")
    assert result.code == 2
    assert "would replace an input" in result.err
    assert other.read_bytes() == before


def test_results_below_the_input_are_not_enlarged_again(capfd, model, tmp_path):
    photo(tmp_path / "a.png")
    for expected in ("12x10 to 24x20 px", "exists already, skipped"):
        result = run(capfd, "upscale", tmp_path, "-r", "-o", tmp_path / "out", "-m", model, "--skip-existing")
        assert (expected in result.out, result.out.count("\n")) == (True, 1)


def test_folders_that_cannot_be_looked_into_are_one_line(capfd, model, tmp_path, monkeypatch):
    def refuse(self, **_):
        raise PermissionError(13, "Permission denied", str(self))

    source = photo(tmp_path / "a.png")
    monkeypatch.setattr("imdn_kd.inference.file_jobs.Path.exists", refuse)
    result = run(capfd, "upscale", source, "-o", tmp_path / "out", "-m", model)
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert "Permission denied" in result.err


def test_one_bad_file_does_not_stop_the_rest(capfd, model, tmp_path):
    folder = tmp_path / "in"
    photo(folder / "a.png")
    (folder / "b.png").write_bytes((folder / "a.png").read_bytes()[:80])
    photo(folder / "c.png")
    result = run(capfd, "upscale", folder, "-o", tmp_path / "out", "-m", model, "--json")
    assert result.code == 1
    assert result.err.startswith(f"imdn-kd: {folder / 'b.png'}: ")
    assert result.err.count("\n") == 1
    report = [json.loads(line) for line in result.out.splitlines()]
    assert [entry["status"] for entry in report] == ["done", "failed", "done"]
    assert report[0]["width"] == 24
    assert report[1]["reason"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "c.png"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("none.png", "-o", "out", "-m", "MODEL"), "none.png: no such file"),
        (("empty", "-o", "out", "-m", "MODEL"), "no image found in empty"),
        (("a.png", "-o", "out"), "--model FILE"),
        (("a.png", "-o", "out", "-m", "nothing.pth"), "nothing.pth: no such model file"),
        (("a.png", "-o", "out", "-m", "a.png"), "a.png: not a model file"),
        (("a.png", "-o", "out", "-m", "MODEL", "--scale", "0.5"), "scale 0.5"),
        (("a.png", "-o", "out", "-m", "MODEL", "--scale", "0"), "scale 0"),
        (("a.png", "-o", "out", "-m", "MODEL", "--scale", "x"), "--scale"),
        (("a.png", "-o", "out", "-m", "MODEL", "--scale", "2", "--fit", "9x9"), "one of scale, size and fit"),
        (("a.png", "-o", "out", "-m", "MODEL", "--size", "big"), "WIDTHxHEIGHT"),
        (("a.png", "-o", "out", "-m", "MODEL", "--memory", "lots"), "as in 2GiB"),
        (("a.png", "-o", "out", "-m", "MODEL", "--format", "doc"), ".doc"),
        (("a.png", "-o", "out", "-m", "MODEL", "--device", "toaster"), "toaster"),
        (("a.png", "-o", "out", "-m", "MODEL", "--scal", "2"), "--scal"),
        (("a.png", "a.bmp", "-o", "out", "-m", "MODEL", "--format", "png"), "would both become"),
        (("a.png", "a.bmp", "-o", "a.png", "-m", "MODEL"), "give a folder"),
        (("a.png", "a.bmp", "-o", "out.png", "-m", "MODEL"), "give a folder"),
        (("a.png", "-o", "out/a.gif", "-m", "MODEL"), "change its suffix"),
        (("a.png", "-o", "out.xyz", "-m", "MODEL"), "change its suffix"),
        (("a.png", "-o", "out/a.png", "-m", "MODEL", "--format", "jpg"), "change its suffix"),
        (("a.png", "-o", "out", "-m", "MODEL", "--device", "meta"), "meta"),
        (("a.png", "-o", "out", "-m", "MODEL", "--memory", "9" * 400), "memory"),
        ((), "INPUT"),
    ],
)
def test_bad_requests_are_one_line_and_write_nothing(capfd, model, tmp_path, monkeypatch, arguments, message):
    monkeypatch.setattr(zoo, "students", list)
    monkeypatch.chdir(tmp_path)
    photo(tmp_path / "a.png")
    photo(tmp_path / "a.bmp")
    (tmp_path / "empty").mkdir()
    arguments = [str(model) if argument == "MODEL" else argument for argument in arguments]
    result = run(capfd, "upscale", *arguments)
    assert result.code == 2
    assert result.out == ""
    assert result.err.count("\n") == 1
    assert message in result.err
    assert not list(tmp_path.glob("out*"))


def test_distortion_is_told_on_the_error_stream(capfd, model, tmp_path):
    source = photo(tmp_path / "a.png")
    result = run(capfd, "upscale", source, "-o", tmp_path / "out", "-m", model, "--size", "9x30")
    assert (result.code, result.err.count("\n")) == (0, 1)
    assert result.err.startswith(f"imdn-kd: {source}: ")


@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_signals_leave_whole_files_and_a_report(capfd, model, tmp_path, monkeypatch, number):
    """A signal while the second picture is written; a closed terminal sends more than one."""
    for name in ("a.png", "b.png", "c.png"):
        photo(tmp_path / "in" / name)
    before = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)]
    write, seen = Path.write_bytes, []

    def write_and_stop(path, data):
        write(path, data[:20])
        seen.append(path)
        if len(seen) == 2:
            try:
                os.kill(os.getpid(), number)
            finally:
                if number != signal.SIGINT:
                    os.kill(os.getpid(), number)
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", write_and_stop)
    result = run(capfd, "upscale", tmp_path / "in", "-o", tmp_path / "out", "-m", model, "--json")
    assert result.code == 128 + number
    (entry,) = map(json.loads, result.out.splitlines())
    assert (entry["output"], entry["status"]) == (str(tmp_path / "out" / "a.png"), "done")
    assert "2 of 3 images left" in result.err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.png"]
    assert size_of(tmp_path / "out" / "a.png") == (24, 20)
    assert [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)] == before


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_a_closed_terminal_does_not_end_what_nohup_started(capfd, model, tmp_path, monkeypatch):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        write = Path.write_bytes

        def write_and_hang_up(path, data):
            os.kill(os.getpid(), signal.SIGHUP)
            return write(path, data)

        monkeypatch.setattr(Path, "write_bytes", write_and_hang_up)
        source = photo(tmp_path / "a.png")
        assert run(capfd, "upscale", source, "-o", tmp_path / "out", "-m", model)[::2] == (0, "")
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.processes
def test_ctrl_c_leaves_whole_files_only_and_says_how_to_go_on(model, tmp_path):
    for number in range(30):
        photo(tmp_path / "in" / f"{number:02}.png", size=(200, 200))
    with started("upscale", tmp_path / "in", "-o", tmp_path / "out", "-m", model, "--self-ensemble") as process:
        while not list((tmp_path / "out").glob("[0-9]*")):
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        err = process.stderr.read()
    assert process.returncode == 130
    assert "go on with --skip-existing" in err
    written = list((tmp_path / "out").iterdir())
    assert 0 < len(written) < 30
    assert all(size_of(path) == (400, 400) for path in written)
