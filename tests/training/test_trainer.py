"""The loop against one that was written by hand, and what it leaves."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from imdn_kd import __version__
from imdn_kd.archs.quantize import quantize, ranges_of
from imdn_kd.evaluation.benchmark import benchmark, open_upsamplers
from imdn_kd.image.io import Picture, write_image
from imdn_kd.image.resize import imresize
from imdn_kd.inference.model_file import load_model
from imdn_kd.inference.weights import read_weights
from imdn_kd.registry import ARCHS
from imdn_kd.training import best_checkpoint as module
from imdn_kd.training.optim import make_ema
from imdn_kd.training.run import check, prepare
from imdn_kd.training.setup import open_inputs, train_setup
from imdn_kd.training.trainer import DivergedError
from tests.fake_set import picture
from tests.refused import refused
from tests.training.small_runs import (
    bare_loop,
    flat,
    metrics,
    small_options,
    state_file,
    train,
    with_validation,
)

GOLDEN = Path(__file__).with_name("golden_curve.json")


def losses_of(root):
    return [record["losses"]["l_pix"] for record in metrics(root) if "losses" in record]


def test_golden_loss_curve(data, tmp_path):
    """A change that moves this curve changes what every user gets: say so in the changelog.

    The curve was made by `bare_loop`, not by the trainer.
    """
    changes = {"train": {"total_iter": 30}, "logger": {"print_freq": 1}}
    options = small_options(data, changes)
    train(options, tmp_path)

    assert losses_of(tmp_path) == pytest.approx(json.loads(GOLDEN.read_text()), rel=1e-4)


VARIANTS = {
    "plain": ({}, None),
    "accumulation": ({"train": {"accumulation": 3}}, None),
    "clipped": ({"train": {"grad_clip": 0.05}}, 0.05),
    "warm-up": ({"train": {"warmup_iter": 5}}, None),
    "contiguous": ({"train": {"channels_last": False}}, None),
    "progressive": (
        {"datasets": {"train": {"gt_sizes": [16, 32], "mini_batch_sizes": [8, 2], "iters": [5, 7]}}},
        None,
    ),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_iterations_are_those_of_a_loop_written_by_hand(data, tmp_path, name):
    changes, clip = VARIANTS[name]
    options = small_options(data, {**changes, "logger": {"print_freq": 1}})
    warm_up = options.train.warmup_iter

    def rate(step):
        return 2e-3 * ((step + 1) / warm_up if step + 1 < warm_up else 0.5 if step >= 8 else 1.0)

    losses, weights = bare_loop(options, check(options, root=tmp_path).loader.images, 12, rate=rate, clip=clip)
    trainer, result = train(options, tmp_path)

    assert result.step == 12
    assert losses_of(tmp_path) == pytest.approx(losses, rel=1e-5)
    for key, value in trainer.network.state_dict().items():
        torch.testing.assert_close(value, weights[key], rtol=1e-4, atol=1e-5)


def test_a_line_of_the_log_is_the_mean_since_the_last_one(data, tmp_path):
    for name, freq in (("each", 1), ("third", 3)):
        train(small_options(data, {"logger": {"print_freq": freq}}), tmp_path / name)
    each, third = (losses_of(tmp_path / name) for name in ("each", "third"))

    assert third == pytest.approx([sum(each[k : k + 3]) / 3 for k in range(0, 12, 3)], rel=1e-12)


def test_mixed_precision_trains_as_fp32_does_nearly_and_is_judged_in_fp32(data, tmp_path):
    changes = {**with_validation(data), "logger": {"print_freq": 1}}
    for precision in ("fp32", "bf16"):
        trainer, _ = train(small_options(data, {**changes, "train": {"precision": precision}}), tmp_path / precision)
    lq = torch.rand(1, 3, 8, 8)

    assert losses_of(tmp_path / "bf16") == pytest.approx(losses_of(tmp_path / "fp32"), rel=0.02)
    assert losses_of(tmp_path / "bf16") != losses_of(tmp_path / "fp32")
    seen = []
    layer = trainer.network.get_submodule("IMDB1.c1")
    layer.register_forward_hook(lambda layer, args, output: seen.append(output.dtype))
    trainer.network(lq)
    judged = trainer._tracker._network
    judged.get_submodule("IMDB1.c1").register_forward_hook(lambda *args: seen.append(args[2].dtype))
    judged(lq)
    assert seen == [torch.bfloat16, torch.float32]


def test_two_losses_are_logged_apart_and_summed(data, tmp_path):
    fft = {"train": {"fft_opt": {"type": "FFTLoss", "loss_weight": 0.05}}, "logger": {"print_freq": 1}}
    trainer, _ = train(small_options(data, fft), tmp_path)
    record = metrics(tmp_path)[0]["losses"]
    torch.manual_seed(0)
    network = ARCHS.build(trainer.options.network_g.spec())
    (batch,) = next(trainer._loader.batches(0, 1, torch.device("cpu")))
    difference = network(batch["lq"]) - batch["gt"]

    assert record["l_pix"] == pytest.approx(difference.abs().mean().item(), rel=1e-5)
    spectrum = torch.view_as_real(torch.fft.rfft2(difference)).abs().mean().item()
    assert record["l_fft"] == pytest.approx(0.05 * spectrum, rel=1e-5)


def test_the_average_follows_parameters_and_buffers_and_leaves_whole_numbers_whole():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.tensor([1.0]))
            self.register_buffer("statistics", torch.tensor([5.0]))
            self.register_buffer("index", torch.arange(300))

    network = Net()
    average = make_ema(network, 0.9, torch.device("cpu"))
    average.update_parameters(network)
    with torch.no_grad():
        network.weight.fill_(2.0)
        network.statistics.fill_(6.0)
    for _ in range(2):
        average.update_parameters(network)

    assert average.module.weight.item() == pytest.approx(2 - 0.9**2)
    assert average.module.statistics.item() == pytest.approx(6 - 0.9**2)
    assert torch.equal(average.module.index, torch.arange(300))


def test_the_average_is_what_is_saved(data, tmp_path):
    trainer, result = train(small_options(data), tmp_path)
    models = tmp_path / "run" / "models"
    params, averaged = (read_weights(models / "net_g_12.pth", key) for key in ("params", "params_ema"))

    assert isinstance(trainer.ema, AveragedModel)
    assert flat(params) == flat(trainer.network.state_dict())
    assert flat(averaged) == flat(trainer.ema.module.state_dict())
    assert flat(params) != flat(averaged)
    assert flat(load_model(result.model).network.state_dict()) == flat(averaged)


def test_without_an_average_the_weights_themselves_are(data, tmp_path):
    trainer, result = train(small_options(data, {"train": {"ema_decay": None}}), tmp_path)

    assert flat(load_model(result.model).network.state_dict()) == flat(trainer.network.state_dict())
    assert list(torch.load(tmp_path / "run" / "models" / "net_g_12.pth")) == ["params"]


def scores_of(monkeypatch, values):
    """Let validation give these values, one after the other, instead of measuring."""
    real = module.validate
    left = iter(values)

    def fake(*args, **keywords):
        value = next(left)
        scores = real(*args, **keywords)
        images = [dataclasses.replace(image, psnr=value[0], ssim=value[1]) for image in scores[0].images]
        return [dataclasses.replace(scores[0], images=tuple(images))]

    monkeypatch.setattr(module, "validate", fake)


def test_the_best_weights_are_kept_for_each_metric(data, tmp_path, monkeypatch):
    scores_of(monkeypatch, [(20, 0.5), (30, 0.4), (25, 0.6)])
    _, result = train(small_options(data, with_validation(data, select_on="held_out")), tmp_path)
    models = tmp_path / "run" / "models"

    assert result.best == {"psnr": {"value": 30, "step": 8}, "ssim": {"value": 0.6, "step": 12}}
    assert result.model == models / "net_g_best_psnr.safetensors"
    for metric, step in (("psnr", 8), ("ssim", 12)):
        model = load_model(models / f"net_g_best_{metric}.safetensors")
        assert flat(model.network.state_dict()) == flat(read_weights(models / f"net_g_{step}.pth", "params_ema"))
        assert model.training["updates"] == step


def test_the_mean_over_several_sets_decides(data, tmp_path, monkeypatch):
    real, values = module.validate, iter([(20, 31), (32, 22), (25, 26)])

    def fake(*args, **keywords):
        both = zip(real(*args, **keywords), next(values), strict=True)
        return [
            dataclasses.replace(score, images=tuple(dataclasses.replace(image, psnr=psnr) for image in score.images))
            for score, psnr in both
        ]

    monkeypatch.setattr(module, "validate", fake)
    changes = with_validation(data, select_on=["held_out", "other"])
    changes["datasets"]["val_2"] = {"name": "other", "dataroot_gt": str(data / "held_out")}
    _, result = train(small_options(data, changes), tmp_path)
    assert result.best["psnr"] == {"value": 27, "step": 8}


@pytest.mark.parametrize("network", [{"type": "plain_t", "upscale": 2}, {"type": "IMDN_RTC", "upscale": 2}])
def test_a_re_parameterised_run_leaves_plain_models(data, tmp_path, network):
    changes = {**with_validation(data, select_on="held_out"), "train": {"reparam": {"width": 2}}}
    trainer, _ = train(
        small_options(data, {**changes, "network_g": {**network, "num_feat": None, "num_block": None}}), tmp_path
    )
    models = tmp_path / "run" / "models"

    assert any("expand" in key for key in trainer.network.state_dict())
    image = torch.rand(1, 3, 12, 12)
    plain = ARCHS.build(network).eval()
    for weights, form in (
        (load_model(models / "net_g_latest.safetensors").network.state_dict(), trainer.ema.module),
        (read_weights(models / "net_g_12.pth", "params_ema"), trainer.ema.module),
        (read_weights(models / "net_g_12.pth", "params"), trainer.network),
    ):
        plain.load_state_dict(weights)
        with torch.no_grad():
            assert (plain(image) - form.eval()(image)).abs().max() <= 1e-5
    assert load_model(models / "net_g_best_psnr.safetensors").network.state_dict().keys() == plain.state_dict().keys()


def test_a_run_in_8_bits_leaves_models_in_8_bits(data, tmp_path):
    changes = {**with_validation(data, select_on="held_out"), "train": {"quantize": {"float_layers": ["tail"]}}}
    network = {"type": "plain_t", "upscale": 2, "num_feat": None, "num_block": None}
    trainer, _ = train(small_options(data, {**changes, "network_g": network}), tmp_path)
    models = tmp_path / "run" / "models"

    latest = load_model(models / "net_g_latest.safetensors").network
    averaged = trainer.ema.module.state_dict()
    assert {key: value.tolist() for key, value in latest.state_dict().items()} == {
        key: value.tolist() for key, value in averaged.items()
    }
    ranges = ranges_of(averaged)
    assert list(ranges) == [f"body.{number}.0" for number in range(5)]
    image = torch.rand(1, 3, 12, 12)
    plain = ARCHS.build({"type": "plain_t", "upscale": 2}).eval()
    plain.load_state_dict(read_weights(models / "net_g_12.pth", "params_ema"))  # weights alone
    with torch.no_grad():
        sr = latest(image)
        assert not torch.equal(sr, plain(image))
        assert torch.equal(sr, quantize(plain, ranges)(image))


@pytest.mark.parametrize(
    ("form", "before", "after"),
    [
        ("reparam", None, {"width": 2}),
        ("reparam", {"width": 2}, {"width": 3}),
        ("reparam", {"width": 2}, None),
        ("reparam", {"width": 2}, {"width": 2, "edge_operators": True}),
        ("quantize", None, {"calibration_iter": 2}),
        ("quantize", {"calibration_iter": 2}, None),
    ],
)
def test_a_run_keeps_its_training_form(data, tmp_path, form, before, after):
    train(small_options(data, {"train": {"total_iter": 4, form: before}}), tmp_path)
    with refused("train.state-mismatch"):
        prepare(small_options(data, {"train": {form: after}}), root=tmp_path, auto_resume=True)


def test_a_state_from_before_an_option_of_the_training_form_is_gone_on_with(data, tmp_path, caplog):
    recipe = {"train": {"total_iter": 4, "reparam": {"width": 2}}}
    train(small_options(data, recipe), tmp_path)
    (path,) = (tmp_path / small_options(data, recipe).name / "training_states").glob("4.state")
    state = torch.load(path, weights_only=False)
    options = state["options"] if isinstance(state, dict) else state.options
    assert options["train"]["reparam"].pop("edge_operators") is False
    torch.save(state, path)

    more = {"train": {"total_iter": 6, "reparam": {"width": 2}}}
    assert prepare(small_options(data, more), root=tmp_path, auto_resume=True).step == 4
    assert "edge_operators" not in caplog.text


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"quantize": {}, "reparam": {"width": 2}}, "options.twice"),
        ({"quantize": {"float_layers": ["nose"]}}, "quantize.unknown-layer"),
        ({"quantize": {"calibration_iter": 0}}, "options.out-of-range"),
    ],
)
def test_8_bits_that_are_not_possible_are_refused(data, tmp_path, changes, code):
    with refused(code):
        check(small_options(data, {"train": changes}), root=tmp_path)


def test_a_training_form_that_changes_nothing_is_said(data, tmp_path, monkeypatch):
    monkeypatch.setattr(train_setup, "can_expand", lambda network: False)
    found = check(small_options(data, {"train": {"reparam": {"width": 2}}}), root=tmp_path)
    assert "train.reparam: no effect, since the network has no 3x3 convolutions" in found.warnings


def test_nothing_is_selected_unless_a_set_is_named(data, tmp_path):
    _, result = train(small_options(data, with_validation(data)), tmp_path)

    assert not result.best
    assert result.model.name == "net_g_latest.safetensors"


def test_test_sets_are_scored_once_with_the_selected_weights(data, tmp_path, monkeypatch):
    changes = with_validation(data, select_on="held_out")
    changes["datasets"]["test"] = {"name": "other", "dataroot_gt": str(data / "held_out" / "HR")}
    changes["val"]["select_on_benchmark"] = True  # the same photographs
    _, result = train(small_options(data, changes), tmp_path)
    (score,) = result.test

    best = max(record["scores"]["held_out"]["psnr"] for record in metrics(tmp_path) if "scores" in record)
    assert score.psnr == pytest.approx(best, abs=1e-9)
    assert [record["test"] for record in metrics(tmp_path) if "test" in record] == [
        {"other": {"psnr": score.psnr, "ssim": score.ssim}}
    ]


def test_validation_gives_what_the_benchmark_gives_for_the_model_file(data, tmp_path):
    _, result = train(small_options(data, with_validation(data, select_on="held_out")), tmp_path)
    (score,) = benchmark(open_upsamplers([result.model], device="cpu"), [data / "held_out"])

    assert score.psnr == result.best["psnr"]["value"]


def test_enlarged_images_are_kept_if_asked_for(data, tmp_path):
    train(small_options(data, with_validation(data, save_img=True)), tmp_path)
    images = (tmp_path / "run" / "visualization").rglob("*.png")

    assert sorted(str(path.relative_to(tmp_path / "run" / "visualization")) for path in images) == [
        f"{step}/x2/held_out/{number}_run.png" for step in (12, 4, 8) for number in (0, 1)
    ]


class Spoilt(nn.Module):
    """L1 that is not finite in some of its calls."""

    def __init__(self, calls):
        super().__init__()
        self.calls = calls
        self.count = 0

    def forward(self, sr, gt):
        self.count += 1
        loss = (sr - gt).abs().mean()
        return loss * float("nan") if self.count in self.calls else loss


def spoil(monkeypatch, calls):
    monkeypatch.setattr(open_inputs.LOSSES, "build", lambda spec: Spoilt(calls))


def test_an_iteration_with_a_gradient_that_is_not_finite_is_skipped(data, tmp_path, monkeypatch, caplog):
    changes = {"logger": {"print_freq": 1, "save_checkpoint_freq": 1}}
    spoil(monkeypatch, {5})
    train(small_options(data, changes), tmp_path)
    before, after, later = (state_file(tmp_path, step) for step in (4, 5, 6))

    assert flat(before["network"]) == flat(after["network"])
    assert flat(before["ema"]) == flat(after["ema"])
    assert flat(before["optimizer"]["state"]) == flat(after["optimizer"]["state"])
    assert flat(later["network"]) != flat(after["network"])
    assert (after["skipped"], later["skipped"]) == (1, 0)
    assert [record["step"] for record in metrics(tmp_path) if "losses" in record] == [1, 2, 3, 4, *range(6, 13)]
    assert "iteration 5 was skipped" in caplog.text


def test_too_many_of_them_in_a_row_end_the_run_with_the_cause(data, tmp_path, monkeypatch):
    spoil(monkeypatch, {2, 5, 6, 7, 8, 9})
    with pytest.raises(DivergedError, match=r"before iteration 7: 3 in a row .* l_pix is nan"):
        train(small_options(data, {"train": {"max_skipped": 3}}), tmp_path)


def test_weights_that_are_not_finite_push_out_no_state(data, tmp_path):
    def spoil_weights(step, losses, rate):
        if step == 5:
            with torch.no_grad():
                trainer.network.get_submodule("IMDB2.c3").bias[0] = float("nan")

    options = small_options(data, {"train": {"max_skipped": 6}, "logger": {"save_checkpoint_freq": 2, "keep_last": 1}})
    trainer = prepare(options, root=tmp_path, on_step=spoil_weights)
    with pytest.raises(DivergedError):
        trainer.run()

    assert [path.name for path in (tmp_path / "run" / "training_states").iterdir()] == ["4.state"]


def test_a_weight_that_is_not_finite_is_named(data, tmp_path):
    trainer = prepare(small_options(data, {"train": {"max_skipped": 1}}), root=tmp_path)
    with torch.no_grad():
        trainer.network.get_submodule("IMDB2.c3").bias[0] = float("inf")
    with pytest.raises(DivergedError, match=r"IMDB2\.c3\.bias"):
        trainer.run()


def test_curves_for_tensorboard(data, tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    changes = {**with_validation(data), "logger": {"use_tb_logger": True}}
    train(small_options(data, changes), tmp_path)
    events = accumulator.EventAccumulator(str(tmp_path / "run" / "tb_logger"))
    events.Reload()

    assert {"losses/l_pix", "lr", "it_per_s", "held_out/psnr", "held_out/ssim"} <= set(events.Tags()["scalars"])
    curve = {event.step: event.value for event in events.Scalars("losses/l_pix")}
    expected = {r["step"]: r["losses"]["l_pix"] for r in metrics(tmp_path) if "losses" in r}
    assert curve == pytest.approx(expected, rel=1e-6)


def test_the_run_says_how_it_was_made(data, tmp_path):
    options = small_options(data, with_validation(data))
    trainer, _ = train(options, tmp_path)
    (entry,) = json.loads((tmp_path / "run" / "run.json").read_text())

    assert entry["options"] == options.model_dump(mode="json")
    assert torch.__version__.startswith(entry["versions"]["torch"].split("+")[0])
    assert entry["versions"]["imdn_kd"] == __version__
    assert entry["data"]["train"]["sha256"] == trainer.setup.loader.images.store.checksum
    assert entry["data"]["val"] == [{"name": "held_out", "images": 2, "lr": "MATLAB bicubic"}]
    assert {"git", "machine", "command", "time"} <= entry.keys()
    assert "iter: 12, lr:(" in next((tmp_path / "run").glob("train_run_*.log")).read_text()


def test_a_network_of_one_channel_trains_on_y(data, tmp_path):
    changes = {"datasets": {"train": {"color": "y"}}, "network_g": {"num_in_ch": 1}}
    trainer, _ = train(small_options(data, changes | {"logger": {"print_freq": 1}}), tmp_path)
    (batch,) = next(trainer._loader.batches(0, 1, torch.device("cpu")))

    assert batch["lq"].shape == (4, 1, 16, 16)
    assert 16 / 255 <= batch["gt"].min() < batch["gt"].max() <= 235 / 255


def test_what_was_trained_is_saved_before_a_damaged_image_ends_the_run(data, tmp_path):
    folder = tmp_path / "files"
    for seed in range(6):
        pixels = picture((64, 64), seed)
        write_image(folder / "gt" / f"{seed}.png", Picture(pixels))
        write_image(folder / "lq" / f"{seed}.png", Picture(imresize(pixels, 1 / 2)))
    damaged = folder / "gt" / "5.png"
    damaged.write_bytes(damaged.read_bytes()[:600])
    files = {"type": "PairedImageDataset", "dataroot_gt": str(folder / "gt"), "dataroot_lq": str(folder / "lq")}
    changes = {
        "datasets": {"train": {**files, "dataroot": None, "batch_size_per_gpu": 1}},
        "train": {"total_iter": 60},
        "logger": {"save_checkpoint_freq": 1000},
    }
    trainer = prepare(small_options(data, changes), root=tmp_path)
    with refused("image.damaged"):
        trainer.run()

    assert 0 < trainer.step < 60
    assert state_file(tmp_path, trainer.step)["step"] == trainer.step


def test_images_that_are_too_small_are_named_once(data, tmp_path, caplog):
    train(small_options(data, {"datasets": {"train": {"gt_size": 400}}, "train": {"total_iter": 1}}), tmp_path)

    assert caplog.text.count("smaller than the patches") == 1
