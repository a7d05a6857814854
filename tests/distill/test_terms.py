"""Weight schedules of loss terms."""

from hypothesis import given
from hypothesis import strategies as st

from imdn_kd.distill.terms import weight_schedule


def test_without_ramp_and_decay_a_weight_is_constant():
    at = weight_schedule(0.5, total=10)
    assert [at(step) for step in range(12)] == [0.5] * 10 + [0, 0]


def test_it_ramps_up_holds_and_decays():
    at = weight_schedule(1.0, total=100, start=2, stop=12, ramp=3, decay=3)
    assert [at(step) for step in range(14)] == [0, 0, 0.25, 0.5, 0.75, 1, 1, 1, 1, 0.75, 0.5, 0.25, 0, 0]


@given(st.integers(0, 30), st.integers(1, 30), st.integers(0, 40), st.integers(0, 40), st.integers(1, 60))
def test_it_never_exceeds_its_value_and_is_positive_between_start_and_stop(start, length, ramp, decay, total):
    at = weight_schedule(2.0, total=total, start=start, stop=start + length, ramp=ramp, decay=decay)
    for step in range(80):
        assert (0 < at(step) <= 2.0) == (start <= step < start + length)
