"""True correspondences of rendered views: analytic on a printed block, whose turn in its plane is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from nocsfm_ros.data.views import CROP_SIZE, ViewDataset
from nocsfm_ros.training.correspondences import cell_pixels, match_errors, of_pixels, reference_places
from nocsfm_ros.training.view_tensors import DiskViews, ViewTensors

CPU = torch.device("cpu")
PIXELS = cell_pixels(CROP_SIZE, 16, CPU)
CENTRE_UV = torch.tensor([127.5 + 600 * 0.01 / 0.5, 127.5])  # where the block's middle is seen
PIXEL_SHARE = 0.5 / 600 / 0.172  # of the diagonal, that a pixel spans on the block


@pytest.fixture
def turned(views_folder: Path) -> tuple[ViewTensors, ViewTensors]:
    """The block turned by 20 degrees, and by none as the reference."""
    store = DiskViews(ViewDataset(views_folder), CROP_SIZE, CPU)
    return store.take([1]), store.take([0])


def _turned_back(pixels_uv: torch.Tensor, angle_deg: float) -> torch.Tensor:
    c, s = np.cos(np.deg2rad(angle_deg)), np.sin(np.deg2rad(angle_deg))
    R = torch.tensor([[c, s], [-s, c]], dtype=torch.float32)
    return (pixels_uv - CENTRE_UV) @ R.T + CENTRE_UV


def test_cell_pixels_are_the_cells_middles_row_by_row() -> None:
    assert cell_pixels(256, 16, CPU)[:18].tolist()[::17] == [[8, 8], [24, 24]]
    assert cell_pixels(256, 8, CPU)[-1].tolist() == [240, 240]


def test_places_of_a_turned_block_are_the_turned_pixels(turned: tuple[ViewTensors, ViewTensors]) -> None:
    places_uv, known = reference_places(*turned, PIXELS)
    on_block = of_pixels(turned[0].mask, PIXELS)
    assert known.sum() > 20 and not (known & ~on_block).any()
    assert known.sum() > 0.9 * on_block.sum()
    torch.testing.assert_close(places_uv[known], _turned_back(PIXELS.float(), 20.0)[known[0]], atol=0.02, rtol=0)


def test_places_behind_something_are_not_known(turned: tuple[ViewTensors, ViewTensors]) -> None:
    live, reference = turned
    nearer = reference.depth_m.clone()
    nearer[:, :, :128] -= 0.1
    places_uv, known = reference_places(live, replace(reference, depth_m=nearer), PIXELS)
    assert known.any() and (places_uv[known][:, 0] > 127).all()


def test_places_outside_the_references_mask_are_not_known(turned: tuple[ViewTensors, ViewTensors]) -> None:
    live, reference = turned
    assert not reference_places(live, replace(reference, mask=torch.zeros_like(reference.mask)), PIXELS)[1].any()


def test_continuous_symmetry_is_taken_out(turned: tuple[ViewTensors, ViewTensors]) -> None:
    """A full turn about the mesh's y axis, which lies in the picture: the same point is seen in the same place."""
    live, reference = turned
    half_turn = torch.diag(torch.tensor([-1.0, 1.0, -1.0, 1.0], dtype=torch.float64))
    flipped = replace(live, T_cam_obj=live.T_cam_obj @ half_turn)
    assert not torch.allclose(reference_places(flipped, reference, PIXELS)[0], reference_places(*turned, PIXELS)[0])
    symmetric = replace(flipped, symmetry=torch.zeros_like(live.symmetry))
    torch.testing.assert_close(
        reference_places(symmetric, reference, PIXELS)[0], reference_places(*turned, PIXELS)[0], atol=0.02, rtol=0
    )


def test_match_errors_are_the_distance_on_the_block(turned: tuple[ViewTensors, ViewTensors]) -> None:
    live, reference = turned
    pixels_live = torch.tensor([[[120.0, 120.0], [150.0, 130.0], [150.0, 130.0]]])
    pixels_ref = _turned_back(pixels_live, 20.0) + torch.tensor([[0.0, 0.0], [0.0, 0.0], [20.0, 0.0]])
    errors = match_errors(pixels_ref, pixels_live, reference, live)[0]
    assert errors[:2].max() < PIXEL_SHARE
    assert float(errors[2]) == pytest.approx(20 * PIXEL_SHARE, abs=PIXEL_SHARE)
    no_depth = replace(live, depth_m=torch.zeros_like(live.depth_m))
    assert match_errors(pixels_ref, pixels_live, reference, no_depth).isinf().all()
