from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from imdn_kd.inference.tiles import SMALLEST_CORE, Box, plan_crops, round_up

cases = given(
    multiple=st.sampled_from([1, 2, 3, 4, 7, 12]),
    tall=st.integers(1, 300),
    wide=st.integers(1, 300),
    radius=st.integers(0, 40),
    max_area=st.integers(1, 100_000),
)


@cases
def test_cores_cover_every_pixel_once_and_overlaps_reach_far_enough(multiple, tall, wide, radius, max_area):
    height, width = tall * multiple, wide * multiple
    covered = np.zeros((height, width), int)
    for crop in plan_crops(height, width, multiple=multiple, radius=radius, max_area=max_area):
        covered[crop.core.top : crop.core.bottom, crop.core.left : crop.core.right] += 1
        assert all(edge % multiple == 0 for edge in (*crop.core, *crop.padded))
        assert crop.padded.top == 0 or crop.core.top - crop.padded.top >= radius
        assert crop.padded.left == 0 or crop.core.left - crop.padded.left >= radius
        assert crop.padded.bottom == height or crop.padded.bottom - crop.core.bottom >= radius
        assert crop.padded.right == width or crop.padded.right - crop.core.right >= radius
    assert (covered == 1).all()


@cases
def test_crops_keep_to_the_area_unless_they_are_the_smallest(multiple, tall, wide, radius, max_area):
    height, width = tall * multiple, wide * multiple
    crops = plan_crops(height, width, multiple=multiple, radius=radius, max_area=max_area)
    smallest = round_up(SMALLEST_CORE, multiple)
    for crop in crops:
        fits = crop.padded.height * crop.padded.width <= max_area
        assert fits or (crop.core.height <= smallest and crop.core.width <= smallest)


def test_what_fits_is_not_cut():
    assert plan_crops(100, 50, multiple=1, radius=27, max_area=5000) == plan_crops(100, 50, multiple=1, radius=0)
    assert len(plan_crops(100, 50, multiple=1, radius=27, max_area=4999)) > 1


def test_the_grid_with_the_least_overlap_is_chosen():
    crops = plan_crops(1000, 100, multiple=1, radius=10, max_area=30_000)
    assert len({crop.core.left for crop in crops}) == 1  # cutting the long side alone computes fewer px


def test_side_asks_for_a_certain_core():
    crops = plan_crops(100, 64, multiple=4, radius=3, side=30)
    assert {crop.core.top for crop in crops} == {0, 32, 64, 96}


def test_boxes():
    outer, inner = Box(10, 20, 50, 60), Box(12, 24, 20, 30)
    assert inner.inside(outer) == (slice(2, 10), slice(4, 10))
    assert inner.times(Fraction(1, 2)) == Box(6, 12, 10, 15)
