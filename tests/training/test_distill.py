"""Distillation as a run: everything at once through kills, teachers asked once, and what is refused."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import filelock
import pytest
import torch

from imdn_kd.archs.base import ModelInfo, SRNetwork
from imdn_kd.data.store import Store
from imdn_kd.distill.teacher import Teacher
from imdn_kd.errors import InputError
from imdn_kd.image.io import Picture, read_image, write_image
from imdn_kd.image.resize import imresize
from imdn_kd.inference.model_file import ModelFile, load_model, save_model
from imdn_kd.registry import ARCHS
from imdn_kd.training import run as module
from imdn_kd.training.run import check, fill_teacher_cache, prepare
from imdn_kd.training.trainer import Trainer
from tests.refused import refused
from tests.training.small_runs import (
    flat,
    killed_at_random,
    make_data,
    merged,
    metrics,
    small_options,
    state_file,
    train,
    with_validation,
)

UPDATES = 12
CRITIC = {"num_feat": 4, "stages": 2}
EVERY_TERM = {
    "l_kd": {"type": "CharbonnierLoss", "decay_iter": 4},
    "l_wave": {"type": "WaveletLoss", "start_iter": 3},
    "l_cd": {"type": "ContrastiveLoss", "loss_weight": 0.01},
    "l_pair": {"type": "PairwiseLoss", "preset": "paper", "taps": ["body_out"], "ramp_iter": 5},
    "l_stat": {"type": "StatisticsLoss", "taps": ["block.1", "block.2"], "tap_weights": [0.3, 0.7]},
    "l_at": {"type": "AttentionLoss", "taps": ["block.1"]},
    "l_local": {"type": "LocalSimilarityLoss", "taps": ["block.2"]},
    "l_fakd": {"type": "SpatialAffinityLoss", "taps": ["block.2"]},
    "l_inst": {"type": "InstanceAffinityLoss", "taps": ["block.2"]},
    "l_mimic": {"type": "MimicLoss", "taps": ["block.1", "fusion"]},
    "l_fsp": {"type": "FspTerm", "taps": ["head", "block.2"]},
    "l_vid": {"type": "VidTerm", "taps": ["block.1"], "distribution": "laplace"},
    "l_up": {"type": "UpcyclingTerm"},
    "l_adv": {"type": "HolisticTerm", "critic": CRITIC, "n_critic": 2, "loss_weight": 0.01, "stop_iter": 9},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Of this module alone: teachers add to the store."""
    return make_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def teachers(tmp_path_factory):
    """Two files."""
    folder = tmp_path_factory.mktemp("teachers")
    for number, keywords in enumerate(({"num_feat": 12, "num_block": 3}, {"num_feat": 16, "num_block": 2})):
        torch.manual_seed(number)
        save_model(folder / f"{number}.safetensors", ModelFile(ARCHS.build({"type": "IMDN", "upscale": 2, **keywords})))
    return sorted(folder.iterdir())


def distilled(data, teachers, objectives=None, changes=None, **distill):
    network_t = [{"weights": str(path)} for path in teachers]
    section = {"objectives": objectives or {"l_kd": {"type": "L1Loss"}}, "check_images": 0, **distill}
    return small_options(data, merged({"network_t": network_t, "distill": section}, changes or {}))


def everything(data, teachers):
    changes = {
        "train": {"accumulation": 2, "warmup_iter": 3, "grad_clip": 1.0, "optim_a": {"lr": 1e-3}},
        "logger": {"print_freq": 2, "save_checkpoint_freq": 2},
    }
    scheduler_d = {"train": {"scheduler_d": {"type": "MultiStepLR", "milestones": [5]}}}
    two = [{"weights": str(teachers[0]), "weight": 2.0}, {"weights": str(teachers[1]), "self_ensemble": True}]
    more = merged(merged(changes, scheduler_d), {"network_t": two})
    return distilled(data, teachers, EVERY_TERM, more, cache=True)


def go_on(data, teachers, root):
    torch.set_num_threads(1)
    train(everything(data, teachers), root, auto_resume=True)


class Undisturbed(NamedTuple):
    """A run that was left alone: where, its trainer, and all weights as they were before."""

    root: Path
    trainer: Trainer
    learners: dict[str, Any]
    teachers: list[Any]


@pytest.fixture(scope="module")
def run(data, teachers, tmp_path_factory):
    root = tmp_path_factory.mktemp("undisturbed")
    trainer = prepare(everything(data, teachers), root=root)
    learners = {name: flat(learner.module.state_dict()) for name, learner in trainer.optims.items()}
    asked = [flat(teacher.state_dict()) for teacher in trainer.setup.distiller.teachers]
    trainer.run()
    return Undisturbed(root, trainer, learners, asked)


@pytest.fixture
def undisturbed(run):
    return run.root


@pytest.mark.processes
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_every_term_at_once_killed_and_resumed_bit_for_bit(data, teachers, tmp_path, undisturbed):
    start = time.perf_counter()
    go_on(data, teachers, tmp_path / "whole")
    assert killed_at_random(go_on, time.perf_counter() - start, data, teachers, tmp_path) >= 2
    assert flat(state_file(tmp_path, UPDATES)) == flat(state_file(undisturbed, UPDATES))
    assert metrics(tmp_path) == metrics(undisturbed)


def test_every_term_is_logged_with_its_share_and_the_norm_of_its_gradient(undisturbed):
    records = {record["step"]: record for record in metrics(undisturbed)}
    named = {"l_pix", *EVERY_TERM}

    assert set(records[8]["losses"]) == named | {"d_score", "d_penalty"}
    assert set(records[8]["shares"]) == set(records[8]["gradient_norms"]) == named
    assert sum(records[8]["shares"].values()) == pytest.approx(1)
    assert all(norm > 0 for norm in records[8]["gradient_norms"].values())
    assert "l_wave" not in records[2]["losses"]
    assert "d_score" not in records[12]["losses"]


def test_what_learns_beside_the_student_is_in_its_states_and_not_in_its_models(data, teachers, undisturbed):
    state = state_file(undisturbed, UPDATES)
    assert set(state["others"]) == {"adapters", "critic"}
    names = {"of_l_mimic.0_0.weight", "of_l_mimic.1_1.bias", "of_l_fsp.0_0.weight", "of_l_vid.1_0.scale.4.bias"}
    assert names <= set(state["others"]["adapters"]["weights"])

    student = ARCHS.build(everything(data, teachers).network_g.spec())
    models = undisturbed / "run" / "models"
    saved = torch.load(models / f"net_g_{UPDATES}.pth", weights_only=True)
    assert saved["params"].keys() == saved["params_ema"].keys() == student.state_dict().keys()
    assert load_model(models / "net_g_latest.safetensors").network.spec == student.spec


def test_everyone_that_learns_has_changed_and_the_teachers_have_not(run):
    optims, teachers = run.trainer.optims, run.trainer.setup.distiller.teachers
    assert set(run.learners) == {"student", "adapters", "critic"}
    for name, before in run.learners.items():
        after = flat(optims[name].module.state_dict())
        assert all(before[key] != after[key] for key in before if ".weight" in key and "cca" not in key)
    assert [flat(teacher.state_dict()) for teacher in teachers] == run.teachers
    assert not any(module.training for teacher in teachers for module in teacher.modules())


def test_looking_at_gradients_changes_nothing(data, teachers, tmp_path):
    objectives = {"l_kd": {"type": "L1Loss"}, "l_pair": {"type": "PairwiseLoss", "taps": ["block.1"]}}
    for name, freq in (("often", 1), ("once", UPDATES)):
        train(distilled(data, teachers, objectives, {"name": name, "logger": {"print_freq": freq}}), tmp_path)
    assert flat(state_file(tmp_path, UPDATES, "often")["network"]) == flat(
        state_file(tmp_path, UPDATES, "once")["network"]
    )


def test_the_teacher_writes_its_results_into_the_store_once(data, teachers, tmp_path):
    seen = []
    options = distilled(data, teachers[:1], cache=True)
    trainer = prepare(options, root=tmp_path, on_teaching=lambda done, total: seen.append((done, total)))
    plane = trainer.setup.distiller.cache_key
    assert seen == [(number, 4) for number in range(5)]
    assert plane.startswith("sr_x2_")

    store = Store(options.datasets.train.dataroot)
    assert not list(store.verify())
    lq = torch.from_numpy(store.image(0, "lq_x2").copy()).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        sr = load_model(teachers[0]).network(lq).clamp(0, 1).mul(255).round().byte()
    assert torch.equal(torch.from_numpy(store.image(0, plane).copy()).permute(2, 0, 1)[None], sr)

    seen.clear()
    prepare(distilled(data, teachers[:1], None, {"name": "again"}, cache=True), root=tmp_path, on_teaching=seen.append)
    assert not seen


class Nearest(SRNetwork):
    """Every pixel four times: parts of its results are its results of parts, and exact in 8 bit."""

    info = ModelInfo(scale=2)

    def forward(self, x):
        return x.repeat_interleave(2, 2).repeat_interleave(2, 3)


def test_known_results_train_as_asked_ones_do(data, teachers, tmp_path, monkeypatch):
    monkeypatch.setattr("imdn_kd.training.setup.open_inputs.open_teacher", lambda options, **_: Teacher(Nearest()))
    objectives = {"l_kd": {"type": "L1Loss"}, "l_pair": {"type": "PairwiseLoss"}}
    for name, cache in (("known", True), ("asked", False)):
        trainer, _ = train(distilled(data, teachers[:1], objectives, {"name": name}, cache=cache), tmp_path)
        assert trainer.setup.distiller.teacher_required != cache
    assert metrics(tmp_path, "known") == metrics(tmp_path, "asked")
    states = [state_file(tmp_path, UPDATES, name)["network"] for name in ("known", "asked")]
    assert flat(states[0]) == flat(states[1])


def test_teaching_that_was_interrupted_goes_on(data, teachers):
    options = distilled(data, teachers[1:], cache=True)
    seen = []

    def stop(done, total):
        if done == 2:
            raise KeyboardInterrupt
        seen.append(done)

    setup = check(options)
    with pytest.raises(KeyboardInterrupt):
        fill_teacher_cache(options, setup, stop)
    assert not setup.cache.is_there
    setup = check(options)
    fill_teacher_cache(options, setup, lambda done, total: seen.append(done))
    assert seen == [0, 1, 2, 3, 4]
    assert setup.cache.is_there
    assert not list(Store(options.datasets.train.dataroot).verify())


FEATURES = {
    "l_pair": {"type": "PairwiseLoss", "preset": "paper", "taps": ["block.1"]},
    "l_stat": {"type": "StatisticsLoss", "taps": ["block.2"]},
    "l_at": {"type": "AttentionLoss", "taps": ["block.2"]},
}


def test_features_are_cached_in_place_of_a_teacher_and_training_on_them_resumes_bit_for_bit(data, teachers, tmp_path):
    options = distilled(data, teachers[:1], FEATURES, {"train": {"ema_decay": 0}}, cache=True)
    trainer, _ = train(options, tmp_path / "whole")
    assert not trainer.setup.distiller.teacher_required
    assert [*trainer.setup.cache.planes] == [*trainer.setup.loader.images.planes[2:]]
    assert len(trainer.setup.cache.planes) == 3
    half = options.model_copy(update={"train": options.train.model_copy(update={"total_iter": 4})})
    train(half, tmp_path)
    train(options, tmp_path, auto_resume=True)
    assert flat(state_file(tmp_path, UPDATES)["network"]) == flat(state_file(tmp_path / "whole", UPDATES)["network"])


def test_caching_maps_that_was_interrupted_goes_on_and_gives_the_same(data, teachers, tmp_path):
    options = distilled(data, teachers[1:], {"l_kd": {"type": "L1Loss"}, **FEATURES}, cache=True)
    asked = []

    def stop(done, total):
        if done == 2:
            raise KeyboardInterrupt
        asked.append(done)

    setup = check(options)
    with pytest.raises(KeyboardInterrupt):
        fill_teacher_cache(options, setup, stop)
    assert not setup.cache.is_there
    fill_teacher_cache(options, check(options), lambda done, total: asked.append(done))
    assert asked == [0, 1, 2, 3, 4]
    store = Store(data / "sample.store")
    assert not list(store.verify())
    planes = [plane for plane in setup.cache.planes if plane.startswith("map")]
    before = {plane: (store.path / f"{plane}.npy").read_bytes() for plane in planes}
    for plane in planes:
        (store.path / f"{plane}.npy").unlink()
    fill_teacher_cache(options, check(options))
    assert {plane: (store.path / f"{plane}.npy").read_bytes() for plane in planes} == before


@pytest.mark.parametrize(
    ("taps", "changes", "distill", "words"),
    [
        (["block.1"], {}, {"cache_limit": 1e-6}, "more than distill.cache_limit"),
        (["block.1"], {"datasets": {"train": {"gt_size": 36}}}, {}, "are no multiple"),
        (["block.1"], {"datasets": {"train": {"use_inversion": True}}}, {}, "inverted colours"),
        (["block.1"], {"datasets": {"train": {"use_channel_shuffle": True}}}, {}, "shuffled"),
        ([{"head": "upsampler"}], {}, {}, "pooled to another size"),
    ],
)
def test_where_maps_cannot_be_cached_the_teacher_runs_and_that_is_told(data, teachers, taps, changes, distill, words):
    objectives = {"l_pair": {"type": "PairwiseLoss", "beta": 4, "taps": taps}}
    setup = check(distilled(data, teachers[:1], objectives, changes, cache=True, **distill))
    (line,) = (line for line in setup.warnings if line.startswith("distill.cache"))
    assert words in line
    assert setup.distiller.teacher_required
    assert not setup.cache.planes
    assert setup.cache.is_there


def test_other_weights_or_settings_are_another_cache(data, teachers, tmp_path):
    other = tmp_path / "other.safetensors"
    torch.manual_seed(9)
    save_model(other, ModelFile(ARCHS.build(load_model(teachers[0]).network.spec)))
    renamed = tmp_path / "renamed.safetensors"
    renamed.write_bytes(teachers[0].read_bytes())

    def plane(**teacher):
        return check(distilled(data, teachers[:1], None, {"network_t": teacher}, cache=True)).cache.key

    same = [plane(weights=str(teachers[0])), plane(weights=str(renamed))]
    others = [
        plane(weights=str(other)),
        plane(weights=str(teachers[0]), self_ensemble=True),
        plane(weights=str(teachers[0]), value_range=255),
        plane(weights=str(teachers[0]), mean=[0.5, 0.5, 0.5]),
        plane(weights=str(teachers[0]), precision="bf16"),
    ]
    assert same[0] == same[1]
    assert len({same[0], *others}) == 6


def test_a_teacher_that_is_worse_than_bicubic_is_refused(data, teachers, tmp_path):
    options = distilled(data, teachers[:1], None, with_validation(data, select_on="held_out"), check_images=2)
    with refused("teacher.no-better"):
        prepare(options, root=tmp_path)
    assert not (tmp_path / "run").exists()


def test_a_teacher_that_is_worse_than_its_student_is_refused(data, teachers, tmp_path, monkeypatch):
    monkeypatch.setattr("imdn_kd.training.setup.teacher_quality.bicubic", lambda scale: module_contestant(scale))
    weights = tmp_path / "student.safetensors"
    student = ARCHS.build({"type": "IMDN", "upscale": 2, "num_feat": 8, "num_block": 2})
    student.upsampler[0].bias.data.fill_(0.5)  # grey, at least
    save_model(weights, ModelFile(student))
    changes = merged(with_validation(data, select_on="held_out"), {"path": {"pretrain_network_g": str(weights)}})
    with refused("teacher.no-better"):
        prepare(distilled(data, teachers[:1], None, changes, check_images=2), root=tmp_path)


def module_contestant(scale):
    """Something that every teacher is better than."""
    from imdn_kd.evaluation.benchmark import Upsampler

    return Upsampler("bicubic", scale, lambda lr: (255 - lr).repeat(scale, 0).repeat(scale, 1) // 255 * 255)


@pytest.mark.parametrize(
    ("objectives", "changes", "line"),
    [
        ({"l_mimic": {"type": "MimicLoss", "taps": ["block.1"]}}, {}, "the run had critic, now there is none"),
        ({"l_adv": {"type": "HolisticTerm", "critic": CRITIC}}, {}, "the run had adapters, now there are none"),
        (None, {"train": {"optim_d": {"type": "SGD", "lr": 1e-3}}}, "train.optim_d: the run had Adam, now it is SGD"),
        (
            {"l_adv": {"type": "HolisticTerm", "critic": {"num_feat": 8, "stages": 2}}},
            {},
            "the critic of the run had other",
        ),
    ],
)
def test_a_run_does_not_go_on_with_others_that_learn(data, teachers, tmp_path, objectives, changes, line):
    both = {"l_mimic": {"type": "MimicLoss", "taps": ["block.1"]}, "l_adv": {"type": "HolisticTerm", "critic": CRITIC}}
    short = {"train": {"total_iter": 4}}
    train(distilled(data, teachers, both, short), tmp_path)
    kept = {name: both[name] for name in both if objectives and name not in objectives and len(objectives) == 2}
    now = {**kept, **objectives} if objectives else both
    if "num_feat" in str(objectives) and "8" in str(objectives):
        now = {**both, **objectives}
    with pytest.raises(InputError) as caught:
        prepare(distilled(data, teachers, now, merged(short, changes)), root=tmp_path, auto_resume=True)
    assert any(line in each for each in caught.value.lines)


def test_options_without_effect_are_told(data, teachers):
    def told(options):
        notes = check(options).warnings
        return [line for line in notes if not line.startswith(("num_gpu", "train.ema_decay"))]

    assert told(small_options(data, {"network_t": {"weights": str(teachers[0])}})) == [
        "network_t: no effect, since there is no section distill"
    ]
    changes = {"train": {"optim_a": {"lr": 1e-3}, "optim_d": {"lr": 1e-3}}}
    objectives = {"l_kd": {"type": "L1Loss", "start_iter": 99}}
    beginnings = [line.partition(": ")[0] for line in told(distilled(data, teachers, objectives, changes))]
    late = {"l_up": {"type": "UpcyclingTerm", "stop_iter": 99}}
    beginnings += [
        line.partition(": ")[0] for line in told(distilled(data, teachers, late, cache=True, check_images=4))
    ]
    assert beginnings == [
        *("distill.objectives.l_kd.start_iter", "train.optim_a", "train.optim_d"),
        *("distill.objectives.l_up.stop_iter", "distill.check_images", "distill.cache"),
    ]
    (line,) = told(distilled(data, teachers[:1], {"l_pair": {"type": "PairwiseLoss", "taps": [{"head": "sr"}]}}))
    assert line.startswith("distill.objectives.l_pair: ")
    assert "are pooled to the smaller size" in line


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"network_t": None}, "options.no-teacher"),
        ({"network_t": {"type": "IMDN"}}, "options.missing"),
        ({"network_t": {"weights": "no.pth"}}, "zoo.not-found"),
        ({"network_t": {"weights": "TEACHER", "upscale": 2}}, "options.teacher"),
        ({"network_t": {"weights": "TEACHER", "mean": [0.5]}}, "teacher.mean-mismatch"),
        ({"network_t": {"weights": "TEACHER", "weight": float("inf")}}, "options.out-of-range"),
        ({"network_t": {"weights": "TEACHER", "slef_ensemble": True}}, "options.unknown-key"),
        ({"network_t": "TEACHER"}, "options.wrong-type"),
        ({"network_t": {"weights": "TEACHER", "type": "IMDN", "upscale": 4}}, "model.other-network"),
        ({"network_t": {"weights": "TEACHER", "type": "IMDM"}}, "registry.unknown-name"),
        ({"distill": {"objectives": {}}}, "options.out-of-range"),
        ({"distill": {"objectvies": {}}}, "options.unknown-key"),
        ({"distill": {"objectives": {"l_kd": {"type": "L2Loss"}}}}, "distill.unknown-type"),
        ({"train": {"optim_d": {"type": "Adma", "lr": 1e-4}}}, "optimizer.unknown"),
        ({"train": {"scheduler_d": {"type": "Step"}}}, "options.scheduler"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(data, teachers, changes, code):
    text = json.dumps({"network_t": {"weights": "TEACHER"}, "distill": {"objectives": {"l_kd": {"type": "L1Loss"}}}})
    base = json.loads(text.replace("TEACHER", str(teachers[0])))
    base = {key: value for key, value in base.items() if not (key in changes and key != "train")}
    given = json.loads(json.dumps(changes).replace("TEACHER", str(teachers[0])))
    with refused(code) as caught:
        check(small_options(data, {**base, **{key: value for key, value in given.items() if value is not None}}))
    assert len(caught.value.lines) == 1


def test_what_is_wrong_with_weights_of_ours_is_not_left_to_spandrel(data, tmp_path):
    path = tmp_path / "teacher.pth"
    weights = ARCHS.build({"type": "IMDN", "upscale": 2, "num_feat": 8, "num_block": 1}).state_dict()
    torch.save({key: value for key, value in weights.items() if key != "IMDB1.c2.bias"}, path)
    with refused("model.misfit"):
        check(distilled(data, [path]))


@pytest.mark.parametrize("content", [None, b"", b"no weights", b"PK\x03\x04"])
def test_an_unusable_teacher_is_said_in_one_line_with_a_cache_too(data, tmp_path, content):
    path = tmp_path / "teacher.pth"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        check(distilled(data, [path], cache=True))
    (line,) = caught.value.lines
    assert caught.value.code == ("zoo.not-found" if content is None else "model.not-a-model-file")
    assert line.startswith("network_t.0: ")


def test_sizes_that_the_student_does_not_take_are_told_alone(data, teachers):
    swin = {
        "type": "SwinIR",
        "upscale": 2,
        "upsampler": "pixelshuffle",
        "window_size": 8,
        "depths": [1],
        "num_heads": [1],
        "embed_dim": 6,
    }
    options = distilled(data, teachers[:1], None, {"datasets": {"train": {"gt_size": 20}}})
    with pytest.raises(InputError) as caught:
        check(options.model_copy(update={"network_g": options.network_g.model_validate(swin)}))
    (line,) = caught.value.lines
    assert line.startswith("datasets.train.gt_size: 20 gives inputs of 10 px, but the network needs at least 8 px")


def test_a_plane_of_a_teacher_that_is_damaged_concerns_nobody_else_and_is_made_again(data, tmp_path):
    torch.manual_seed(77)
    fresh = tmp_path / "fresh.safetensors"
    save_model(fresh, ModelFile(ARCHS.build({"type": "IMDN", "upscale": 2, "num_feat": 8, "num_block": 1})))
    options = distilled(data, [fresh], cache=True)
    setup = check(options)
    fill_teacher_cache(options, setup)
    pixels = data / "sample.store" / f"{setup.cache.key}.npy"
    whole = pixels.read_bytes()
    pixels.unlink()

    train(small_options(data, {"train": {"total_iter": 1}}), tmp_path)
    told = [f"{pixels}: cannot be read; have it made again: imdn-kd cache-teacher"]
    assert list(Store(data / "sample.store").verify()) == told
    setup = check(options)
    assert not setup.cache.is_there
    fill_teacher_cache(options, setup)
    assert pixels.read_bytes() == whole


def test_two_processes_do_not_add_to_a_store_at_once(data, tmp_path):
    other = tmp_path / "other.safetensors"
    torch.manual_seed(78)
    save_model(other, ModelFile(ARCHS.build({"type": "IMDN", "upscale": 2, "num_feat": 8, "num_block": 1})))
    options = distilled(data, [other], cache=True)
    with (
        filelock.FileLock(data / "sample.store" / ".planes.lock"),
        refused("store.in-use"),
    ):
        fill_teacher_cache(options, check(options))


def test_teaching_looks_at_the_teacher_first(data, teachers):
    changes = with_validation(data, select_on="held_out")
    options = distilled(data, teachers[:1], None, changes, check_images=1, cache=True)
    with refused("teacher.no-better"):
        module.check_teacher_quality(options, check(options))


def test_a_cache_needs_a_store_and_colour(data, teachers, tmp_path):
    with refused("train.cache-needs-rgb"):
        changes = {"datasets": {"train": {"color": "y"}}, "network_g": {"num_in_ch": 1}}
        one = tmp_path / "one.safetensors"
        spec = {"type": "IMDN", "upscale": 2, "num_feat": 8, "num_block": 1, "num_in_ch": 1}
        save_model(one, ModelFile(ARCHS.build(spec)))
        check(distilled(data, [one], None, changes, cache=True))
    for hr in (data / "held_out" / "HR").iterdir():
        write_image(tmp_path / "LR" / hr.name, Picture(imresize(read_image(hr).pixels, 1 / 2)))
    given = {"type": "PairedImageDataset", "dataroot": None, "dataroot_gt": str(data / "held_out" / "HR")}
    given["dataroot_lq"] = str(tmp_path / "LR")
    with refused("train.cache-needs-store"):
        check(distilled(data, teachers, None, {"datasets": {"train": given}}, cache=True))


def test_several_processes_want_the_cache_to_be_there(data, tmp_path, monkeypatch):
    torch.manual_seed(5)
    fresh = tmp_path / "fresh.safetensors"
    save_model(fresh, ModelFile(ARCHS.build({"type": "IMDN", "upscale": 2, "num_feat": 8, "num_block": 2})))
    monkeypatch.setattr(module.launch, "world_size", lambda: 2)
    monkeypatch.setattr(module, "_accelerator", lambda options: SimpleNamespace(device=torch.device("cpu")))
    with refused("train.cache-missing"):
        prepare(distilled(data, [fresh], cache=True), root=tmp_path)
