"""Similarity, mutual neighbours and point matches against answers known by construction."""

from __future__ import annotations

import numpy as np
import pytest

from nocsfm_ros.errors import ShapeError
from nocsfm_ros.matching.backbone import FeatureMap
from nocsfm_ros.matching.matcher import cell_mask, match_points, mutual_nearest_neighbours, similarity_map


def unit_rows(seed: int, *shape: int) -> np.ndarray:  # type: ignore[type-arg]
    rows = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    result: np.ndarray = rows / np.linalg.norm(rows, axis=-1, keepdims=True)  # type: ignore[type-arg]
    return result


def test_similarity_map_planted_cell_is_one_and_others_equal_brute_force() -> None:
    reference, frame = unit_rows(0, 5, 16), unit_rows(1, 4, 6, 16)
    frame[2, 3] = reference[4]
    expected = np.array([[max(float(r @ cell) for r in reference) for cell in row] for row in frame])
    found = similarity_map(reference, frame)
    assert found.shape == (4, 6)
    assert np.allclose(found, expected, atol=1e-6)
    assert found[2, 3] == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("shape_ref", [(0, 16), (5, 15)])
def test_similarity_map_bad_reference_raises(shape_ref: tuple[int, int]) -> None:
    with pytest.raises(ShapeError, match="expected"):
        similarity_map(np.zeros(shape_ref, np.float32), unit_rows(1, 4, 6, 16))


def test_mutual_nearest_neighbours_permuted_rows_finds_permutation() -> None:
    a = unit_rows(2, 30, 24)
    order = np.random.default_rng(3).permutation(30)
    pairs, similarity = mutual_nearest_neighbours(a, a[order])
    assert np.array_equal(pairs[:, 0], np.arange(30))
    assert np.array_equal(order[pairs[:, 1]], np.arange(30))
    assert np.allclose(similarity, 1.0, atol=1e-5)


def test_mutual_nearest_neighbours_one_sided_choice_is_dropped() -> None:
    a = np.array([[1, 0], [0.8, 0.6]], np.float32)
    b = np.array([[1, 0]], np.float32)
    pairs, similarity = mutual_nearest_neighbours(a, b)
    assert pairs.tolist() == [[0, 0]]
    assert similarity.tolist() == [1.0]


def test_mutual_nearest_neighbours_empty_side_gives_no_pairs() -> None:
    pairs, similarity = mutual_nearest_neighbours(np.zeros((0, 8), np.float32), unit_rows(4, 3, 8))
    assert pairs.shape == (0, 2)
    assert similarity.shape == (0,)


def test_pixels_of_cells_are_their_middles() -> None:
    grid = FeatureMap(np.zeros((2, 2, 1), np.float32), 16.0)
    assert grid.pixels_from_cells(np.array([[0.0, 1.0], [0.25, -0.5]])).tolist() == [[7.5, 23.5], [11.5, -0.5]]


def test_cell_mask_half_plane_takes_cells_whose_middle_is_inside() -> None:
    mask = np.zeros((32, 64), bool)
    mask[:, 24:] = True
    chosen = cell_mask(FeatureMap(np.zeros((2, 4, 1), np.float32), 16.0), mask)
    assert chosen.tolist() == [[False, True, True, True]] * 2


def test_match_points_shifted_grid_gives_shift_inside_masks_only() -> None:
    cells = unit_rows(5, 8, 8, 32)
    reference, live = FeatureMap(cells, 16.0), FeatureMap(np.roll(cells, (1, 2), axis=(0, 1)), 16.0)
    mask = np.zeros((128, 128), bool)
    mask[16:80, 16:80] = True
    uv_ref, uv_live, similarity = match_points(reference, mask, live)
    assert len(uv_ref) == 16
    assert np.abs(uv_live - uv_ref - (32.0, 16.0)).max() < 8.0  # refined by less than half a cell
    assert mask[np.rint(uv_ref[:, 1]).astype(int), np.rint(uv_ref[:, 0]).astype(int)].all()
    assert (similarity > 0.99).all()


def test_match_points_empty_mask_gives_no_pairs() -> None:
    grid = FeatureMap(unit_rows(6, 4, 4, 8), 16.0)
    uv_ref, uv_live, similarity = match_points(grid, np.zeros((64, 64), bool), grid)
    assert uv_ref.shape == uv_live.shape == (0, 2)
    assert len(similarity) == 0
