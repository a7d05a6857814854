from __future__ import annotations

import copy
import importlib.util
import json
import math
import pickle
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from imdn_kd.config.json_schema import descriptions, json_schema
from imdn_kd.config.options import Integer, Options, check_options, merged_options, read_options
from imdn_kd.config.reference import reference
from imdn_kd.config.yaml import Document
from imdn_kd.data.preparation.schema import PrepareOptions
from imdn_kd.errors import InputError
from imdn_kd.evaluation.schema import BenchmarkOptions
from tests.refused import refused

ROOT = Path(__file__).resolve().parents[2]


class Anything(Options):
    """Takes what it is given.

    Attributes:
        value: anything.
    """

    value: Any


class Sgd(Options):
    """Plain descent.

    Attributes:
        lr: learning rate,
            per update.
    """

    type: Literal["sgd"]
    lr: float = Field(gt=0)


class Adam(Options):
    """Adam.

    Attributes:
        lr: learning rate.
        betas: how much is kept of the averages.
    """

    type: Literal["adam"]
    lr: float
    betas: Annotated[list[float], Field(min_length=2, max_length=2)] = Field(default_factory=lambda: [0.9, 0.999])


class Network(Options):
    """A network; its own options go along.

    Attributes:
        type: its name.
    """

    model_config = ConfigDict(extra="allow")

    type: str


class Run(Options):
    """A run | of the tests.

    Attributes:
        name: of the run.
        scale: the factor.
        steps: how many.
        optim: the optimiser.
        stages: optimisers that follow each other.
        limits: from `low` to `high`.
        network: by name.
        mode: `fast`, or where to stop.
        share: of the whole.
        lambda_: a key that Python keeps for itself.
    """

    name: str = Field(min_length=1)
    scale: Integer = Field(ge=2)
    steps: Annotated[Integer, Field(ge=1)] | Literal["all"] = "all"
    optim: Annotated[Sgd | Adam, Field(discriminator="type")] | None = None
    stages: list[Sgd] = Field(default_factory=list)
    limits: dict[str, Integer] = Field(default_factory=dict)
    network: Network = Network(type="imdn")
    mode: Literal["fast", "slow"] | list[Annotated[Sgd | Adam, Field(discriminator="type")]] = "fast"
    share: float | None = Field(None, ge=0, lt=1)
    lambda_: float = Field(1.0, alias="lambda")

    @model_validator(mode="after")
    def _agree(self) -> Run:
        if self.name == "refused":
            raise InputError("is {not} taken", code="tests.refused")
        if self.name == "all" and self.steps != "all":
            raise PydanticCustomError("disagree", "name is all, so steps has to be")
        return self


def problems(folder: Path, text: str, *overrides: str, schema: type[Options] = Run) -> list[str]:
    """What is said about a file, without its path."""
    path = folder / "run.yml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        read_options(path, schema, overrides)
    assert str(caught.value).split("\n") == list(caught.value.lines)
    return [line.replace(f"{path}, ", "").replace(f"{path}: ", "") for line in caught.value.lines]


def read(folder: Path, text: str, *overrides: str) -> Run:
    path = folder / "run.yml"
    path.write_text(text)
    return read_options(path, Run, overrides)


def value_of(text: str) -> Any:
    return Document(text, str).content


def test_an_error_has_lines():
    assert str(InputError("a", code="tests.one")) == "a"
    error = pickle.loads(pickle.dumps(InputError("a", "b", code="tests.two")))
    assert (str(error), error.lines, error.code) == ("a\nb", ("a", "b"), "tests.two")


# Numbers


@pytest.mark.parametrize("text", ["2e-4", "1E5", ".5e3", "-1e-3", "5e3", "1.", "+1.5", "-.5", "1e+3", "0e0", "08.5"])
def test_floats_are_those_of_yaml_1_2(text):
    value = value_of(text)
    assert isinstance(value, float)
    assert value == float(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("!!float 5e3", 5000.0),
        ("!!float 5", 5.0),
        ("-.inf", -math.inf),
        ("010", 10),
        ("-7", -7),
        ("0x1F", 31),
        ("0o17", 15),
        ("1_000_000", 1_000_000),
        ("!!int 010", 10),
        ("1:30", "1:30"),
        ("1e", "1e"),
        ("e5", "e5"),
        (".", "."),
        ("-", [None]),
        ("1e5x", "1e5x"),
        ("1.2.3", "1.2.3"),
        ("'2e-4'", "2e-4"),
        ("yes", True),
        ("~", None),
    ],
)
def test_other_values(text, expected):
    value = value_of(text)
    assert value == expected
    assert type(value) is type(expected)


# JSON is a part of YAML 1.2, so Python's reader of JSON says what is right.
LETTERS = st.characters(min_codepoint=32, max_codepoint=0xD7FF, exclude_categories=("Cc", "Cs"))
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    SCALARS | st.text(LETTERS),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(LETTERS, max_size=20), inner, max_size=4),
    max_leaves=12,
)


@given(JSON)
def test_json_is_read_as_json(value):
    assert value_of(json.dumps(value)) == json.loads(json.dumps(value))


@pytest.mark.parametrize("path", sorted((ROOT / "options").rglob("*.yml")), ids=lambda path: path.stem)
def test_option_files_that_need_no_yaml_1_2_are_read_as_by_pyyaml(path):
    text = path.read_text(encoding="utf-8")
    if "e-" not in text:
        assert value_of(text) == yaml.safe_load(text)


TAGS = [f"!!{tag} " for tag in ("bool", "int", "float", "timestamp", "binary", "set", "omap", "null", "python/name:os")]
PIECES = st.sampled_from(
    [*TAGS, "&a ", "*a", "<<: ", "a: ", "- ", "{", "}", "[", "]", ", ", "\n", "  ", "'", '"', "1e5"]
)


@given(st.lists(PIECES | st.text(max_size=3), max_size=12).map("".join))
def test_whatever_is_written_is_read_or_refused_in_one_line(text):
    try:
        document = Document(text, lambda line: f"line {line}")
        document.find(["a", 0, "a"])
    except InputError as error:
        assert len(error.lines) == 1
        assert "\n" not in str(error)


def test_nothing_holds_itself(tmp_path):
    assert problems(tmp_path, "name: a\nlimits: &a\n  b: [*a]\n") == ["line 2: holds itself; correct it"]


def test_what_is_named_often_is_looked_at_once():
    """Each line doubles what the one before it holds."""
    lines = ["a0: &a0 [x]", *(f"a{number}: &a{number} [*a{number - 1}, *a{number - 1}]" for number in range(1, 60))]
    assert len(value_of("\n".join(lines))) == 60


# Whole numbers


@pytest.mark.parametrize("text", ["5e3", "!!float 5e3", "5000", "5000.0", "5_000", "+5000"])
def test_counts(tmp_path, text):
    steps = read(tmp_path, f"name: a\nscale: 2\nsteps: {text}\n").steps
    assert (steps, type(steps)) == (5000, int)


@pytest.mark.parametrize("text", ["5.5", "true", "'5'", "1e400", ".nan", "[5]", "~"])
def test_no_counts(tmp_path, text):
    assert problems(tmp_path, f"name: a\nscale: {text}\n") == ["line 2: scale: is to be a whole number"]


def test_limits_of_counts(tmp_path):
    text = "name: a\nscale: 1e0\nsteps: 0.0\n"
    assert problems(tmp_path, text) == [
        "line 2: scale: is to be at least 2",
        "line 3: steps: is to be at least 1",
    ]


# All problems at once

EVERYTHING = """\
name: 5
scael: 4
optim:
  lrr: 1e-4
  type: adam
  betas: [1, x]
stages:
- {type: sgd, lr: 1}
- type: sgd
  lr: no number
  momentum: 0.9
- type: sgd
limits: {low: 1, low: 2.5}
share: 1
share: 2
mode: fastt
"""


def test_every_problem_is_told_by_line(tmp_path):
    assert problems(tmp_path, EVERYTHING) == [
        "line 1: name: is to be text",
        "line 2: no option is called 'scael'; did you mean 'scale'?",
        "line 4: optim: no option is called 'lrr'; did you mean 'lr'?",
        "line 6: optim.betas.1: is to be a number",
        "line 10: stages.1.lr: is to be a number",
        "line 11: stages.1: no option is called 'momentum'; known: type, lr",
        "line 12: stages.2.lr: is missing",
        "line 13: 'low' is given twice; keep one",
        "line 13: limits.low: is to be a whole number",
        "line 15: 'share' is given twice; keep one",
        "line 15: share: is to be less than 1",
        "line 16: mode: is to be 'fast' or 'slow'",
    ]


# One line each, a mistake and what is said about it. The comments keep the right ones apart.
MISTAKES = {
    "scale: 2": ("scale: two", "scale: is to be a whole number"),
    "steps: 3": ("stepps: 3", "no option is called 'stepps'; did you mean 'steps'?"),
    "  lr: 1e-4": ("  lr: -1", "optim.lr: is to be more than 0"),
    "- {type: sgd, lr: 1}": ("- {type: sgd}", "stages.0.lr: is missing"),
    "- {type: sgd, lr: 2}": ("- {type: adam, lr: 2}", "stages.1.type: is to be 'sgd'"),
    "  low: 1": ("  low: ~", "limits.low: is to be a whole number"),
    "  type: imdn": ("  type: 3", "network.type: is to be text"),
    "share: 0.5": ("share: [1]", "share: is to be a number"),
    "lambda: 2": ("lambda_: 2", "no option is called 'lambda_'; did you mean 'lambda'?"),
}
GOOD = """\
name: a
scale: 2
steps: 3
optim:
  type: sgd
  lr: 1e-4
stages:
- {type: sgd, lr: 1}
- {type: sgd, lr: 2}
limits:
  low: 1
network:
  type: imdn
  upscale: 4
share: 0.5
lambda: 2
"""


@pytest.mark.parametrize("seed", range(20))
def test_any_mistakes_together_are_told_and_no_others(tmp_path, seed):
    chosen = random.Random(seed).sample(sorted(MISTAKES), 1 + seed % len(MISTAKES))
    lines = GOOD.splitlines()
    expected = {}
    for right in chosen:
        number = lines.index(right)
        lines[number], said = MISTAKES[right]
        expected[number + 1] = said
    text = "\n".join(lines)
    assert problems(tmp_path, text) == [f"line {number}: {expected[number]}" for number in sorted(expected)]


def test_the_good_file_is_good(tmp_path):
    run = read(tmp_path, GOOD)
    assert (run.lambda_, run.share, run.network.model_dump()) == (2.0, 0.5, {"type": "imdn", "upscale": 4})


def test_a_misspelt_key_is_one_mistake(tmp_path):
    known = "known: name, scale, steps, optim, stages, limits, network, mode, share, lambda"
    assert problems(tmp_path, "nme: a\nscale: 2\n") == ["line 1: no option is called 'nme'; did you mean 'name'?"]
    assert problems(tmp_path, "factor: 3\nname: a\n") == [
        f"line 1: no option is called 'factor'; did you mean 'scale', which is missing? {known}"
    ]
    assert problems(tmp_path, "factor: 3\nzzz: 4\nname: a\n") == [
        "line 1: scale: is missing",
        f"line 1: no option is called 'factor'; {known}",
        f"line 2: no option is called 'zzz'; {known}",
    ]


@pytest.mark.parametrize("key", ["1", "2.5", "~", "true", "on", "'[key]'"])
def test_keys_of_any_kind_are_named(tmp_path, key):
    (line,) = problems(tmp_path, f"name: a\nscale: 2\n{key}: 1\n")
    shown = key.strip("'")
    assert line.startswith(f"line 3: no option is called '{shown}'; known: ")


def test_sections_that_are_open_take_other_keys_and_still_check_their_own(tmp_path):
    assert problems(tmp_path, "name: a\nscale: 2\nnetwork: {typ: imdn}\n") == ["line 3: network.type: is missing"]


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        ("[{type: sgd}, {type: adam, lr: x}]", ["mode.0.lr: is missing", "mode.1.lr: is to be a number"]),
        ("[{type: sgd, lrr: 1}]", ["mode.0: no option is called 'lrr'; did you mean 'lr'?"]),
        ("[{type: sdg}]", ["mode.0: is to be one of 'sgd', 'adam'"]),
        ("5", ["mode: is to be 'fast' or 'slow'"]),
    ],
)
def test_of_several_kinds_the_one_that_fits_furthest_is_told(tmp_path, mode, said):
    found = problems(tmp_path, f"name: a\nscale: 2\nmode: {mode}\n")
    assert len(found) == len(said)
    assert all(line.startswith(f"line 3: {start}") for line, start in zip(found, said, strict=True))


def test_what_sections_have_to_agree_on_is_told_when_they_are_right(tmp_path):
    assert problems(tmp_path, "name: all\nscale: 2\nsteps: 3\n") == ["line 1: name is all, so steps has to be"]
    assert problems(tmp_path, "name: all\nscale: 1\nsteps: 3\n") == ["line 2: scale: is to be at least 2"]


def test_lines_of_what_is_merged(tmp_path):
    text = "name: a\nscale: 2\nnetwork:\n  type: x\n  base: &base\n    type: sgd\n    lr: x\noptim:\n  <<: *base\n"
    assert problems(tmp_path, text) == ["line 7: optim.lr: is to be a number"]


def test_options_from_elsewhere_are_a_line_each_as_well():
    with refused("options.out-of-range") as caught:
        check_options({"name": "", "scale": 1}, Run, "here")
    assert caught.value.lines == (
        "here: name: is too short; give at least 1 characters",
        "here: scale: is to be at least 2",
    )


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("options.unknown-key", "name: a\nscale: 2\nzzz: 1\n"),
        ("options.unknown-key", "scael: 2\nname: a\nshare: x\n"),
        ("options.missing", "name: a\n"),
        ("options.wrong-type", "name: a\nscale: 2\nshare: x\n"),
        ("options.wrong-type", "name: a\nscale: 2.5\n"),
        ("options.wrong-type", "name: a\nscale: 2\noptim: 3\n"),
        ("options.wrong-value", "name: a\nscale: 2\nmode: fastt\n"),
        ("options.wrong-value", "name: a\nscale: 2\noptim: {type: sdg}\n"),
        ("options.out-of-range", "name: ''\nscale: 2\n"),
        ("options.out-of-range", "name: a\nscale: 1\n"),
        ("options.out-of-range", "name: a\nscale: 2\nshare: 1\n"),
        ("options.out-of-range", "name: a\nscale: 2\noptim: {type: adam, lr: 1, betas: [1]}\n"),
        ("options.duplicate-key", "name: a\nname: b\nscale: 2\nzzz: 1\n"),
        ("options.disagree", "name: all\nscale: 2\nsteps: 3\n"),
        ("options.not-yaml", "name: [\n"),
        ("options.not-yaml", "name: !!python/name:os.system\n"),
        ("options.self-reference", "name: &a [*a]\n"),
        ("options.empty-file", "- a\n"),
        ("tests.refused", "name: refused\nscale: 2\n"),
    ],
)
def test_each_kind_of_fault_has_a_code(tmp_path, code, text):
    (tmp_path / "run.yml").write_text(text)
    with refused(code):
        read_options(tmp_path / "run.yml", Run)


def test_errors_of_other_modules_keep_their_code_and_words(tmp_path):
    assert problems(tmp_path, "name: refused\nscale: 2\n") == ["line 1: is {not} taken"]


class Foreign(Options):
    """With keys of another project.

    Attributes:
        weights: of the teacher.
        inner: the same once more.
    """

    moved: ClassVar = {"pretrain": "give weights"}
    harmless: ClassVar = {"task": "has no effect here"}

    weights: str
    inner: Foreign | None = None


def test_keys_of_other_projects_are_answered_with_where_they_live_here(tmp_path):
    text = "pretrain: a\ninner:\n  weights: b\n  pretrain: {c: d}\nweights: 3\n"
    assert problems(tmp_path, text, schema=Foreign) == [
        "line 1: no option is called 'pretrain'; give weights",
        "line 4: inner: no option is called 'pretrain'; give weights",
        "line 5: weights: is to be text",
    ]
    assert problems(tmp_path, "pretrain: a\n", schema=Foreign)[0] == "line 1: weights: is missing"


def test_harmless_keys_of_other_projects_are_accepted_and_told(tmp_path):
    path = tmp_path / "run.yml"
    path.write_text("task: sr\nweights: a\ninner:\n  weights: b\n  task: ~\n")
    options = read_options(path, Foreign)
    assert [*options.ignored_keys()] == ["task: has no effect here", "inner.task: has no effect here"]
    assert options.model_dump() == {"weights": "a", "inner": {"weights": "b", "inner": None}}


# Overrides


def test_overrides(tmp_path):
    run = read(
        tmp_path,
        GOOD,
        *("scale=4e0", "name= b ", "optim.lr=2e-3", "stages.1.lr=7", "limits={high: 3}", "limits.low=1"),
        *("share=~", "network.upscale=[1, 2]", "network.deep.er.still=true", "name='x=y'"),
    )
    assert (run.scale, run.name, run.share) == (4, "x=y", None)
    assert isinstance(run.optim, Sgd)
    assert run.optim.lr == 2e-3
    assert [stage.lr for stage in run.stages] == [1, 7]
    assert run.limits == {"high": 3, "low": 1}
    assert run.network.model_dump() == {"type": "imdn", "upscale": [1, 2], "deep": {"er": {"still": True}}}


def test_overrides_make_sections_where_there_is_nothing(tmp_path):
    run = read(tmp_path, "name: a\nscale: 2\noptim: ~\n", "optim.type=sgd", "optim.lr=1", "limits.x=1")
    assert (run.optim, run.limits) == (Sgd(type="sgd", lr=1), {"x": 1})


def test_keys_of_overrides_are_typed_as_in_the_file(tmp_path):
    path = tmp_path / "value.yml"
    path.write_text("value: {4: a, x: b}\n")
    overrides = ("value.4=c", "value.5=d", "value.y=e", "value.x=f")
    assert read_options(path, Anything, overrides).value == {4: "c", "x": "f", 5: "d", "y": "e"}


def test_what_is_shared_in_the_file_is_changed_in_one_place_only(tmp_path):
    text = "name: a\nscale: 2\noptim: &it {type: sgd, lr: 1}\nstages: [*it, *it]\n"
    run = read(tmp_path, text, "stages.0.lr=3")
    assert isinstance(run.optim, Sgd)
    assert (run.optim.lr, run.stages[0].lr, run.stages[1].lr) == (1, 3, 1)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("scale", "--set scale: has no value; write KEY=VALUE, as in train.optim_g.lr=1e-4"),
        ("=3", "--set =: has an empty key; write KEY=VALUE, as in train.optim_g.lr=1e-4"),
        ("optim..lr=3", "--set optim..lr=: has an empty key; write KEY=VALUE, as in train.optim_g.lr=1e-4"),
        ("optim.lr=[", "--set optim.lr: is not plain YAML"),
        ("optim.lr=!!python/name:os.system", "--set optim.lr: is not plain YAML"),
        ("limits={a: 1, a: 2}", "--set limits: 'a' is given twice; keep one"),
        ("scale.x=1", "--set scale.x: scale is no section, but 2; give scale itself"),
        ("stages.2.lr=1", "--set stages.2.lr: stages is a list with items 0 to 1; give the number of one"),
        ("stages.lr=1", "--set stages.lr: stages is a list with items 0 to 1; give the number of one"),
        ("stages.-1.lr=1", "--set stages.-1.lr: stages is a list with items 0 to 1; give the number of one"),
        ("scale=x", "--set scale: is to be a whole number"),
        ("scael=3", "--set scael: no option is called 'scael'; did you mean 'scale'?"),
        ("optim.lrr=3", "--set optim.lrr: no option is called 'lrr'; did you mean 'lr'?"),
        ("optim={type: sgd, lr: x}", "--set optim: optim.lr: is to be a number"),
        ("optim={type: sgd}", "--set optim: optim.lr: is missing"),
        ("stages={-1: 3}", "--set stages: is to be a list"),
        ("stages=[{type: sgd, lr: 1}, {}, {}]", "--set stages: stages.1.type: is missing"),
        ("lambda.x=1", "--set lambda.x: lambda is no section, but 2; give lambda itself"),
    ],
)
def test_mistakes_in_overrides_are_named_by_them(tmp_path, override, said):
    assert problems(tmp_path, GOOD, override)[0].startswith(said)


def test_what_is_missing_in_a_section_that_an_override_has_made(tmp_path):
    text = "name: a\nscale: 2\n"
    assert problems(tmp_path, text, "optim.type=sgd") == ["--set optim.type: optim.lr: is missing"]
    assert problems(tmp_path, text + "optim: {}\n", "optim.type=sgd") == ["line 3: optim.lr: is missing"]


def test_mistakes_in_file_and_overrides_are_told_together(tmp_path):
    text = GOOD.replace("lambda: 2", "lambda: x").replace("share: 0.5", "share: 5")
    assert problems(tmp_path, text, "share=0.5", "steps", "scale=1", "name.x=1") == [
        "line 16: lambda: is to be a number",
        "--set steps: has no value; write KEY=VALUE, as in train.optim_g.lr=1e-4",
        "--set name.x: name is no section, but 'a'; give name itself",
        "--set scale: is to be at least 2",
    ]
    assert problems(tmp_path, "a: [", "steps")[1:] == [
        "--set steps: has no value; write KEY=VALUE, as in train.optim_g.lr=1e-4"
    ]


# JSON and any key without dots and of plain letters.
@given(st.lists(st.text("abcxyz_", min_size=1), min_size=1, max_size=4), JSON)
def test_an_override_puts_a_value_anywhere(tmp_path_factory, keys, value):
    path = tmp_path_factory.getbasetemp() / "value.yml"
    path.write_text("value: ~\n")
    expected = json.loads(json.dumps(value))
    found = read_options(path, Anything, [f"value.{'.'.join(keys)}={json.dumps(value)}"]).value
    for key in keys:
        assert list(found) == [key]
        found = found[key]
    assert found == expected


# Descriptions


def schemas() -> list[type[Options]]:
    kinds: list[type[Options]] = [BenchmarkOptions, PrepareOptions]
    if importlib.util.find_spec("imdn_kd.training.schema"):
        kinds.append(importlib.import_module("imdn_kd.training.schema").TrainOptions)
    return kinds


def all_options(base: type[Options] = Options) -> list[type[Options]]:
    found = []
    for each in base.__subclasses__():
        found += [*([each] if each.__module__.startswith("imdn_kd.") else []), *all_options(each)]
    return found


def test_every_option_of_the_package_is_described():
    assert len(schemas()) >= 2
    for cls in all_options():
        assert descriptions(cls).keys() == cls.model_fields.keys(), cls
        assert all(descriptions(cls).values()), cls


@pytest.mark.parametrize("schema", schemas(), ids=lambda schema: schema.__name__)
def test_every_key_that_a_file_may_have_is_described(schema):
    document = json_schema(schema)
    sections = [document, *document.get("$defs", {}).values()]
    for section in sections:
        assert section["description"]
        assert "additionalProperties" in section
        for key, node in section["properties"].items():
            assert node["description"], f"{section['title']}.{key}"
            assert key in section.get("required", []) or "default" in node
    text = reference(schema)
    for section in sections:
        for key in section["properties"]:
            assert f"| `{key}` |" in text


def test_descriptions_come_from_docstrings():
    assert descriptions(Sgd) == {"lr": "learning rate, per update.", "type": "Plain descent."}
    assert descriptions(Run)["lambda"] == "a key that Python keeps for itself."

    class Child(Run):
        """More.

        Attributes:
            more: of it.

        Raises:
            Nothing: at all.
        """

        more: int = 0

    assert descriptions(Child) == {**descriptions(Run), "more": "of it."}


def test_json_schema():
    document = json_schema(Run)
    assert document["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert document["additionalProperties"] is False
    assert document["$defs"]["Network"]["additionalProperties"] is True
    assert document["required"] == ["name", "scale"]
    keys = document["properties"]
    assert keys["scale"] == {"type": "integer", "minimum": 2, "description": "the factor."}
    assert keys["steps"]["anyOf"] == [{"type": "integer", "minimum": 1}, {"type": "string", "const": "all"}]
    assert keys["limits"]["additionalProperties"] == {"type": "integer"}
    assert keys["lambda"]["default"] == 1.0
    assert document["$defs"]["Adam"]["properties"]["betas"]["default"] == [0.9, 0.999]


REFERENCE = """\
## The file

A run | of the tests.

| key | kind | default | meaning |
|---|---|---|---|
| `name` | string that is not empty | required | of the run. |
| `scale` | integer >= 2 | required | the factor. |
| `steps` | integer >= 1 or `all` | `all` | how many. |
| `optim` | section [`sgd`](#optim-sgd) or [`adam`](#optim-adam) | `~` | the optimiser. |
| `stages` | list of sections [`sgd`](#optim-sgd) | `[]` | optimisers that follow each other. |
| `limits` | mapping of names to integers | `{}` | from `low` to `high`. |
| `network` | section [`network`](#network) | `{"type": "imdn"}` | by name. |
| `mode` | one of `fast`, `slow`, or list of sections [`sgd`](#optim-sgd) or [`adam`](#optim-adam) | `fast` | \
`fast`, or where to stop. |
| `share` | number in [0, 1) | `~` | of the whole. |
| `lambda` | number | `1.0` | a key that Python keeps for itself. |

## `optim`: `sgd`

Plain descent.

| key | kind | default | meaning |
|---|---|---|---|
| `type` | `sgd` | required | Plain descent. |
| `lr` | number > 0 | required | learning rate, per update. |

## `optim`: `adam`

Adam.

| key | kind | default | meaning |
|---|---|---|---|
| `type` | `adam` | required | Adam. |
| `lr` | number | required | learning rate. |
| `betas` | list of 2 numbers | `[0.9, 0.999]` | how much is kept of the averages. |

## `network`

A network; its own options go along.

| key | kind | default | meaning |
|---|---|---|---|
| `type` | string | required | its name. |
| any other | anything |  | handed on as it is. |
"""


def test_reference():
    assert reference(Run) == REFERENCE


WRONG = (None, True, -7, 2.5, math.nan, math.inf, "", "x", [], ["x"], [[]], {}, {"x": 1}, {3: [1]})
PYDANTIC = re.compile(r"Input |Field |should|valid |unable|pydantic|validation|Extra |Dictionary|\bstr\b|\bint\b|\{")


def leaves(value: Any, keys: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The keys of every section, list and value."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in inside:
        yield (*keys, key)
        yield from leaves(each, (*keys, key))


def with_value(content: Any, keys: tuple[Any, ...], value: Any) -> Any:
    if not keys:
        return value
    changed = copy.copy(content)
    changed[keys[0]] = with_value(content[keys[0]], keys[1:], value)
    return changed


@pytest.mark.parametrize(
    ("file", "schema"),
    [
        ("train/imdn_x4.yml", "imdn_kd.training.schema.TrainOptions"),
        ("distill/holistic.yml", "imdn_kd.training.schema.TrainOptions"),
        ("test/benchmark_x2.yml", "imdn_kd.evaluation.schema.BenchmarkOptions"),
        ("prepare/restoration.yml", "imdn_kd.data.preparation.schema.PrepareOptions"),
    ],
)
def test_whatever_is_wrong_is_told_in_the_words_of_option_files(file, schema):
    module, _, name = schema.rpartition(".")
    options = getattr(importlib.import_module(module), name)
    content = merged_options(Path(__file__).parents[2] / "options" / file)
    check_options(content, options, "here")
    told = 0
    for keys in leaves(content):
        for value in WRONG:
            try:
                check_options(with_value(content, keys, value), options, "here")
            except InputError as error:
                told += 1
                for line in error.lines:
                    said = line.removeprefix("here: ")
                    assert not PYDANTIC.search(said), (keys, value, line)
                    assert "\n" not in said
    assert told > 100
