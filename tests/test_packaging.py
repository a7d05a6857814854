"""What the package promises as a whole: what imports cost, what they need, and in which direction they point."""

from __future__ import annotations

import ast
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
import yaml

import imdn_kd

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted((ROOT / "imdn_kd").rglob("*.py"))

# Packages from the ground up. A package imports only from itself and from lower layers.
LAYERS = (
    ("imdn_kd", "imdn_kd.errors"),
    ("imdn_kd.registry", "imdn_kd.utils", "imdn_kd.zoo"),
    ("imdn_kd.config", "imdn_kd.image", "imdn_kd.archs", "imdn_kd.losses"),
    ("imdn_kd.data", "imdn_kd.inference"),
    ("imdn_kd.distill",),
    ("imdn_kd.integrations", "imdn_kd.evaluation", "imdn_kd.web"),
    ("imdn_kd.training", "imdn_kd.serve"),
    ("imdn_kd.release", "imdn_kd.study"),
    ("imdn_kd.cli",),
    ("imdn_kd.__main__",),
)
LAYER = {name: number for number, names in enumerate(LAYERS) for name in names}

DISTRIBUTIONS = {
    "PIL": "pillow",
    "skimage": "scikit-image",
    "yaml": "pyyaml",
    "pydantic_core": "pydantic",
}

EXTRAS = (
    "basicsr",
    "torchvision",
    "cv2",
    "accelerate",
    "tensorboard",
    "spandrel",
    "matplotlib",
    "lmdb",
    "onnx",
    "onnxruntime",
    "openvino",
    "ncnn",
    "pnnx",
    "av",
    "huggingface_hub",
    "gradio",
    "fastapi",
    "starlette",
    "uvicorn",
)


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in SOURCES}
BEYOND_CORE = tuple(f"imdn_kd.{name}" for name in ("training", "release", "study", "integrations", "serve"))
IN_CORE = [name for name in MODULES if not name.startswith(BEYOND_CORE)]


def imports(path: Path) -> Iterator[str]:
    """Everything that a file imports, at its top or inside functions; names of our modules in full."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively; write the name of the module in full"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                lazy = imdn_kd._HOMES.get(alias.name) if node.module == "imdn_kd" else None
                yield lazy or (full if full in MODULES else str(node.module))


# The package itself only hands on names of all layers, lazily.
OWN = {
    name: {other for other in imports(path) if other.split(".")[0] == "imdn_kd" and other != name}
    for name, path in MODULES.items()
    if name != "imdn_kd"
}


def package(name: str) -> str:
    """`imdn_kd.data` of `imdn_kd.data.preparation.job`."""
    return ".".join(name.split(".")[:2])


def run_python(code: str) -> str:
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


def loaded_by(code: str) -> set[str]:
    return set(run_python(f"import sys\n{code}\nprint(*{{name.split('.')[0] for name in sys.modules}})").split())


@pytest.mark.processes
def test_the_package_imports_next_to_nothing():
    outside = loaded_by("import imdn_kd") - loaded_by("") - set(sys.stdlib_module_names)

    assert outside == {"imdn_kd"}


@pytest.mark.processes
def test_inference_imports_nothing_of_the_extras():
    modules = [name for name in MODULES if name.startswith("imdn_kd.inference") and ".engines" not in name]
    loaded = loaded_by(f"import {', '.join(modules)}")

    assert "torch" in loaded
    assert loaded.isdisjoint(EXTRAS)


@pytest.mark.processes
def test_a_core_install_is_enough_to_import_all_but_training():
    blocked = f"import sys; sys.modules.update(dict.fromkeys({EXTRAS}))"

    run_python(f"{blocked}\nimport {', '.join(IN_CORE)}")


@pytest.mark.parametrize("name", sorted(OWN))
def test_imports_point_only_downward(name):
    home = package(name)
    others = {other for other in OWN[name] if package(other) != home}
    not_below = sorted(other for other in others if LAYER[package(other)] >= LAYER[home])

    assert not not_below, f"{name} is on layer {LAYER[home]} and may import only from lower ones"


def test_layers_are_stated_for_every_part():
    assert {package(name) for name in OWN} <= set(LAYER), "give the new part a line in LAYERS"


def test_imports_have_no_circles():
    TopologicalSorter(OWN).prepare()


def test_what_is_imported_is_declared():
    declared = {
        re.split(r"[^A-Za-z0-9_-]", requirement.value)[0].lower()
        for statement in ast.parse((ROOT / "setup.py").read_text(encoding="utf-8")).body
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.List)
        for requirement in statement.value.elts
        if isinstance(requirement, ast.Constant)
    }
    roots = {name.split(".")[0] for path in SOURCES for name in imports(path)} - set(sys.stdlib_module_names)
    used = {DISTRIBUTIONS.get(name, name.replace("_", "-")).lower() for name in roots - {"imdn_kd"}}

    assert {"torch", "pillow"} <= declared
    assert used <= declared


@pytest.mark.parametrize("name", sorted(imdn_kd._HOMES))
def test_lazy_names_are_those_of_their_modules(name):
    value = getattr(imdn_kd, name)

    assert value.__module__ == imdn_kd._HOMES[name]
    assert value is getattr(imdn_kd, name)
    assert name in dir(imdn_kd)


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Upscalar'"):
        _ = imdn_kd.Upscalar


def test_lazy_names_are_the_ones_announced_to_type_checkers():
    tree = ast.parse((ROOT / "imdn_kd" / "__init__.py").read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    announced = {alias.name: node.module for node in block.body for alias in node.names}

    assert announced == {**imdn_kd._HOMES, "losses": "imdn_kd"}
    assert set(imdn_kd.__all__) == {*announced, "__version__"}


def test_every_folder_with_code_is_a_package():
    found = {module.name for module in pkgutil.walk_packages([str(ROOT / "imdn_kd")], "imdn_kd.")}

    assert found == set(MODULES) - {"imdn_kd"}


def test_version_changelog_and_citation_agree():
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest, date = re.findall(r"^## \[(.+)\] - (.+)$", changelog, re.MULTILINE)[0]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))

    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+|rc\d+)?", imdn_kd.__version__)
    assert newest == imdn_kd.__version__ == citation["version"]
    assert date == str(citation["date-released"])
    # What its schema requires: https://github.com/citation-file-format/citation-file-format
    assert citation.keys() >= {"cff-version", "message", "title", "authors"}
    assert all("name" in author or "family-names" in author for author in citation["authors"])


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_files_of_the_project_that_are_named_exist(path):
    named = set(
        re.findall(r"\b(?:options|docs|examples)/[\w./-]+\.(?:yml|md|py|txt)\b", path.read_text(encoding="utf-8"))
    )
    assert [name for name in sorted(named) if not (ROOT / name).is_file()] == []
