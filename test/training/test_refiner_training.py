"""The refiner's training: supposed poses, the motions that undo them, what is learned from them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from nocsfm_ros.data.views import ViewDataset
from nocsfm_ros.flow.motions import apply_affine
from nocsfm_ros.refinement.network import Opinion, PoseRefiner
from nocsfm_ros.refinement.windows import moved_poses
from nocsfm_ros.training.pairs import PairSampler
from nocsfm_ros.training.refiner import (
    POSES,
    RefinerSamples,
    Supposed,
    pose_errors,
    refiner_losses,
    suppose,
    true_motions,
)


@pytest.fixture(scope="module")
def sampler(views_folder: Path) -> PairSampler:
    return PairSampler(ViewDataset(views_folder), 0)


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def test_the_true_motions_lead_from_every_supposed_pose_to_the_truth(sampler: PairSampler) -> None:
    supposed = suppose(sampler, [(0, 1, False), (5, 3, False)], _generator(), augment=False)
    after = _at_truth(supposed)
    assert len(supposed.same) == 2 * POSES and pose_errors(supposed).max() > 0.1
    assert pose_errors(after).max() < 1e-3


def test_at_the_truth_the_rendered_object_lies_on_the_live_one(sampler: PairSampler) -> None:
    supposed = suppose(sampler, [(0, 1, False)], _generator(), augment=False)
    seen = _at_truth(supposed).windows().seen
    hit = (seen[:, 9] > 0) & (seen[:, 4] > 0)
    assert hit.float().mean() > 0.2
    assert (seen[:, 3] - seen[:, 8])[hit].abs().median() < 0.02
    assert (seen[:, :3] - seen[:, 5:8]).abs().mean(dim=1)[hit].median() < 0.15


def test_another_object_reaches_no_level(sampler: PairSampler) -> None:
    torch.manual_seed(0)
    model = PoseRefiner()
    with torch.no_grad():
        model.right[-1].bias.fill_(-20.0)
    of_other = refiner_losses(model, suppose(sampler, [(0, 4, True)], _generator(), augment=False))
    of_same = refiner_losses(model, suppose(sampler, [(0, 1, False)], _generator(), augment=False))
    assert of_other["right"] < 1.0 < of_same["right"] and of_other["motion"] == 0


def test_some_steps_lower_the_loss_and_the_samples_are_drawn(sampler: PairSampler, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = PoseRefiner()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    losses = list[float]()
    for _ in range(12):
        loss = refiner_losses(model, suppose(sampler, [(0, 1, False), (4, 3, False)], _generator(), False))["loss"]
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.9 * losses[0]
    samples = RefinerSamples(sampler, 6, model)
    measured = samples.measure()
    assert 0 < measured["sample_error"] < 2 and 0 <= measured["sample_right"] <= 1
    assert samples.draw(tmp_path / "s.png").shape == (6 * 64, 5 * 64, 3) and (tmp_path / "s.png").is_file()


def test_displacements_that_are_true_give_the_true_motion(sampler: PairSampler) -> None:
    supposed = suppose(sampler, [(0, 1, False), (2, 0, False)], _generator(), augment=False)
    windows = supposed.windows()
    motion = true_motions(supposed, windows.R_ray_cam)
    places = windows.cells[:, :3]
    said = Opinion(apply_affine(motion, places) - places, torch.zeros_like(places[:, :1]), torch.zeros(1))
    seen_enough = windows.cells[:, 3].sum(dim=(1, 2)) > 10
    assert seen_enough.sum() > len(seen_enough) / 2
    assert pose_errors(supposed.moved(windows, said))[seen_enough].max() < 0.01


def _at_truth(supposed: Supposed) -> Supposed:
    R_ray_cam = supposed.windows().R_ray_cam
    T = moved_poses(supposed.T_cam_obj, supposed.surfaces, R_ray_cam, true_motions(supposed, R_ray_cam))
    return replace(supposed, T_cam_obj=T)
