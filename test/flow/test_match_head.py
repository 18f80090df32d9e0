"""The matches inside the velocity network: the motion they agree on, and what happens where there are none."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from nocsfm_ros.flow.conditions import central_depth, live_condition
from nocsfm_ros.flow.match_head import Matched, MatchHead
from nocsfm_ros.flow.model import matched_pose
from nocsfm_ros.flow.motions import apply_affine, rigid_motion
from nocsfm_ros.flow.velocity import VelocityNetwork
from nocsfm_ros.geometry.camera import backproject
from nocsfm_ros.geometry.crops import R_ray_cam
from nocsfm_ros.training.flow import _match_loss
from nocsfm_ros.training.pairs import PairBatch

CELLS = 8


def test_apply_affine_turns_and_shifts_coordinates() -> None:
    affine = torch.tensor([[[0.0, -1, 0, 0.5], [1, 0, 0, 0], [0, 0, 1, -0.25]]])
    xyz = torch.rand(1, 3, 2, 2)
    expected = torch.stack([0.5 - xyz[:, 1], xyz[:, 0], xyz[:, 2] - 0.25], dim=1)
    torch.testing.assert_close(apply_affine(affine, xyz), expected)


def test_rigid_motion_is_the_one_of_most_pairs() -> None:
    rng = np.random.default_rng(0)
    src = torch.from_numpy(rng.uniform(-0.5, 0.5, (2, 60, 3))).float()
    R = torch.from_numpy(cv2.Rodrigues(np.array([0.3, -0.8, 0.4]))[0]).float()
    dst = src @ R.T + torch.tensor([0.1, 0.0, -0.2])
    dst[:, :18] = torch.from_numpy(rng.uniform(-0.5, 0.5, (2, 18, 3))).float()
    motion, agreement = rigid_motion(src, dst, torch.ones(2, 60))
    assert float((motion[:, :, :3] - R).abs().max()) < 0.03
    assert float(agreement.min()) > 0.6
    _, alone = rigid_motion(src, torch.from_numpy(rng.uniform(-0.5, 0.5, (2, 60, 3))).float(), torch.ones(2, 60))
    assert float(alone.max()) < float(agreement.min())


def test_rigid_motion_of_a_mirrored_cloud_is_still_a_rotation() -> None:
    src = torch.rand(1, 30, 3)
    motion, _ = rigid_motion(src, src * torch.tensor([-1.0, 1, 1]), torch.ones(1, 30))
    assert float(torch.linalg.det(motion[0, :, :3])) == pytest.approx(1.0, abs=1e-4)


@torch.no_grad()
def test_without_any_place_every_cell_says_none_and_nothing_is_guessed() -> None:
    torch.manual_seed(0)
    head = MatchHead(16, 20).eval()
    tokens = torch.randn(1, CELLS**2, 20)
    tokens[..., -4:] = 0
    matched = head(torch.randn(1, 16, CELLS, CELLS), tokens, torch.rand(1, 4, 2 * CELLS, 2 * CELLS))
    assert float(matched.logits.softmax(dim=2)[..., -1].min()) > 0.999
    assert float(matched.guess[:, :4].abs().max()) < 1e-3
    torch.testing.assert_close(matched.rigid[0, :, :3], torch.eye(3), atol=1e-4, rtol=0)


def test_match_loss_is_low_for_the_true_partners_alone() -> None:
    batch, partner = _batch(), torch.eye(CELLS**2)[None]
    none = torch.zeros(1, CELLS**2, 1)
    object_cells = batch.mask[0, 0, ::8, ::8].flatten() > 0
    none[:, ~object_cells] = 1
    right = 20 * torch.cat([partner * object_cells[None, :, None], none], dim=2)
    wrong = torch.cat([right[..., :-1].flip(1), right[..., -1:]], dim=2)
    assert float(_match_loss(right, batch)) < 0.3 * float(_match_loss(wrong, batch))


def test_match_loss_of_another_object_wants_no_partner_anywhere() -> None:
    batch = _batch()
    batch.mask.zero_()
    says_none, says_first = torch.zeros(2, 1, CELLS**2, CELLS**2 + 1)
    says_none[..., -1] = says_first[..., 0] = 20
    assert float(_match_loss(says_none, batch)) < 1e-3 < 1 < float(_match_loss(says_first, batch))


def test_matches_reach_the_answer() -> None:
    """A reference of other coordinates leads to another affine map and another velocity."""
    torch.manual_seed(0)
    model = VelocityNetwork(latent_side=16, widths=(16, 48, 48)).eval()
    live, z, tau = torch.rand(1, 8, 64, 64), torch.randn(1, 16, 16, 16), torch.zeros(1)
    tokens = model.encode_reference(torch.rand(1, 8, 64, 64))
    other = tokens.clone()
    other[..., -4:-1] = other[..., -4:-1].flip(1)
    with torch.no_grad():
        said, changed = (model(z, tau, model.encode_live(live), x) for x in (tokens, other))
    assert said.matched is not None and said.matched.logits.shape == (1, 64, 65)
    assert float((said.affine - changed.affine).abs().max()) > 1e-4
    assert float((said.velocity - changed.velocity).abs().max()) > 1e-4


@pytest.mark.parametrize("scale_m", [0.3, None])
def test_matched_pose_undoes_what_the_condition_does(scale_m: float | None) -> None:
    side, K = 64, np.array([[200.0, 0, 90], [0, 200, 20], [0, 0, 1]])  # the crop lies beside the optical axis
    depth_m = np.random.default_rng(0).uniform(0.5, 0.7, (side, side)).astype(np.float32)
    points_cam, uv = backproject(depth_m, K, depth_m > 0)
    R, t, scale = Rotation.from_euler("xyz", [20, -40, 70], degrees=True).as_matrix(), np.array([-0.2, 0.1, 0.6]), 0.3
    nocs = torch.from_numpy((points_cam - t) @ R / scale).float()
    depth, K_crop, R_crop = torch.from_numpy(depth_m)[None], torch.from_numpy(K)[None].float(), R_ray_cam(K, side)
    condition = live_condition(
        torch.zeros(1, 3, side, side), depth, K_crop, torch.from_numpy(R_crop)[None].float(), torch.tensor([scale])
    )
    xyz = condition[0, 3:6].permute(1, 2, 0)[uv[:, 1], uv[:, 0]]
    rigid, agreement = rigid_motion(xyz[None], nocs[None], torch.ones(1, len(xyz)))
    nothing = torch.zeros(1)
    found = matched_pose(
        Matched(nothing, nothing, rigid, agreement, torch.tensor([40.0])), R_crop, float(central_depth(depth)), scale_m
    )
    if scale_m is None:
        assert found is None
        return
    assert found is not None and found.scale_m == scale_m
    np.testing.assert_allclose(found.R_cam_obj, R, atol=1e-4)
    np.testing.assert_allclose(found.t_cam_obj, t, atol=1e-4)


def _batch() -> PairBatch:
    """A reference and a live view alike: an object on the middle cells, its coordinates its place in the picture."""
    side = 8 * CELLS
    line = torch.linspace(-0.5, 0.5, side)
    nocs = torch.stack([*torch.meshgrid(line, line, indexing="ij"), torch.zeros(side, side)])[None]
    mask = torch.zeros(1, 1, side, side)
    mask[..., 16:-16, 16:-16] = 1
    reference = torch.cat([torch.rand(1, 3, side, side), nocs * mask, mask, mask], dim=1)
    nothing = torch.zeros(1, 0, CELLS, CELLS)
    return PairBatch(
        rgb=torch.rand(1, 3, side, side), live=reference, reference=reference, live_context=nothing,
        reference_context=nothing, hints=nothing, nocs=nocs * mask, mask=mask, T_obj_ref=torch.eye(4)[None],
        scale_m=torch.ones(1), index=torch.zeros(1, 2),
    )
