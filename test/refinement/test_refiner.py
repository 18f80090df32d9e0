"""The refiner on one crop: whose poses it moves, in which frame, and what it does without depth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from nocsfm_ros.errors import CheckpointError
from nocsfm_ros.geometry.transforms import make_T, rotation_angle_deg
from nocsfm_ros.refinement.network import LEVELS, Opinion, PoseRefiner, load_refiner
from nocsfm_ros.refinement.refiner import Refiner
from nocsfm_ros.types import ObjectCrop, SimilarityPose

S = 128
K = np.array([[200.0, 0, 63.5], [0, 200.0, 63.5], [0, 0, 1]])
TURN = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])


class QuarterTurn(torch.nn.Module):
    """Says that everything must turn by 90 degrees about the viewing axis, and is sure of what is nearer."""

    def __init__(self) -> None:
        super().__init__()
        self.count = list[int]()

    def forward(self, seen: torch.Tensor) -> Opinion:
        self.count.append(len(seen))
        along = (torch.arange(16) + 0.5) / 8 - 1
        places = torch.stack([along.expand(16, 16), along[:, None].expand(16, 16), torch.zeros(16, 16)]) * 1.2
        moved = torch.einsum("ij,jhw->ihw", TURN, places) - places
        logits = torch.linspace(4, -4, len(seen))[:, None].expand(-1, len(LEVELS))
        return Opinion(moved.expand(len(seen), -1, -1, -1), torch.zeros(len(seen), 1, 16, 16), logits)


def _crop() -> tuple[ObjectCrop, np.ndarray]:  # type: ignore[type-arg]
    mask = np.zeros((S, S), bool)
    mask[40:90, 30:100] = True
    depth_m = np.where(mask, 0.5, 0.8).astype(np.float32)
    return ObjectCrop(np.full((S, S, 3), 90, np.uint8), depth_m, np.eye(3), K), mask


def test_poses_are_moved_about_the_surface_whatever_the_views_own_frame() -> None:
    network = QuarterTurn()
    refiner, (crop, mask) = Refiner(network), _crop()  # type: ignore[arg-type]
    surface = refiner.surface(crop, mask)
    assert surface is not None
    for T_view_obj in (np.eye(4), make_T(np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]]), np.array([0.1, 0.2, 0.5]))):
        pose = SimilarityPose(T_view_obj[:3, :3], T_view_obj[:3, 3], 0.3)  # seen as in the view
        (once,), (twice,) = (refiner.moved(crop, surface, T_view_obj, [pose], steps) for steps in (1, 2))
        assert rotation_angle_deg(pose.R_cam_obj, once.R_cam_obj) == pytest.approx(90, abs=3)
        assert rotation_angle_deg(pose.R_cam_obj, twice.R_cam_obj) == pytest.approx(180, abs=6)
        middle = surface.middle[0].double().numpy()
        middle_obj = (middle - T_view_obj[:3, 3]) @ T_view_obj[:3, :3]
        np.testing.assert_allclose(once.R_cam_obj @ middle_obj + once.t_cam_obj, middle, atol=0.01)
        assert once.scale_m == 0.3
    assert network.count == [1, 1, 1] * 2


def test_a_pose_that_shows_nothing_of_the_surface_stays() -> None:
    refiner, (crop, mask) = Refiner(QuarterTurn()), _crop()  # type: ignore[arg-type]
    surface = refiner.surface(crop, mask)
    assert surface is not None
    from_behind = SimilarityPose(np.diag([-1.0, 1, -1]), np.array([0, 0, 1.0]), 0.3)
    (moved,) = refiner.moved(crop, surface, np.eye(4), [from_behind], 1)
    np.testing.assert_allclose(moved.T_cam_obj, from_behind.T_cam_obj, atol=1e-5)


def test_scores_are_in_the_order_of_the_poses() -> None:
    refiner, (crop, mask) = Refiner(QuarterTurn()), _crop()  # type: ignore[arg-type]
    surface = refiner.surface(crop, mask)
    assert surface is not None
    scores = refiner.scores(crop, surface, np.eye(4), [SimilarityPose(np.eye(3), np.zeros(3), 0.3)] * 3)
    assert scores.shape == (3,) and scores[0] > 0.95 > 0.55 > scores[1] > 0.45 > 0.05 > scores[2]


def test_without_depth_there_is_no_surface() -> None:
    crop, mask = _crop()
    blind = ObjectCrop(crop.rgb, np.zeros_like(crop.depth_m), crop.A_crop_image, crop.K_crop)
    assert Refiner(PoseRefiner()).surface(blind, mask) is None


def test_saved_weights_come_back_and_a_missing_folder_is_named(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = PoseRefiner(widths=(8, 16, 32), layers=1).eval()
    network.save_pretrained(tmp_path / "refiner")
    seen = torch.randn(2, 10, 64, 64)
    torch.testing.assert_close(load_refiner(tmp_path / "refiner")(seen).logits, network(seen).logits)
    with pytest.raises(CheckpointError, match="nothing_here"):
        load_refiner(tmp_path / "nothing_here")


def test_a_weights_folder_of_its_own_refiner_is_used_before_the_embedded_one(tmp_path: Path) -> None:
    PoseRefiner(widths=(8, 16, 32), layers=1).save_pretrained(tmp_path / "refiner")
    assert Refiner.from_folder(tmp_path).network.config["widths"] == [8, 16, 32]
    assert Refiner.from_folder(tmp_path / "other").network.config["widths"] == [24, 48, 96]
