"""`-q`: only warnings and errors are printed."""

import pytest
import yaml
from PIL import Image
from typer.main import get_command

from imdn_kd.cli import app
from tests.cli.run import run
from tests.fake_set import picture
from tests.training.small_runs import content, make_data

PROGRESS = {
    *("train", "study", "cache-teacher", "upscale", "benchmark", "compare", "profile", "export", "prepare", "verify"),
    *("zoo train", "zoo publish"),
}
"""The commands that show a bar."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = make_data(tmp_path_factory.mktemp("quiet"))
    for name in ("a", "b"):
        Image.fromarray(picture((24, 32), 0)).save(root / f"{name}.png")
    teacher = {"network_t": {"weights": "imdn_rtc_x2"}, "train": {"total_iter": 3, "scheduler": None}}
    distill = {"distill": {"cache": True, "check_images": 0, "objectives": {"l_kd": {"type": "L1Loss"}}}}
    (root / "run.yml").write_text(yaml.safe_dump(content(root, {**teacher, **distill})))
    return root


@pytest.mark.parametrize(
    "command",
    [
        "upscale a.png b.png -o large --scale 2",
        "benchmark --model bicubic --data held_out --scale 2",
        "compare a.png b.png -o page.html",
        "profile --model imdn_rtc_x2 --size 64x36 --runs 1",
        "prepare folder held_out --scale 2 -o mine.store",
        "verify sample.store",
        "cache-teacher -opt run.yml",
        "train -opt run.yml --root runs",
    ],
)
def test_nothing_is_printed(folder, capfd, monkeypatch, command):
    monkeypatch.chdir(folder)
    assert run(capfd, *command.split(), "-q") == (0, "", "")


def test_every_command_with_a_bar_has_it():
    quiet = set()
    for name, command in get_command(app).commands.items():
        for path, each in [(name, command), *((f"{name} {k}", v) for k, v in getattr(command, "commands", {}).items())]:
            quiet |= {path} if any("-q" in parameter.opts for parameter in each.params) else set()
    assert quiet >= PROGRESS
