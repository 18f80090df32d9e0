"""Evaluation: the true answer has no error, a wrong one its own, and tables count what they say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from nocsfm_ros.config import Config
from nocsfm_ros.data.library import CACHE_VERSION, CATALOGUE_LIST, MeshLibrary
from nocsfm_ros.estimator import Estimator
from nocsfm_ros.evaluation.evaluate import NO_DIFFUSION, NO_HANDS, evaluate
from nocsfm_ros.evaluation.metrics import bootstrap_interval, markdown_table, summarise_row
from nocsfm_ros.evaluation.pairs import ROWS, Answer, Case, RowResult, diffusion_rows, view_change_deg
from nocsfm_ros.evaluation.plots import plot_curves, plot_steps
from nocsfm_ros.evaluation.robustness import HOLE_SHARE, Robustness, is_flat, masks_iou, with_holes
from nocsfm_ros.evaluation.shapes import ObjectShape
from nocsfm_ros.flow.autoencoder import build_autoencoder
from nocsfm_ros.flow.model import FlowModel
from nocsfm_ros.flow.velocity import VelocityNetwork
from nocsfm_ros.geometry.crops import coordinates
from nocsfm_ros.geometry.transforms import invert
from nocsfm_ros.matching.backbone import EFFICIENTNET, load_backbone
from nocsfm_ros.types import SimilarityPose

SIDE, DISTANCE_M, SMALL = 128, 0.5, (16, 48, 48)
K = np.array([[300.0, 0, 63.5], [0, 300.0, 63.5], [0, 0, 1.0]])
SHAPE = ObjectShape(
    np.random.default_rng(0).uniform(-0.5, 0.5, (200, 3)) * (0.14, 0.1, 0.001), np.array([0.14, 0.1, 0.001]), 0.172
)


def plate_view(angle_deg: float, shift_m: float) -> dict[str, Any]:
    """A printed plate of 14 x 10 cm in front of a wall, facing the camera, turned in its plane."""
    T = np.eye(4)
    T[:3, :3] = Rotation.from_euler("z", angle_deg, degrees=True).as_matrix()
    T[:3, 3] = (shift_m, 0.0, DISTANCE_M)
    v, u = np.mgrid[:SIDE, :SIDE]
    rays = np.stack([u, v, np.ones_like(u)], axis=-1) @ np.linalg.inv(K).T
    on_plate = (rays * DISTANCE_M - T[:3, 3]) @ T[:3, :3]
    mask = (np.abs(on_plate[..., 0]) < 0.07) & (np.abs(on_plate[..., 1]) < 0.05)
    cells = np.floor(on_plate[..., :2] / 0.02).astype(int) % 16
    print_of = np.random.default_rng(0).integers(0, 255, (16, 16, 3))  # nothing repeats
    rgb = np.where(mask[..., None], print_of[cells[..., 1], cells[..., 0]], 90)
    depth_m = np.where(mask, DISTANCE_M, DISTANCE_M + 0.2)
    return {
        "rgb": rgb.astype(np.uint8), "depth": np.rint(depth_m * 1e4).astype(np.uint16),
        "mask": (mask * 255).astype(np.uint8), "K": K, "T_cam_obj": T, "symmetry": 1, "diagonal_m": 0.172,
    }


@pytest.fixture(scope="module")
def estimator() -> Estimator:
    torch.manual_seed(0)
    backbone = load_backbone(EFFICIENTNET, "cpu")
    channels = backbone.encode(np.zeros((32, 32, 3), np.uint8)).features.shape[-1]
    velocity = VelocityNetwork(widths=SMALL, context_channels=channels, context_backbone=EFFICIENTNET)
    return Estimator(FlowModel(build_autoencoder(), velocity), backbone, Config())


@pytest.fixture(scope="module")
def case(estimator: Estimator) -> Case:
    return Case(plate_view(20.0, 0.01), plate_view(0.0, 0.0), estimator)


def true_pose(case: Case, extra_deg: float = 0.0, extra_m: float = 0.0) -> SimilarityPose:
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_euler("x", extra_deg, degrees=True).as_matrix()
    turn[0, 3] = extra_m
    T = case.live["T_cam_obj"] @ turn @ invert(case.reference["T_cam_obj"]) @ case.view.T_cam_obj
    return SimilarityPose(T[:3, :3], T[:3, 3], case.view.anchor_scale_m or 0.0)


def test_true_answer_has_no_error(case: Case) -> None:
    pose = true_pose(case)
    nocs = coordinates(case.crop, invert(pose.T_cam_obj)) / np.float32(pose.scale_m)
    result = case.result(Answer(case.mask, pose, nocs, 1.0), SHAPE)
    assert result.mask_iou == 1.0 and result.nocs_err < 1e-4
    assert result.rot_err_deg < 1e-3 and result.trans_err_m < 1e-6
    assert result.add_m < 1e-6 and result.adds_m < 1e-6 and result.box_iou == pytest.approx(1, abs=1e-3)


def test_wrong_answer_has_its_own_error(case: Case) -> None:
    result = case.result(Answer(~case.mask, true_pose(case, 7.0, 0.03), None, 1.0), SHAPE)
    assert result.mask_iou == 0.0 and np.isnan(result.nocs_err)
    assert result.rot_err_deg == pytest.approx(7.0, abs=1e-3)
    assert result.trans_err_m == pytest.approx(0.03, abs=1e-6)
    assert 0.03 <= result.add_m < 0.035 and 0 < result.adds_m < result.add_m and 0 < result.box_iou < 0.7


def test_no_pose_is_infinitely_wrong(case: Case) -> None:
    result = case.result(Answer(case.mask, None, None, 1.0), SHAPE)
    assert np.isinf([result.rot_err_deg, result.trans_err_m, result.add_m, result.adds_m]).all()
    assert result.box_iou == 0


def test_every_row_answers_whatever_the_weights(case: Case, estimator: Estimator) -> None:
    channels = estimator.flow.velocity.config["context_channels"]
    denoising = VelocityNetwork(
        widths=SMALL, context_channels=channels, context_backbone=EFFICIENTNET, objective="diffusion"
    )
    rows = ROWS | diffusion_rows(FlowModel(build_autoencoder(), denoising))
    assert list(rows) == ["identity", "matches", "flow_paper", "flow", "product", "flow_4", "flow_10", "diffusion_10",
                          "diffusion_50"]
    for row, answer in rows.items():
        result = case.result(answer(case), SHAPE)
        assert 0 <= result.mask_iou <= 1 and result.ms > 0, row


def test_matches_find_the_turned_plate_without_training(case: Case) -> None:
    result = case.result(ROWS["matches"](case), SHAPE)
    assert result.rot_err_deg < 6 and result.trans_err_m < 0.01


def test_view_change_is_the_turn_between_the_views() -> None:
    assert view_change_deg(plate_view(35.0, 0), plate_view(0.0, 0)) == pytest.approx(35.0)


def test_changed_inputs_change_the_flows_mask_and_holes_take_their_share(case: Case) -> None:
    assert set(masks_iou(case, 0)) == {"as_is", "grey", "no_depth", "holes"}
    holed = with_holes(case.frame, 0)
    assert np.abs(case.flow(case.frame).mask_prob - case.flow(holed).mask_prob).max() > 1e-4
    assert (holed.depth_m == 0).mean() == pytest.approx(HOLE_SHARE, abs=0.02)
    assert is_flat(case)


def test_summary_puts_pairs_into_their_bins_and_counts_what_is_within_the_limits() -> None:
    results = [RowResult(0.9, 0.1, 5.0, 0.2, 3.0, 0.01, 0.019, 0.01, 0.8, 0.6),
               RowResult(0.7, 0.3, 7.0, 0.2, 8.0, 0.04, 0.021, 0.021, 0.4, 0.2), RowResult(0.5, 0.2, 9.0, 0.2)]
    row = summarise_row(results, np.array([10.0, 20.0, 50.0]))
    assert row["mask_iou"] == pytest.approx(0.7) and row["ms_per_object"] == 7.0
    assert row["bins"]["0-15"]["5deg2cm"] == 100 and row["bins"]["15-30"]["5deg5cm"] == 0
    assert row["bins"]["15-30"]["10deg5cm"] == 100 and row["bins"]["15-30"]["10deg2cm"] == 0
    assert row["bins"]["30-60"]["rot_err_deg_p50"] == 180
    assert row["bins"]["le60"]["5deg5cm"] == pytest.approx(33.3) and "60-90" not in row["bins"]
    le60 = row["bins"]["le60"]
    assert [le60[key] for key in ("3diou25", "3diou50", "3diou75")] == pytest.approx([66.7, 33.3, 33.3])
    assert [le60[key] for key in ("3diou25_released", "3diou75_released")] == pytest.approx([33.3, 0])
    assert [le60[key] for key in ("add", "adds", "adds_auc")] == pytest.approx([33.3, 33.3, 100 * 1.69 / 3], abs=0.06)
    robustness = {"mask_iou": {"grey": 0.5}, "refused_percent": {}}
    table = markdown_table({"rows": {"flow": row}, "robustness": robustness, "left_out": ["hands: none given"]})
    assert "| flow | le60 | 3 |" in table and "| grey | 0.500 |" in table
    assert "| 30-60 | 1 | 0.500 | 0.200 | no pose |" in table and "Left out: hands: none given." in table


def test_bootstrap_interval_holds_the_mean_and_narrows_with_more_values() -> None:
    values = np.random.default_rng(0).normal(3.0, 1.0, 400)
    low, high = bootstrap_interval(values)
    few_low, few_high = bootstrap_interval(values[:25])
    assert low < values.mean() < high and high - low < 0.5 * (few_high - few_low)


def test_hands_are_judged_by_the_visible_part_and_an_absent_object_by_an_empty_mask(case: Case) -> None:
    emptied = case.live | {"mask": np.zeros_like(case.live["mask"])}
    views: Any = Views([case.reference, *[case.live] * 4, emptied])
    robustness = Robustness()
    robustness.add_hands(views, 3, case.estimator)
    shown = robustness.masks["hand_1.0"]
    assert shown == robustness.masks["hand_0.5"] and 0 <= shown[0] <= 1
    small = robustness.masks["absent"] == [1.0]
    mask_pixels = (case.answer_of_flow[0].mask_prob > 0.5).sum()
    assert small == (mask_pixels < case.estimator.config.tracking.min_mask_pixels)
    assert robustness.summary()["num_hands"] == 1


class Views(list[dict[str, Any]]):
    """Views of cluster 3 as a ViewDataset gives them."""

    mesh_names = ("procedural/100000", "procedural/100001")

    def column(self, name: str) -> Any:
        return np.array([({"cluster": 3, "visible": 1.0, "mesh": 0} | view)[name] for view in self])


def test_evaluation_writes_figures_table_and_plots_and_says_what_it_left_out(
    estimator: Estimator, tmp_path: Path
) -> None:
    (tmp_path / CACHE_VERSION).mkdir()
    (tmp_path / CACHE_VERSION / CATALOGUE_LIST).write_text("", encoding="utf-8")
    views: Any = Views(plate_view(angle, 0.0) | {"mesh": mesh} for angle, mesh in ((0, 0), (10, 0), (50, 1)))
    out, facts = tmp_path / "out", {"command": "nocsfm evaluate"}
    metrics = evaluate(views, MeshLibrary(tmp_path), estimator, out, 2, facts, print)
    assert json.loads((out / "metrics.json").read_text(encoding="utf-8")) == metrics
    assert list(metrics["rows"]) == list(ROWS) and metrics["command"] == "nocsfm evaluate"
    assert sum(metrics["rows"]["flow"]["bins"][name]["n"] for name in ("le30", "30-60") if name in
               metrics["rows"]["flow"]["bins"]) == 2
    assert set(metrics["robustness"]["mask_iou"]) >= {"as_is", "grey", "no_depth", "holes", "other_object"}
    assert metrics["left_out"] == [NO_DIFFUSION, NO_HANDS]
    assert all((out / name).stat().st_size for name in ("table.md", "curves.png", "steps.png"))


def test_plots_are_drawn_of_the_rows_there_are(tmp_path: Path) -> None:
    results = [RowResult(0.9, 0.1, 5.0, 0.2, 3.0, 0.01), RowResult(0.5, 0.2, 9.0, 0.2)]
    row = summarise_row(results, np.array([10.0, 50.0]))
    rows = {"flow": row, "flow_4": row, "product": row}
    plot_curves(rows, tmp_path / "curves.png")
    plot_steps(rows, tmp_path / "steps.png")
    for name in ("curves.png", "steps.png"):
        picture = cv2.imread(str(tmp_path / name))
        assert picture is not None and len(np.unique(picture.reshape(-1, 3), axis=0)) > 20


def test_interval_of_a_median_holds_it() -> None:
    values = np.random.default_rng(0).exponential(1.0, 200)
    low, high = bootstrap_interval(values, np.median)
    assert low < np.median(values) < high < values.mean() * 1.2
