"""Which pixels of a mask are believed."""

import numpy as np

from nocsfm_ros.masks import large_components


def test_an_object_behind_a_finger_is_in_two_parts_and_stray_pixels_are_none() -> None:
    mask = np.zeros((60, 60), bool)
    mask[5:25, 5:45] = mask[35:45, 5:45] = True
    mask[55, 55] = mask[50:53, 2:5] = True
    kept = large_components(mask)
    assert kept[5:25, 5:45].all() and kept[35:45, 5:45].all() and kept.sum() == 30 * 40


def test_of_nothing_nothing_is_left() -> None:
    assert not large_components(np.zeros((8, 8), bool)).any()
    assert large_components(np.ones((8, 8), bool)).all()
