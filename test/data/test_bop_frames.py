"""BOP scenes: poses in the centred frame, the symmetry axis along y, what is missing is said."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bop_scenes import CENTRE_M, model_facts, write_bop
from nocs_scenes import Thing, pose, seen

from nocsfm_ros.data.bop_frames import BopFrames
from nocsfm_ros.errors import ConfigError

THING = Thing(1, "", pose((20, 50, -70), (0.03, -0.02, 0.7)))


def test_instance_has_mask_visible_share_and_pose_of_the_boxs_middle(tmp_path: Path) -> None:
    frames = BopFrames(write_bop(tmp_path, {7: THING}))
    (instance,) = frames.instances(0)
    frame = frames.frame(0)
    np.testing.assert_array_equal(instance.mask, seen(THING, frame.K)[0] > 0)
    np.testing.assert_allclose(instance.T_cam_obj, THING.T_cam_obj, atol=1e-12)
    assert instance.diagonal_m == pytest.approx(0.2)
    assert (instance.model, instance.symmetry, instance.visible) == ("obj_000005", 1, 0.75)
    assert frames.models(0) == ["obj_000005"]


@pytest.mark.parametrize("axis", [(0, 0, 1), (0, 0, -1), (0, -1, 0), (1, 0, 0), (0, 2, 0)])
def test_instance_with_continuous_symmetry_has_y_along_the_axis_and_its_origin_on_it(
    tmp_path: Path, axis: tuple[float, float, float]
) -> None:
    offset_mm = 1000 * CENTRE_M + [2.0, 1.0, 3.0]
    symmetry = {"axis": axis, "offset": offset_mm.tolist()}
    (instance,) = BopFrames(write_bop(tmp_path, {0: THING}, symmetries_continuous=[symmetry])).instances(0)
    direction = THING.T_cam_obj[:3, :3] @ np.array(axis) / np.linalg.norm(axis)
    assert instance.symmetry == 0
    assert abs(instance.T_cam_obj[:3, 1] @ direction) == pytest.approx(1)
    assert np.linalg.det(instance.T_cam_obj[:3, :3]) == pytest.approx(1)
    on_axis = (THING.T_cam_obj @ [*(offset_mm / 1000 - CENTRE_M), 1])[:3]
    assert np.linalg.norm(np.cross(instance.T_cam_obj[:3, 3] - on_axis, direction)) < 1e-9
    middle_along_axis = (instance.T_cam_obj[:3, 3] - THING.T_cam_obj[:3, 3]) @ direction
    assert middle_along_axis == pytest.approx(0, abs=1e-9)


def test_instance_without_info_file_counts_as_seen_and_without_mask_is_left_out(tmp_path: Path) -> None:
    scene = write_bop(tmp_path, {0: THING, 1: replace(THING, diagonal_m=0.1)})
    (scene / "scene_gt_info.json").unlink()
    (scene / "mask_visib" / "000001_000000.png").unlink()
    frames = BopFrames(scene)
    assert [instance.visible for instance in frames.instances(0)] == [1.0]
    assert frames.instances(1) == []


def test_scene_without_models_info_says_where_it_was_looked_for(tmp_path: Path) -> None:
    scene = write_bop(tmp_path, {0: THING})
    (tmp_path / "models" / "models_info.json").unlink()
    with pytest.raises(ConfigError, match=r"models_info\.json"):
        BopFrames(scene)


def test_model_without_size_or_unknown_object_raises(tmp_path: Path) -> None:
    scene, file = write_bop(tmp_path, {0: THING}), tmp_path / "models" / "models_info.json"
    file.write_text(json.dumps({"5": {"diameter": 3}}), encoding="utf-8")
    with pytest.raises(ConfigError, match="min_x"):
        BopFrames(scene)
    file.write_text(json.dumps({"6": model_facts(0.2)}), encoding="utf-8")
    with pytest.raises(ConfigError, match="no object 5"):
        BopFrames(scene).instances(0)


def test_annotation_without_a_pose_raises(tmp_path: Path) -> None:
    scene = write_bop(tmp_path, {0: THING})
    (scene / "scene_gt.json").write_text(json.dumps({"0": [{"obj_id": 5, "cam_R_m2c": [1, 2]}]}), encoding="utf-8")
    with pytest.raises(ConfigError, match="cam_R_m2c"):
        BopFrames(scene).instances(0)
