"""Rendered views: geometry they claim, determinism, resuming. Needs off-screen OpenGL; no catalogue."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nocsfm_ros.data import views
from nocsfm_ros.data.library import MeshLibrary
from nocsfm_ros.data.renderer import Renderer, Rendering
from nocsfm_ros.data.scenes import sample_scene, sample_target
from nocsfm_ros.errors import ConfigError


def _cluster(library: MeshLibrary, renderer: Renderer, heldout: bool = False) -> list[views.View]:
    return views.render_cluster(np.random.default_rng(3), library, renderer, heldout, num_views=3)


def test_depth_in_mask_back_projected_lies_in_the_objects_box(
    library: MeshLibrary, renderer: Renderer
) -> None:
    for view in _cluster(library, renderer):
        rows, columns = np.nonzero(view["mask"])
        z = view["depth"][rows, columns] * views.DEPTH_UNIT_M
        rays = np.linalg.solve(view["K"], np.stack([columns, rows, np.ones(len(rows))]))
        T = view["T_cam_obj"]
        points_obj = (rays * z).T @ T[:3, :3] - T[:3, 3] @ T[:3, :3]
        mesh = library.mesh(int(view["mesh"]))
        limit = np.abs(mesh.vertices).max(0) * view["diagonal_m"] + 1e-3
        assert len(rows) > 50
        assert (np.abs(points_obj) <= limit).all()


def test_crop_is_none_where_the_whole_picture_shows_nothing_of_the_target(
    library: MeshLibrary, renderer: Renderer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def behind_a_wall(*args: Any, **options: Any) -> Rendering:
        picture = render(*args, **options)
        return replace(picture, instance=np.zeros_like(picture.instance))

    rng, render = np.random.default_rng(3), renderer.render
    target = sample_target(rng, library, False, views.NUM_SURFACES)
    scene = sample_scene(rng, library, target, False, views.NUM_SURFACES, crowded=False)
    crop = partial(views.render_crop, renderer=renderer, scene=scene, target=target, hull=library.hull(target.index))
    assert crop(np.random.default_rng(0)) is not None
    monkeypatch.setattr(renderer, "render", behind_a_wall)
    assert crop(np.random.default_rng(0)) is None


def test_cluster_with_same_seed_gives_same_pictures(library: MeshLibrary, renderer: Renderer) -> None:
    for one, two in zip(_cluster(library, renderer), _cluster(library, renderer), strict=True):
        np.testing.assert_array_equal(one["rgb"], two["rgb"])
        np.testing.assert_array_equal(one["depth"], two["depth"])


def test_cluster_orientations_lie_within_two_turns_of_45_deg(
    library: MeshLibrary, renderer: Renderer
) -> None:
    R = [view["T_cam_obj"][:3, :3] for view in _cluster(library, renderer)]
    angles = [np.degrees(np.arccos(np.clip((np.trace(R[0] @ other.T) - 1) / 2, -1, 1))) for other in R[1:]]
    assert all(0 < angle <= 90 for angle in angles)


def test_heldout_cluster_shows_only_heldout_meshes(library: MeshLibrary, renderer: Renderer) -> None:
    assert library.is_heldout[[view["mesh"] for view in _cluster(library, renderer, heldout=True)]].all()


def test_hands_leave_their_share_of_one_scene_visible_and_the_last_view_lacks_the_target(
    library: MeshLibrary, renderer: Renderer
) -> None:
    reference, *shown, absent = views.render_hands(np.random.default_rng(5), library, renderer, True)
    assert reference["visible"] >= 0.95 and not np.array_equal(reference["T_cam_obj"], absent["T_cam_obj"])
    for share, view in zip(views.HAND_SHARES, shown, strict=True):
        assert abs(view["visible"] - share) <= views.HAND_TOLERANCE
        np.testing.assert_array_equal(view["T_cam_obj"], absent["T_cam_obj"])
    free = shown[0]
    np.testing.assert_array_equal(absent["K"], free["K"])
    assert not absent["mask"].any() and absent["visible"] == 0
    was_object = free["mask"] > 0
    assert (absent["rgb"] != free["rgb"])[was_object].any(axis=1).mean() > 0.8


def test_crop_matrix_maps_the_squares_corners_to_the_crops_corners() -> None:
    A = views.crop_matrix((100.0, 50.0), 40.0, 128)
    np.testing.assert_allclose(A @ [80.0, 30.0, 1], [-0.5, -0.5, 1])
    np.testing.assert_allclose(A @ [120.0, 70.0, 1], [127.5, 127.5, 1])


def test_inside_frame_of_crop_beyond_the_corner_is_true_only_in_the_picture() -> None:
    A = views.crop_matrix((-0.5, -0.5), 8.0, 8)
    inside = views.inside_frame(A, 8, (640, 480))
    assert inside[4:, 4:].all() and inside.sum() == 16


def test_dataset_of_empty_folder_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nocsfm render"):
        views.ViewDataset(tmp_path)


def test_dataset_index_over_shards_returns_the_right_view_and_skips_partial_shards(tmp_path: Path) -> None:
    (tmp_path / "meshes.json").write_text('[{"name": "a", "split": "train"}]', encoding="utf-8")
    for name, clusters in (("shard_00000", [0, 1]), ("shard_00001", [2, 3, 4]), ("shard_00002.partial", [9])):
        (tmp_path / name).mkdir()
        for field, (shape, dtype) in views.FIELDS.items():
            np.save(tmp_path / name / f"{field}.npy", np.zeros((len(clusters), *shape), dtype))
        np.save(tmp_path / name / "cluster.npy", np.array(clusters))
    dataset = views.ViewDataset(tmp_path)
    assert [int(dataset[index]["cluster"]) for index in range(len(dataset))] == [0, 1, 2, 3, 4]
    assert dataset.column("cluster").tolist() == [0, 1, 2, 3, 4]


def test_folder_of_another_version_names_the_missing_field(tmp_path: Path) -> None:
    views.save_shard(views.shard_path(tmp_path, 0), {name: np.zeros(1) for name in views.FIELDS if name != "symmetry"})
    with pytest.raises(ConfigError, match=r"symmetry\.npy[\s\S]*another version"):
        views.ViewDataset(tmp_path)
