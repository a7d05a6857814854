"""From a run to a student of the zoo."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors import safe_open

from imdn_kd import zoo
from imdn_kd.config.options import read_options
from imdn_kd.data.degradation.schema import parse_steps
from imdn_kd.data.layouts.names import DataSource
from imdn_kd.data.store import Store
from imdn_kd.evaluation.benchmark import benchmark, open_upsamplers
from imdn_kd.evaluation.protocol import Protocol
from imdn_kd.image.io import Picture, write_image
from imdn_kd.inference.model_file import ModelFile, load_model, save_model
from imdn_kd.registry import ARCHS
from imdn_kd.release import publish as module
from imdn_kd.release.publish import publish
from imdn_kd.training.history import run_updates, sha256
from imdn_kd.training.schema import TrainOptions
from tests.fake_set import picture
from tests.refused import refused
from tests.training.small_runs import content, flat, make_data, merged, small_options, train

NAME = "tiny_x2"
NETWORK = {"type": "IMDN", "num_feat": 8, "num_block": 2, "upscale": 2}


def changes(folder):
    """What the run is, with all its files in a folder (that of the option file if it is empty)."""
    return {
        "name": NAME,
        "manual_seed": 3,
        "datasets": {
            "train": {"name": "photos", "dataroot": f"{folder}sample.store"},
            "val": {"name": "held_out", "dataroot_gt": f"{folder}held_out"},
            "test": {"name": "tested", "dataroot_gt": f"{folder}tested"},
        },
        "network_t": {"weights": f"{folder}teacher.safetensors", "self_ensemble": True},
        "distill": {
            "objectives": {
                "l_kd": {"type": "L1Loss", "start_iter": 4},
                "l_cd": {"type": "ContrastiveLoss", "space": "wavelet", "loss_weight": 0.01},
            },
            "check_images": 0,
        },
        "train": {
            "total_iter": 12,
            "warmup_iter": 2,
            "scheduler": {
                "type": "CosineAnnealingRestartLR",
                "periods": [8, 4],
                "restart_weights": [1, 0.5],
                "milestones": None,
                "gamma": None,
                "eta_min": 1e-6,
            },
        },
        "val": {"val_freq": 4, "select_on": "held_out"},
    }


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder with data, a teacher, an option file, and a run of it, which was given whole paths."""
    folder = make_data(tmp_path_factory.mktemp("workplace"))
    for seed in (5, 6):
        write_image(folder / "tested" / "HR" / f"{seed}.png", Picture(picture((40, 36), seed)))
    torch.manual_seed(0)
    save_model(folder / "teacher.safetensors", ModelFile(ARCHS.build({**NETWORK, "num_block": 3})))
    (folder / "tiny.yml").write_text(yaml.safe_dump(content(folder, changes("")), sort_keys=False))
    train(small_options(folder, changes(f"{folder}/")), folder / "runs")
    return folder


@pytest.fixture
def place(workplace, tmp_path, monkeypatch):
    """A folder of runs of one's own; the present one is that of the option file."""
    monkeypatch.chdir(workplace)
    shutil.copytree(workplace / "runs", tmp_path / "runs")
    return tmp_path


def options(*overrides):
    return read_options("tiny.yml", TrainOptions, overrides)


def go(place, *overrides, **keywords):
    return publish(options(*overrides), Path("tiny.yml"), root=place / "runs", folder=place / "zoo", **keywords)


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def change_record(path, change):
    """Write a student again with another record."""
    model = load_model(path)
    change(model.training)
    save_model(path, model)


def test_a_run_becomes_a_student_with_card_and_index(place):
    made = go(place, notes="Photographs of *mine*.")
    selected = load_model(place / "runs" / NAME / "models" / "net_g_best_psnr.safetensors")
    student = load_model(place / "zoo" / f"{NAME}.safetensors")

    assert (made.path, made.replaced, made.before) == (place / "zoo" / f"{NAME}.safetensors", True, None)
    assert sorted(map(str, contents(place / "zoo"))) == ["index.json", f"{NAME}.md", f"{NAME}.safetensors"]
    rounded = {key: value.half().float() for key, value in selected.network.state_dict().items()}
    assert flat(student.network.state_dict()) == flat(rounded)
    with safe_open(made.path, "pt") as file:
        assert {file.get_tensor(key).dtype for key in file.keys()} == {torch.float16}  # noqa: SIM118
    assert (place / "zoo" / f"{NAME}.md").read_text() == student.card == zoo.card(made.path)
    assert json.loads((place / "zoo" / "index.json").read_text()) == [
        {"name": NAME, "file": f"{NAME}.safetensors", "scale": 2, "fast": True, "restores": False}
    ]
    record = student.training
    assert record == zoo.record(made.path)
    assert (record["updates"], record["run_updates"], record["history"], record["seed"]) == (12, 12, [], 3)
    assert record["stages"] == [{"start": 0, "gt_size": 32, "batch": 4}]
    assert (record["data"]["name"], record["data"]["images"]) == ("photos", 4)
    assert record["data"]["sha256"] == Store("sample.store").checksum
    assert record["parameters"] == sum(each.numel() for each in student.network.parameters())
    assert record["multi_adds"] > record["parameters"] * 640 * 360 / 2
    assert record["selection"]["update"] == selected.training["updates"]
    assert record["selection"]["validations"] == 3
    assert record["schedule"]["periods"] == [8, 4]


def test_figures_are_those_of_the_benchmark(place):
    record = zoo.record(go(place).path)
    models = ["bicubic", place / "zoo" / f"{NAME}.safetensors"]
    scores = benchmark(open_upsamplers(models, device="cpu"), ["tested", "held_out"], root=place)
    figures = {(score.model, score.data): [round(score.psnr, 3), round(score.ssim, 4)] for score in scores}
    found = {("bicubic", data): each for data, each in record["bicubic"].items()}
    found |= {(NAME, data): each for data, each in record["figures"].items()} | {
        (NAME, "held_out"): record["selection"]
    }

    assert {key: [each["psnr"], each["ssim"]] for key, each in found.items()} == figures
    assert record["protocol"][0] == f"Protocol: {Protocol().describe()}; 8-bit results, means over images."


def test_the_card_says_what_there_is_to_know(place):
    text = zoo.card(go(place, notes="Photographs of *mine*.").path)
    record = zoo.record(place / "zoo" / f"{NAME}.safetensors")
    teacher = record["teachers"][0]["sha256"]

    for part in (
        f"# {NAME}\n",
        "IMDN (num_in_ch 3, num_feat 8, num_block 2, upscale 2, distillation_rate 0.25, attention yes): "
        f"{record['parameters']:,} par",
        f"| tested | 2 | MATLAB bicubic | {record['bicubic']['tested']['psnr']:.3f} / ",
        f"| held_out (selected on) | 2 | MATLAB bicubic | {record['bicubic']['held_out']['psnr']:.3f} / ",
        f"{record['protocol'][0]}\n\nNetworks run in float32 on cpu.",
        f"Trained on photos: 4 images; SHA-256 of the images in the store `{record['data']['sha256']}`.",
        "\n\nPhotographs of *mine*.\n",
        f"- teacher.safetensors, self-ensemble of eight; SHA-256 `{teacher}`",
        "- 12 iterations, seed 3\n- batches of 4 patches of 32 px\n",
        "- Adam, betas [0.9, 0.99]; learning rate 0.002, to which it rises over 2 iterations\n",
        "- iterations 1 to 8: the rate decays from 0.002 to 1e-06 along a cosine\n",
        "- iterations 9 to 12: the rate decays from 0.001 to 1e-06 along a cosine\n",
        "- `l_pix`: L1Loss; weight 1, throughout\n",
        "- `l_kd`: L1Loss; weight 1, iterations 5 to 12\n",
        "- `l_cd`: ContrastiveLoss, space wavelet; weight 0.01, throughout\n",
        "- EMA of the weights with decay 0.9, which is what was kept\n- in fp32\n",
        f"- weights after iteration {record['selection']['update']}: those of the highest PSNR on held_out, of 3 valid",
        "Stored in fp16, which costs nothing that could be seen: tested ",
        "\n\n    imdn-kd prepare folder PHOTOGRAPHS --scale 2 -o sample.store\n    imdn-kd train -opt tiny.yml\n",
        f"imdn-kd zoo publish -opt tiny.yml\n    imdn-kd benchmark --model {NAME} --data tested\n",
        "Trained for LR images made by MATLAB's bicubic by 2",
    ):
        assert part in text, part
    assert len(teacher) == 64
    assert "\n\n\n" not in text
    assert "None" not in text


def test_nothing_that_is_published_tells_where_it_was_made(place, workplace):
    run = json.loads((place / "runs" / NAME / "run.json").read_text())[-1]
    assert str(workplace) in json.dumps(run["options"])
    record = zoo.record(go(place).path)

    for path, written in contents(place / "zoo").items():
        for folder in (workplace, place):
            assert str(folder).encode() not in written, path
    assert record["data"]["store"] == "sample.store"
    assert record["teachers"][0]["file"] == "teacher.safetensors"


def test_absolute_paths_of_the_option_file_itself_are_not_published(place, workplace):
    go(place, f"datasets.train.dataroot={workplace}/sample.store", f"network_t.weights={workplace}/teacher.safetensors")
    assert all(str(workplace).encode() not in written for written in contents(place / "zoo").values())
    assert zoo.record(place / "zoo" / f"{NAME}.safetensors")["data"]["store"] == "sample.store"


def test_a_run_that_began_with_the_student_adds_to_its_iterations(place):
    path = go(place).path
    began = sha256(path)
    further = (f"path.pretrain_network_g={path}", "train.total_iter=4", "train.scheduler.periods=[4, 4]")
    train(options(*further), place / "runs")
    change_record(path, lambda record: record["selection"].update(psnr=1.0))
    change_record(path, lambda record: record.update(formerly=[began]))
    assert go(place).replaced
    record = zoo.record(path)

    assert (record["updates"], record["run_updates"]) == (16, 4)
    (earlier,) = record["history"]
    assert (earlier["updates"], earlier["seed"], earlier["start"]) == (12, 3, None)
    assert (earlier["teachers"], earlier["objectives"].keys()) == (["teacher.safetensors"], {"l_kd", "l_cd"})
    assert earlier["data"] == {key: record["data"][key] for key in ("name", "images", "sha256")}
    assert record["start"] == {"file": f"{NAME}.safetensors", "sha256": began}
    assert [(piece["from"], piece["to"]) for piece in record["pieces"]] == [(1, 4)]
    assert "l_kd" not in record["objectives"]  # it would have begun with update 5
    text = zoo.card(path)
    assert "- 16 iterations in 2 runs, each from the published weights of the one before\n- an earlier run: 12 " in text
    assert "\n- the last run: 4 iterations, seed 3\n" in text


def test_a_student_whose_record_has_no_runs_before_is_compared_as_ever(place):
    path = go(place).path
    whole = zoo.record(path)

    def older(record):
        del record["history"], record["run_updates"]

    change_record(path, older)
    assert run_updates(zoo.record(path)) == 12
    assert module.card(zoo.record(path)) == module.card(whole)
    assert not go(place).replaced


def test_weights_may_be_later_than_the_newest_state(place):
    (place / "runs" / NAME / "training_states" / "12.state").unlink()
    selected = place / "runs" / NAME / "models" / "net_g_best_psnr.safetensors"
    assert load_model(selected).training["updates"] == 12
    record = zoo.record(go(place).path)

    assert (record["updates"], record["selection"]["update"]) == (12, 12)


def test_a_run_that_is_no_better_changes_nothing(place):
    go(place)
    before = contents(place / "zoo")
    stamps = {path: (place / "zoo" / path).stat().st_mtime_ns for path in before}
    again = go(place)

    assert not again.replaced
    assert again.before == again.psnr
    assert contents(place / "zoo") == before
    assert {path: (place / "zoo" / path).stat().st_mtime_ns for path in before} == stamps


def test_notes_are_corrected_though_the_student_is_kept(place):
    path = go(place, notes="Photographs of mime.").path
    weights = load_model(path).network.state_dict()
    again = go(place, notes="Photographs of mine.")

    assert not again.replaced
    assert flat(load_model(path).network.state_dict()) == flat(weights)
    assert path.with_suffix(".md").read_text() == zoo.card(path)
    assert "Photographs of mine." in zoo.card(path)
    assert "mime" not in zoo.card(path)


def test_a_student_whose_notes_were_corrected_is_known_to_runs_that_began_with_it(place):
    path = go(place, notes="Photographs of mime.").path
    before = sha256(path)
    go(place, notes="Photographs of mine.")
    assert sha256(path) != before
    assert zoo.record(path)["formerly"] == [before]


def test_notes_stay_while_the_photographs_are_the_same(place):
    path = go(place, notes="Photographs of mine.").path

    def older(record):
        record["selection"]["psnr"] -= 1

    change_record(path, older)
    assert go(place).replaced
    assert "Photographs of mine." in zoo.card(path)

    def others(record):
        older(record)
        record["data"]["sha256"] = "0"

    change_record(path, others)
    assert go(place).replaced
    assert "Photographs of mine." not in zoo.card(path)


def test_objectives_and_teachers_that_never_counted_are_not_told(place):
    state = place / "runs" / NAME / "training_states"
    for path in state.glob("*.state"):
        found = torch.load(path, weights_only=True)
        for each in found["options"]["distill"]["objectives"].values():
            each["start_iter"] = 12
        torch.save(found, path)
    record = zoo.record(go(place).path)
    assert (record["objectives"], record["teachers"]) == ({}, [])
    assert "trained without a teacher" in zoo.card(place / "zoo" / f"{NAME}.safetensors")


def test_of_the_same_weights_those_of_more_iterations_are_published(place):
    path = go(place).path

    def earlier(record):
        record["updates"] -= 1

    change_record(path, earlier)
    assert go(place).replaced
    assert zoo.record(path)["updates"] == 12


@pytest.mark.parametrize(("difference", "replaced"), [(0.5, False), (0.0, False), (-0.001, True)])
def test_the_set_for_selection_decides_which_student_is_kept(place, difference, replaced):
    path = go(place).path
    psnr = zoo.record(path)["selection"]["psnr"]

    def change(record):
        record["selection"]["psnr"] = round(psnr + difference, 3)
        record["figures"]["tested"]["psnr"] = 99.0  # counts for nothing

    change_record(path, change)
    made = go(place)

    assert (made.replaced, made.before, made.psnr) == (replaced, round(psnr + difference, 3), psnr)
    assert (zoo.record(path)["figures"]["tested"]["psnr"] == 99) is not replaced


def test_weights_stay_fp32_where_rounding_costs(place, monkeypatch):
    monkeypatch.setattr(module, "TOLERANCE", -1.0)
    path = go(place).path
    selected = load_model(place / "runs" / NAME / "models" / "net_g_best_psnr.safetensors")

    assert flat(load_model(path).network.state_dict()) == flat(selected.network.state_dict())
    assert zoo.record(path)["weights"] == "fp32"
    assert "Stored in fp32; fp16 would have given tested " in zoo.card(path)


def test_weights_beyond_the_range_of_fp16_stay_fp32(place):
    selected = place / "runs" / NAME / "models" / "net_g_best_psnr.safetensors"
    model = load_model(selected)
    model.network.fea_conv.bias.data[0] = 1e5
    save_model(selected, model)
    path = go(place).path

    assert load_model(path).network.fea_conv.bias[0] == 1e5
    assert "fp16 would have given values beyond its range" in zoo.card(path)


def without(name):
    return lambda place: shutil.rmtree(place / "runs" / NAME / name)


def replaced_by(name, text):
    def change(place):
        (place / "runs" / NAME / name).write_text(text)

    return change


def foreign_model(place):
    save_model(place / "zoo" / "foreign.safetensors", ModelFile(ARCHS.build(NETWORK)))


def blocked(place):
    (place / "zoo").write_text("a file")


def of_other_images(place):
    change_record(go(place).path, lambda record: record["selection"].update(images=24))


def of_other_set(place):
    change_record(go(place).path, lambda record: record["selection"].update(set="kodak24"))


@pytest.mark.parametrize(
    ("prepare", "overrides", "code"),
    [
        (None, ["name=absent"], "run.not-found"),
        (without("training_states"), [], "state.not-found"),
        (without("models"), [], "run.no-selection"),
        (replaced_by("run.json", "[]"), [], "run.damaged"),
        (replaced_by("metrics.jsonl", "{]\n"), [], "run.damaged"),
        (None, ["scale=4", "network_g.upscale=4"], "model.scale-mismatch"),
        (None, ["datasets.val.name=b", "val.select_on=b"], "zoo.no-selection-set"),
        (None, ["datasets.test.dataroot_gt=held_out"], "train.select-on-benchmark"),
        (None, ["datasets.test.dataroot_gt=nowhere"], "data.not-found"),
        (foreign_model, [], "zoo.not-a-student"),
        (blocked, [], "file.cannot-write"),
        (of_other_set, [], "zoo.not-comparable"),
        (of_other_images, [], "zoo.not-comparable"),
    ],
)
def test_what_cannot_be_published_is_said(place, prepare, overrides, code):
    if prepare is not None:
        prepare(place)
    before = contents(place / "zoo")
    with refused(code) as caught:
        go(place, *overrides)
    assert len(caught.value.lines) == 1
    assert contents(place / "zoo") == before


def test_a_run_without_selection_is_refused(place):
    whole = merged(changes(""), {"name": "unselected", "val": {"select_on": None}, "distill": None, "network_t": None})
    train(small_options(Path(), whole), place / "runs")
    with refused("run.no-selection"):
        go(place, "name=unselected")


def _killed(place, writes):
    """Publish, and be killed in the middle of a file, after so many that were finished."""
    torch.set_num_threads(1)
    replace, done = Path.replace, 0

    def replace_or_die(self, target):
        nonlocal done
        if done == writes:
            self.write_bytes(self.read_bytes()[:50])
            os._exit(9)
        done += 1
        return replace(self, target)

    Path.replace = replace_or_die
    go(place)


@pytest.mark.processes
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("better", [False, True])
@pytest.mark.parametrize("writes", range(3))
def test_killed_at_any_moment_the_zoo_works_and_the_next_command_ends_it(place, monkeypatch, writes, better):
    path = go(place).path
    whole = load_model(path)
    if better:
        change_record(path, lambda record: record["selection"].update(psnr=1.0))
        (place / "zoo" / f"{NAME}.md").write_text("older")
        (place / "zoo" / "index.json").write_text("[]")
    else:
        shutil.rmtree(place / "zoo")
    process = multiprocessing.get_context("fork").Process(target=_killed, args=(place, writes))
    process.start()
    process.join()
    assert process.exitcode == 9

    monkeypatch.setattr(zoo, "FOLDER", place / "zoo")
    if (place / "zoo" / "index.json").exists():
        for student in zoo.students():
            load_model(student.path)
    go(place)
    names = [str(name) for name in contents(place / "zoo")]
    assert sorted(names) == ["index.json", f"{NAME}.md", f"{NAME}.safetensors"]
    assert [student.name for student in zoo.students()] == [NAME]
    assert load_model(path).training == whole.training
    assert (place / "zoo" / f"{NAME}.md").read_text() == whole.card


def test_the_index_has_the_best_student_of_each_scale_first_and_marks_the_smallest(place):
    others = [("big_x2", 2, 50.0, 10**6), ("small_x2", 2, 1.0, 100), ("same_x2", 2, 0.5, 100), ("one_x4", 4, 1.0, 500)]
    record = zoo.record(go(place).path)
    for name, scale, psnr, parameters in others:
        changed = merged(record, {"name": name, "scale": scale, "parameters": parameters, "selection": {"psnr": psnr}})
        save_model(place / "zoo" / f"{name}.safetensors", ModelFile(ARCHS.build(NETWORK), training=changed))
    # Of higher PSNR and fewer parameters than all others of its scale, on inputs of its own.
    changed = merged(
        record, {"name": "dirty_x2", "parameters": 10, "selection": {"psnr": 60.0}, "clean": {"psnr": 30.0}}
    )
    save_model(place / "zoo" / "dirty_x2.safetensors", ModelFile(ARCHS.build(NETWORK), training=changed))
    go(place)
    entries = json.loads((place / "zoo" / "index.json").read_text())

    assert [(entry["name"], entry["fast"], entry["restores"]) for entry in entries] == [
        *(("big_x2", False, False), (NAME, False, False), ("small_x2", True, False), ("same_x2", False, False)),
        *(("dirty_x2", False, True), ("one_x4", True, False)),
    ]


def test_a_student_for_degraded_images_says_what_it_makes_of_clean_ones(place):
    degraded = ("datasets.val.degradation=[{type: real_esrgan}]", "datasets.test.degradation=[{type: real_esrgan}]")
    path = go(place, *degraded).path
    record, text = zoo.record(path), zoo.card(path)
    (clean,) = benchmark(
        open_upsamplers([path], device="cpu", precision="fp32"),
        [DataSource(Path("held_out"), steps=parse_steps("bicubic"))],
    )

    assert record["clean"]["psnr"] == pytest.approx(clean.psnr, abs=0.02)
    assert record["selection"]["psnr"] < record["clean"]["psnr"]
    assert text.startswith(f"# {NAME}\n\nEnlarges photographs by 2 and restores them (Real-ESRGAN's degradation)")
    assert f"without such faults (held_out) are enlarged with {record['clean']['psnr']:.2f} dB" in text
    assert "imdn-kd benchmark" not in text
    (entry,) = json.loads((place / "zoo" / "index.json").read_text())
    assert (entry["restores"], entry["fast"]) == (True, False)


def test_students_rank_by_the_mean_of_the_selection_sets_that_all_have(place):
    record = zoo.record(go(place).path)
    name, psnr = record["selection"]["set"], record["selection"]["psnr"]
    for student, first, second in (("on_one", psnr + 2, None), ("on_both", psnr + 1, 20.0), ("edgy", psnr - 1, 26.0)):
        also = {} if second is None else {"also": [{**record["selection"], "set": "second", "psnr": second}]}
        changed = merged(record, {"name": student, "scale": 4, "selection": {"psnr": first} | also})
        save_model(place / "zoo" / f"{student}.safetensors", ModelFile(ARCHS.build(NETWORK), training=changed))
    go(place)
    # On `name` alone, since one of them lacks the second set.
    assert names_at(place, 4) == ["on_one", "on_both", "edgy"]
    assert name != "second"

    figures = {**record["figures"], "second": {**record["selection"], "psnr": 20.0}}
    changed = merged(record, {"name": "on_one", "scale": 4, "selection": {"psnr": psnr + 2}, "figures": figures})
    save_model(place / "zoo" / "on_one.safetensors", ModelFile(ARCHS.build(NETWORK), training=changed))
    go(place)
    assert names_at(place, 4) == ["edgy", "on_one", "on_both"]


def names_at(place, scale):
    entries = json.loads((place / "zoo" / "index.json").read_text())
    return [entry["name"] for entry in entries if entry["scale"] == scale]


def test_other_recipes_are_described_too(place):
    record = zoo.record(go(place).path)
    other = {
        **record,
        "updates": 9000,
        "run_updates": 9000,
        "teachers": [],
        "objectives": {
            "l": {
                **{"type": "PairwiseLoss", "loss_weight": 1.0, "taps": ["fusion", {"block.1": "block.2"}]},
                **{"start_iter": 10, "stop_iter": 2000, "ramp_iter": 5, "decay_iter": 7},
            }
        },
        "schedule": {
            **{"type": "MultiStepLR", "milestones": [4000, 8000], "gamma": 0.5, "restarts": [0, 5000]},
            **{"restart_weights": [1, 0.5], "warmup_iter": -1, "total_iter": 10000},
        },
        "stages": [{"start": 0, "gt_size": 64, "batch": 8}, {"start": 5000, "gt_size": 96, "batch": 4}],
        "start": {"file": "x2.safetensors", "sha256": "ab12"},
        "data": {"name": "DIV2K", "images": 800, "store": "datasets/DIV2K.store", "sha256": "abc"},
        "pieces": [{**record["pieces"][0], "precision": "bf16"}],
        "ema_decay": 0.0,
    }
    text = module.card(other)

    for part in (
        "trained without a teacher",
        "- 9,000 iterations of 10,000 that were planned",
        "- batches of 8 patches of 64 px from iteration 1 on\n",
        "- batches of 4 patches of 96 px from iteration 5,001 on\n",
        "- first weights: x2.safetensors; SHA-256 `ab12`\n",
        "learning rate 0.002\n- the rate is multiplied by 0.5 after iterations 4,000, 8,000\n",
        "- after iteration 5,000 it",
        "taps [fusion, block.1 to block.2]; weight 1, iterations 11 to 2,000, rising over 5, falling over the last 7\n",
        "- in mixed precision, bf16\n",
        "imdn-kd prepare div2k --scale 2 -o datasets/DIV2K.store\n",
    ):
        assert part in text, part
    assert "## Teacher" not in text
    assert "EMA" not in text
    assert "the rate" not in module.card({**other, "schedule": {"warmup_iter": 0, "total_iter": 9}})
