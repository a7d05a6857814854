"""Names of models in tables."""

from pathlib import Path

import pytest

from imdn_kd.inference.model_names import names_of


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in (
        *("a/models/net_g_latest.pth", "a/models/net_g_best_psnr.safetensors", "a/models/net_g_5000.pth"),
        *("b/models/net_g_latest.pth", "other/a/models/net_g_latest.pth", "IMDN_x4.pth", "other/IMDN_x4.pth"),
        *("models/net_g_latest.pth", "net_g_latest.pth", "a/models/mine.pth", "a.pth"),
    ):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("models", "names"),
    [
        (["imdn_rtc_x4", "bicubic"], ["imdn_rtc_x4", "bicubic"]),
        (["a/models/net_g_latest.pth"], ["a"]),
        (["a/models/net_g_latest.pth", "b/models/net_g_latest.pth"], ["a", "b"]),
        (
            ["a/models/net_g_latest.pth", "b/models/net_g_latest.pth", "a/models/net_g_best_psnr.safetensors"],
            ["a (latest)", "b", "a (best_psnr)"],
        ),
        (["a/models/net_g_5000.pth", "a/models/net_g_latest.pth"], ["a (5000)", "a (latest)"]),
        (["a/models/net_g_latest.pth", "other/a/models/net_g_latest.pth"], None),
        (["IMDN_x4.pth"], ["IMDN_x4"]),
        (["IMDN_x4.pth", "other/IMDN_x4.pth"], None),
        (["net_g_latest.pth", "a/models/mine.pth"], ["net_g_latest", "mine"]),
        (["a.pth", "a/models/net_g_latest.pth"], ["a.pth", "a (latest)"]),
        (["a/models/net_g_latest.pth", "./a/models/net_g_latest.pth"], None),
    ],
)
@pytest.mark.usefixtures("files")
def test_names_are_as_short_as_tells_them_apart(models, names):
    assert names_of(models) == (names or models)


def test_a_run_is_named_from_inside_its_folder(files, monkeypatch):
    monkeypatch.chdir(files / "a" / "models")
    assert names_of([Path("net_g_latest.pth")]) == ["a"]
