"""Imported views: poses of genuine coordinate maps, pairs that agree, what is left out, resuming."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from bop_scenes import write_bop
from nocs_scenes import SEMI_AXES, Thing, pose, seen, write_frame

from nocsfm_ros import cli
from nocsfm_ros.data.folders import NOCS_REAL_K
from nocsfm_ros.data.nocs_frames import NocsFrames
from nocsfm_ros.data.views import DEPTH_UNIT_M, ViewDataset
from nocsfm_ros.errors import ConfigError
from nocsfm_ros.geometry.transforms import invert, rotation_angle_deg, transform
from nocsfm_ros.training import dataset_import
from nocsfm_ros.training.dataset_import import CAMERA_DIAGONAL_M, ImportJob, import_views, instance_pose
from nocsfm_ros.training.pairs import PairSampler
from nocsfm_ros.training.view_tensors import flow_view

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "nocs_samples"
MUG = Thing(1, "6 mug_blue_norm", pose((20, 50, -70), (0.03, -0.02, 0.7)))
MUG_TURNED = replace(MUG, number=2, T_cam_obj=pose((45, 40, -50), (-0.1, 0.03, 0.6)))
CAN = Thing(3, "4 can_red_norm", pose((10, 0, 30), (0.1, 0.05, 0.8)), 0.15)
FAR_CAN = replace(CAN, number=4, T_cam_obj=pose((0, 0, 0), (-0.8, 0.0, 6.0)))

needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the optional test data ../shared/data is absent")


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards are made by a thread instead of a process, which takes a second to start."""
    monkeypatch.setattr(dataset_import, "worker_pool", lambda workers: ThreadPoolExecutor(max(1, workers)))


def median_disagreement(views: ViewDataset, live_row: int, reference_row: int, live: Thing, reference: Thing) -> float:
    """Between the coordinates that training is given and the things' true poses, over the live object, NOCS units."""
    batch = PairSampler(views, 0).make([(live_row, reference_row, False)], augment=False)
    view, scale_m = flow_view(views[live_row], 128), float(batch.scale_m[0])
    v, u = np.nonzero(view["mask"])
    assert len(v) > 500
    rays = np.stack([u, v, np.ones(len(u))]).T @ np.linalg.inv(view["K"]).T
    points_obj = transform(invert(live.T_cam_obj), rays * (view["depth"][v, u] * DEPTH_UNIT_M)[:, None])
    expected = transform(batch.T_obj_ref[0].numpy() @ reference.T_cam_obj, points_obj) / scale_m
    return float(np.median(np.linalg.norm(batch.nocs[0].numpy()[:, v, u].T - expected, axis=1)))


def test_real_views_of_two_scenes_give_pairs_whose_coordinates_agree(tmp_path: Path, in_process: None) -> None:
    write_frame(tmp_path / "nocs" / "real_train" / "scene_1", "0000", [MUG, CAN])
    write_frame(tmp_path / "nocs" / "real_train" / "scene_2", "0000", [MUG_TURNED])

    counts = import_views(ImportJob(tmp_path / "nocs", tmp_path / "out"))

    views = ViewDataset(tmp_path / "out")
    assert counts == {"views": 3}
    assert [views.mesh_names[mesh] for mesh in views.column("mesh")] == [
        "mug_blue_norm", "can_red_norm", "mug_blue_norm"
    ]
    np.testing.assert_array_equal(views.column("cluster"), views.column("mesh"))
    assert views.column("symmetry").tolist() == [1, 0, 1]
    assert views.column("visible").tolist() == [1.0] * 3
    np.testing.assert_allclose(views.column("diagonal_m"), [0.2, 0.15, 0.2], rtol=0.01)
    assert median_disagreement(views, 2, 0, MUG_TURNED, MUG) < 0.01
    assert median_disagreement(views, 2, 0, MUG, MUG) > 0.1  # so it can tell


def test_camera_views_of_a_model_in_two_sizes_are_brought_to_one(tmp_path: Path, in_process: None) -> None:
    large = replace(MUG_TURNED, diagonal_m=0.3, T_cam_obj=pose((45, 40, -50), (-0.1, 0.03, 0.9)))
    write_frame(tmp_path / "nocs" / "train" / "00000", "0000", [MUG], is_camera=True)
    write_frame(tmp_path / "nocs" / "train" / "00001", "0000", [large], is_camera=True)

    import_views(ImportJob(tmp_path / "nocs", tmp_path / "out"))

    views = ViewDataset(tmp_path / "out")
    assert views.column("diagonal_m").tolist() == [CAMERA_DIAGONAL_M] * 2
    assert median_disagreement(views, 1, 0, resized(large), resized(MUG)) < 0.01


def resized(thing: Thing) -> Thing:
    gain = np.diag([*[CAMERA_DIAGONAL_M / thing.diagonal_m] * 3, 1])
    T_cam_obj = thing.T_cam_obj.copy()
    T_cam_obj[:, 3] = gain @ T_cam_obj[:, 3]
    return replace(thing, T_cam_obj=T_cam_obj)


def test_view_has_the_coordinate_maps_depth_where_the_sensor_has_none_or_another(
    tmp_path: Path, in_process: None
) -> None:
    scene = tmp_path / "real_train" / "scene_1"
    write_frame(scene, "0000", [MUG])
    depth_m, _ = seen(MUG, NOCS_REAL_K)
    sensor = np.rint(1000 * np.where(depth_m > 0, depth_m, 1.5)).astype(np.uint16)
    v, u = np.nonzero(depth_m)
    sensor[v.min() : v.min() + 8], sensor[:, u.min() : u.min() + 8] = 0, 1500
    cv2.imwrite(str(scene / "0000_depth.png"), sensor)

    import_views(ImportJob(tmp_path, tmp_path / "out"))

    view = ViewDataset(tmp_path / "out")[0]
    rows, columns = np.nonzero(view["mask"])
    rays = np.stack([columns, rows, np.ones(len(rows))]).T @ np.linalg.inv(view["K"]).T
    points_obj = transform(invert(MUG.T_cam_obj), rays * (view["depth"][rows, columns] * DEPTH_UNIT_M)[:, None])
    radius = np.linalg.norm(points_obj / (SEMI_AXES * MUG.diagonal_m), axis=1)
    assert np.percentile(np.abs(radius - 1), 99) < 0.06


def test_instances_and_frames_that_cannot_be_used_are_counted(tmp_path: Path, in_process: None) -> None:
    scene = tmp_path / "real_train" / "scene_1"
    write_frame(scene, "0000", [FAR_CAN, MUG])
    write_frame(scene, "0001", [MUG])
    shutil.copy(scene / "0001_color.png", scene / "0001_coord.png")  # a photo holds no coordinates
    write_frame(scene, "0002", [MUG])
    (scene / "0002_meta.txt").write_text("nonsense", encoding="utf-8")
    write_frame(scene, "0003", [MUG])
    (scene / "0003_mask.png").unlink()

    write_frame(scene, "0004", [MUG])
    coord = np.array(cv2.imread(str(scene / "0004_coord.png")))
    coord[:, : int(np.median(np.nonzero(seen(MUG, NOCS_REAL_K)[0])[1]))] = 0  # half of them are wrong
    cv2.imwrite(str(scene / "0004_coord.png"), coord)

    assert import_views(ImportJob(tmp_path, tmp_path / "out")) == {
        "views": 1, "instances that are too small": 1, "frames that cannot be read": 2,
        "instances whose depth and coordinate map do not agree": 2,
    }


def test_split_is_told_by_the_scenes_folder_and_stride_counts_frames(tmp_path: Path, in_process: None) -> None:
    write_frame(tmp_path / "nocs" / "CAMERA" / "val" / "00000", "0000", [CAN], is_camera=True)
    for name in ("0000", "0001", "0002"):
        write_frame(tmp_path / "nocs" / "Real" / "train" / "scene_1", name, [MUG])
    import_views(ImportJob(tmp_path / "nocs", tmp_path / "train", stride=2))
    import_views(ImportJob(tmp_path / "nocs", tmp_path / "test", "test"))
    names = {split: ViewDataset(tmp_path / split).mesh_names for split in ("train", "test")}
    assert names == {"train": ["mug_blue_norm"], "test": ["can_red_norm"]}
    assert len(ViewDataset(tmp_path / "train")) == 2
    assert json.loads((tmp_path / "test" / "meshes.json").read_text())[0]["split"] == "test"


def test_import_goes_on_with_missing_shards_only(
    tmp_path: Path, in_process: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset_import, "FRAMES_PER_SHARD", 1)
    for name in ("0000", "0001"):
        write_frame(tmp_path / "train" / "scene_1", name, [MUG])
    job, shards = ImportJob(tmp_path / "train", tmp_path / "out"), []
    import_views(job)
    first = ViewDataset(tmp_path / "out").column("rgb")
    (tmp_path / "out" / "shard_00001").rename(tmp_path / "out" / "shard_00001.partial")

    counts = import_views(job, on_shard=lambda done, total: shards.append((done, total)))

    assert counts == {"views": 1} and shards == [(2, 2)]
    np.testing.assert_array_equal(first, ViewDataset(tmp_path / "out").column("rgb"))
    with pytest.raises(ConfigError, match="another folder"):
        import_views(replace(job, stride=2))


def test_import_of_nothing_says_what_is_missing(tmp_path: Path, in_process: None) -> None:
    write_frame(tmp_path / "real_test" / "scene_1", "0000", [MUG])
    with pytest.raises(ConfigError, match="--split test"):
        import_views(ImportJob(tmp_path, tmp_path / "out"))
    write_frame(tmp_path / "real_train" / "scene_1", "0000", [FAR_CAN])
    with pytest.raises(ConfigError, match="1 instances that are too small"):
        import_views(ImportJob(tmp_path, tmp_path / "out"))


def test_command_prints_progress_and_what_was_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_frame(tmp_path / "train" / "00000", "0000", [FAR_CAN, MUG])
    assert cli.main(["import", str(tmp_path / "train"), "--out", str(tmp_path / "out")]) == cli.DONE
    assert capsys.readouterr().out.splitlines() == [
        "1/1 shards", "1 views", "left out: 1 instances that are too small"
    ]


def test_bop_views_give_pairs_whose_coordinates_agree(tmp_path: Path, in_process: None) -> None:
    write_bop(tmp_path / "lm", {3: MUG, 4: MUG_TURNED})

    assert import_views(ImportJob(tmp_path / "lm", tmp_path / "out")) == {"views": 2}

    views = ViewDataset(tmp_path / "out")
    assert views.mesh_names == ["obj_000005"]
    assert views.column("symmetry").tolist() == [1, 1]
    np.testing.assert_allclose(views.column("visible"), [0.75, 0.75])
    np.testing.assert_allclose(views.column("diagonal_m"), 0.2, rtol=1e-6)
    np.testing.assert_allclose(views.column("T_cam_obj"), [MUG.T_cam_obj, MUG_TURNED.T_cam_obj], atol=1e-9)
    assert median_disagreement(views, 1, 0, MUG_TURNED, MUG) < 0.01


@needs_shared
@pytest.mark.parametrize(
    ("scene", "least_inliers"),
    [("real_test/scene_1", 0.75), ("real_train/scene_1", 0.75), ("train/00000", 0.99), ("val/00000", 0.99)],
)
def test_shared_instance_poses_fit_the_depth(scene: str, least_inliers: float) -> None:
    frame = NocsFrames(SHARED / scene).load(0)
    found = [instance_pose(frame, instance) for instance in frame.instances]
    assert len(found) >= 2 and all(fit is not None and fit[1] >= least_inliers for fit in found)


@needs_shared
def test_shared_camera_poses_are_the_published_ones() -> None:
    frames = NocsFrames(SHARED / "val" / "00000")
    frame = frames.load(0)
    truth = frames.truth(frame)
    assert len(truth) == 2
    for instance in frame.instances:
        fit, published = instance_pose(frame, instance), truth[instance.number].pose
        assert fit is not None
        assert rotation_angle_deg(fit[0].R_cam_obj, published.R_cam_obj) < 1
        assert np.linalg.norm(fit[0].t_cam_obj - published.t_cam_obj) < 0.001
        assert fit[0].scale_m == pytest.approx(published.scale_m, rel=0.01)
