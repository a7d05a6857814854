import pytest
from hypothesis import given
from hypothesis import strategies as st

from imdn_kd.errors import InputError
from imdn_kd.inference.sizes import plan_passes, target_size

sides = st.integers(1, 5000)


@pytest.mark.parametrize(
    ("source", "wanted", "expected"),
    [
        ((100, 50), {"scale": 2.7}, (270, 135)),
        ((3, 3), {"scale": 1.5}, (5, 5)),
        ((10, 10), {"scale": 1}, (10, 10)),
        ((480, 640), {"size": (2160, 3840)}, (2160, 3840)),
        ((480, 640), {"fit": (2160, 3840)}, (2160, 2880)),
        ((480, 640), {"fit": (240, 240)}, (180, 240)),
        ((1, 1000), {"fit": (100, 100)}, (1, 100)),
    ],
)
def test_target_size(source, wanted, expected):
    assert target_size(source, **wanted) == expected


@given(source=st.tuples(sides, sides), fit=st.tuples(sides, sides))
def test_fit_lies_inside_and_touches_a_side(source, fit):
    result = target_size(source, fit=fit)
    assert result[0] <= fit[0] and result[1] <= fit[1]
    assert result[0] == fit[0] or result[1] == fit[1]


@pytest.mark.parametrize(
    "wanted",
    [
        {},
        {"scale": 2, "size": (3, 3)},
        {"scale": 0.99},
        {"scale": 0},
        {"scale": -2},
        {"scale": float("nan")},
        {"scale": float("inf")},
        {"scale": 1e200},
        {"scale": 2**31 / 10},
        {"size": (0, 3)},
        {"fit": (3, 0)},
    ],
)
def test_impossible_targets_are_one_line(wanted):
    with pytest.raises(InputError) as caught:
        target_size((10, 10), **wanted)
    assert "\n" not in str(caught.value)


@given(source=st.tuples(sides, sides), target=st.tuples(sides, sides), scales=st.sets(st.integers(2, 4), min_size=1))
def test_passes_reach_the_target_and_the_last_is_needed(source, target, scales):
    passes = plan_passes(source, target, scales)
    reach = 1
    for number in passes:
        assert reach * source[0] < target[0] or reach * source[1] < target[1]
        reach *= number
    assert reach * source[0] >= target[0]
    assert reach * source[1] >= target[1]


@pytest.mark.parametrize(
    ("factor", "scales", "expected"),
    [(2, {2, 3, 4}, [2]), (2.7, {2, 3, 4}, [3]), (4, {2}, [2, 2]), (6, {2, 3, 4}, [4, 2]), (1, {4}, []), (3, {4}, [4])],
)
def test_the_nearest_network_at_or_above_the_factor(factor, scales, expected):
    assert plan_passes((100, 100), (round(100 * factor), round(100 * factor)), scales) == expected
