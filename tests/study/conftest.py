"""A small study: two arms and two controls of a tiny student on the sample photographs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from imdn_kd.inference.model_file import ModelFile, save_model
from imdn_kd.registry import ARCHS
from tests.training.small_recipes import make_photographs
from tests.training.small_runs import content, merged

TINY = {"type": "IMDN", "num_feat": 8, "num_block": 1, "upscale": 2}


@pytest.fixture(scope="package")
def study_data(tmp_path_factory) -> Path:
    """A store, `held_out`, `tested`, and a teacher that has learned nothing."""
    folder = make_photographs(tmp_path_factory.mktemp("study_data"))
    save_model(folder / "teacher.safetensors", ModelFile(ARCHS.build({**TINY, "num_feat": 16})))
    return folder


def base_content(data: Path) -> dict[str, Any]:
    changes = {
        "name": "base",
        "network_g": TINY,
        "datasets": {
            "train": {"batch_size_per_gpu": 2},
            "val": {"name": "held_out", "dataroot_gt": str(data / "held_out")},
            "test": {"name": "tested", "dataroot_gt": str(data / "tested")},
        },
        "val": {"val_freq": 4},
        "logger": {"print_freq": 4, "save_checkpoint_freq": 4, "keep_last": 1},
    }
    return merged(content(data), changes)


def study_content(data: Path, changes: dict[str, Any] | None = None) -> dict[str, Any]:
    distill = {"cache": True, "check_images": 0, "objectives": {"l_kd": {"type": "L1Loss"}}}
    teacher = {"weights": str(data / "teacher.safetensors")}
    whole = {
        "name": "small",
        "question": "Is it the teacher?",
        "base": "base.yml",
        "budget": 8,
        "seeds": [0, 1],
        "control": "scratch",
        "select": ["held_out"],
        "report": ["tested"],
        "arms": {
            "scratch": {"control": "scratch"},
            "kd": {
                "options": {"network_t": teacher, "distill": distill},
                "found": "It helps.",
                "source": "https://arxiv.org/abs/1903.04197",
                "expect": "better",
            },
            "gt": {"control": "teacher_replaced_by_gt", "of": "kd"},
        },
    }
    return merged(whole, changes or {})


@pytest.fixture
def write_study(study_data, tmp_path):
    """Write the option file of a study with changes (None takes a key away), and that of its base; returns its path."""

    def write(changes: dict[str, Any] | None = None, base: dict[str, Any] | None = None) -> Path:
        (tmp_path / "base.yml").write_text(yaml.safe_dump(merged(base_content(study_data), base or {})))
        path = tmp_path / "study.yml"
        path.write_text(yaml.safe_dump(study_content(study_data, changes), sort_keys=False))
        return path

    return write
