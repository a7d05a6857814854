import sys
from types import ModuleType

import pytest

from imdn_kd.errors import InputError
from imdn_kd.registry import ARCHS, Registry
from imdn_kd.utils.extras import how_to_install
from tests.basicsr_compat import needs_basicsr


def message_of(call):
    with pytest.raises(InputError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def theirs(size):
    return {"size": size}


@pytest.fixture
def places(monkeypatch):
    """A registry with one entry of its own and one outside, and the list of what was looked up outside."""
    asked = []
    outside = ModuleType("a_module_outside")
    outside.find = lambda name: (asked.append(name), theirs if name == "theirs" else None)[1]
    outside.names = lambda: ["theirs"]
    outside.advice = lambda: ""
    monkeypatch.setitem(sys.modules, "a_home", ModuleType("a_home"))
    monkeypatch.setitem(sys.modules, "a_module_outside", outside)
    registry = Registry("thing", "a_home", outside=["a_module_outside"])

    @registry.register
    def ours(*, size, colour="red"):
        return size, colour

    return registry, asked


def test_a_name_of_the_table_is_not_looked_up_outside(places):
    registry, asked = places
    assert registry.build({"type": "ours", "size": 3}) == (3, "red")
    assert not asked


def test_what_is_not_in_the_table_is_found_outside(places):
    registry, asked = places
    assert registry.build({"type": "theirs", "size": 3}) == {"size": 3}
    assert asked == ["theirs"]


def test_only_its_own_names_are_listed(places):
    assert list(places[0]) == ["ours"]


def test_suggestions_come_from_both(places):
    registry, _ = places
    assert message_of(lambda: registry.get("our")) == "no thing is called 'our'; did you mean 'ours'?"
    assert message_of(lambda: registry.get("thiers")) == "no thing is called 'thiers'; did you mean 'theirs'?"
    assert message_of(lambda: registry.get("THEIRS")).endswith("did you mean 'theirs'?")
    assert message_of(lambda: registry.get("zzz")) == "no thing is called 'zzz'; known: ours"


def test_an_option_that_is_needed_is_named(places):
    message = message_of(lambda: places[0].build({"type": "ours", "colour": "blue"}))
    assert message == "the thing 'ours' needs the option 'size'; it takes: size, colour"


def test_without_basicsr_its_networks_are_offered_with_how_to_get_them(monkeypatch):
    monkeypatch.setitem(sys.modules, "basicsr", None)
    message = message_of(lambda: ARCHS.build({"type": "EDSR", "num_in_ch": 3, "num_out_ch": 3}))
    assert message.startswith("no network is called 'EDSR'; known: IMDN, ")
    assert message.endswith(f"networks of BasicSR need its package (and Python below 3.13); {how_to_install('train')}")


@needs_basicsr
def test_networks_of_basicsr_are_suggested_but_not_listed():
    assert message_of(lambda: ARCHS.build({"type": "EDRS"})) == "no network is called 'EDRS'; did you mean 'EDSR'?"
    assert message_of(lambda: ARCHS.build({"type": "swinir"})).endswith("did you mean 'SwinIR'?")
    assert message_of(lambda: ARCHS.build({"type": "imdm"})).endswith("did you mean 'imdn'?")
    assert message_of(lambda: ARCHS.build({"type": "imdn_rct"})).endswith("did you mean 'imdn_rtc'?")
    assert "EDSR" not in list(ARCHS)
