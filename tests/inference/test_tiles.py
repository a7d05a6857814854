from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from imdn_kd.inference.tiles import SMALLEST_INNER, Box, plan_tiles, round_up

cases = given(
    multiple=st.sampled_from([1, 2, 3, 4, 7, 12]),
    tall=st.integers(1, 300),
    wide=st.integers(1, 300),
    overlap=st.integers(0, 40),
    max_area=st.integers(1, 100_000),
)


@cases
def test_inner_boxes_cover_every_pixel_once_and_overlaps_reach_far_enough(multiple, tall, wide, overlap, max_area):
    height, width = tall * multiple, wide * multiple
    covered = np.zeros((height, width), int)
    tiles = plan_tiles(height, width, multiple=multiple, overlap=overlap, max_area=max_area)
    assert len({(tile.outer.height, tile.outer.width) for tile in tiles}) == 1
    for tile in tiles:
        covered[tile.inner.top : tile.inner.bottom, tile.inner.left : tile.inner.right] += 1
        assert all(edge % multiple == 0 for edge in (*tile.inner, *tile.outer))
        assert tile.outer.top == 0 or tile.inner.top - tile.outer.top >= overlap
        assert tile.outer.left == 0 or tile.inner.left - tile.outer.left >= overlap
        assert tile.outer.bottom == height or tile.outer.bottom - tile.inner.bottom >= overlap
        assert tile.outer.right == width or tile.outer.right - tile.inner.right >= overlap
    assert (covered == 1).all()


@cases
def test_tiles_keep_to_the_area_unless_they_are_the_smallest(multiple, tall, wide, overlap, max_area):
    height, width = tall * multiple, wide * multiple
    tiles = plan_tiles(height, width, multiple=multiple, overlap=overlap, max_area=max_area)
    smallest = round_up(SMALLEST_INNER, multiple)
    for tile in tiles:
        fits = tile.outer.height * tile.outer.width <= max_area
        assert fits or (tile.inner.height <= smallest and tile.inner.width <= smallest)


def test_what_fits_is_not_cut():
    assert plan_tiles(100, 50, multiple=1, overlap=27, max_area=5000) == plan_tiles(100, 50, multiple=1, overlap=0)
    assert len(plan_tiles(100, 50, multiple=1, overlap=27, max_area=4999)) > 1


def test_the_grid_with_the_least_overlap_is_chosen():
    tiles = plan_tiles(1000, 100, multiple=1, overlap=10, max_area=30_000)
    assert len({tile.inner.left for tile in tiles}) == 1  # cutting the long side alone computes fewer px


def test_side_asks_for_a_certain_core():
    tiles = plan_tiles(100, 64, multiple=4, overlap=3, side=30)
    assert {tile.inner.top for tile in tiles} == {0, 32, 64, 96}


def test_boxes():
    outer, inner = Box(10, 20, 50, 60), Box(12, 24, 20, 30)
    assert inner.inside(outer) == (slice(2, 10), slice(4, 10))
    assert inner.times(Fraction(1, 2)) == Box(6, 12, 10, 15)
