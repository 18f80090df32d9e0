"""Pairs: the true coordinate map agrees with geometry, symmetry is taken out, conditions are dropped when asked."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from nocsfm_ros.errors import ConfigError
from nocsfm_ros.flow.model import CROP_SIDE
from nocsfm_ros.training.config import DataConfig, DropsConfig
from nocsfm_ros.training.pairs import PairSampler
from nocsfm_ros.training.view_tensors import flow_view

SIDE = 32
K = np.array([[60.0, 0, 15.5], [0, 60.0, 15.5], [0, 0, 1.0]])


class FlatViews:
    """Two views of a textured square plate facing the camera, the second shifted and turned in its plane."""

    def __init__(self) -> None:
        self.poses = []
        for angle_deg, shift in ((0.0, 0.0), (30.0, 0.02)):
            T = np.eye(4)
            T[:3, :3] = Rotation.from_euler("z", angle_deg, degrees=True).as_matrix()
            T[:3, 3] = (shift, 0.0, 0.5)
            self.poses.append(T)

    def __len__(self) -> int:
        return len(self.poses)

    def column(self, name: str) -> np.ndarray:  # type: ignore[type-arg]
        return {"cluster": np.zeros(2, int), "mesh": np.zeros(2, int)}[name]

    def __getitem__(self, row: int) -> dict[str, object]:
        v, u = np.mgrid[:SIDE, :SIDE]
        points = np.stack([(u - 15.5) / 60 * 0.5, (v - 15.5) / 60 * 0.5, np.full(u.shape, 0.5)], axis=-1).reshape(-1, 3)
        T = self.poses[row]
        on_plate = (np.abs((points - T[:3, 3]) @ T[:3, :3])[:, :2] < 0.07).all(axis=1).reshape(SIDE, SIDE)
        return {
            "rgb": np.full((SIDE, SIDE, 3), 90, np.uint8), "depth": np.full((SIDE, SIDE), 5000, np.uint16),
            "mask": (on_plate * 255).astype(np.uint8), "K": K, "T_cam_obj": T, "symmetry": 1, "diagonal_m": 0.2,
        }


def test_make_gives_the_same_coordinates_to_the_same_plate_point_in_both_views() -> None:
    views = FlatViews()
    batch = PairSampler(views, 0).make([(1, 0, False)], augment=False)  # type: ignore[arg-type]
    T_ref, T_live = views.poses
    point_plate = np.array([0.03, -0.02, 0.0, 1.0])
    expected = batch.T_obj_ref[0].numpy() @ T_ref @ point_plate
    pixel = flow_view(views[1], CROP_SIDE)["K"] @ (T_live @ point_plate)[:3]
    u, v = np.rint(pixel[:2] / pixel[2]).astype(int)
    error = batch.nocs[0, :, v, u].numpy() * float(batch.scale_m[0]) - expected[:3]
    assert np.linalg.norm(error) < 0.5 / 60  # half a pixel at half a metre


def test_make_for_another_object_has_an_empty_mask() -> None:
    batch = PairSampler(FlatViews(), 0).make([(1, 0, True)], augment=False)  # type: ignore[arg-type]
    assert batch.mask.sum() == 0 and batch.nocs.abs().sum() == 0


def test_make_with_everything_dropped_withholds_depth_but_not_the_truth() -> None:
    drops = DropsConfig(live_depth=1.0, reference_depth=1.0, other_object=0.0)
    batch = PairSampler(FlatViews(), 0, drops).make([(1, 0, False)])  # type: ignore[arg-type]
    assert batch.live[:, 3:7].abs().max() == 0 and batch.reference[:, 3:7].abs().max() == 0
    assert batch.nocs.abs().max() > 0.05


def test_both_ways_appends_the_reversed_pairs() -> None:
    sampler = PairSampler(FlatViews(), 0)  # type: ignore[arg-type]
    both, back = (sampler.make([pair], augment=False, both_ways=way) for pair, way in (((1, 0, False), True),
                                                                                      ((0, 1, False), False)))
    assert both.index.tolist() == [[1, 0], [0, 1]]
    for name in ("rgb", "live", "reference", "nocs", "mask"):
        torch.testing.assert_close(getattr(both, name)[1:], getattr(back, name))


def test_batches_with_the_same_seed_are_the_same() -> None:
    one, two = (next(PairSampler(FlatViews(), 7).batches(4)) for _ in range(2))  # type: ignore[arg-type]
    torch.testing.assert_close(one.live, two.live)
    torch.testing.assert_close(one.reference, two.reference)


def test_batches_from_another_step_are_other_ones() -> None:
    one, two = (next(PairSampler(FlatViews(), 7).batches(4, step)) for step in (0, 100))  # type: ignore[arg-type]
    assert (one.rgb - two.rgb).abs().max() > 0.01


def test_make_from_memory_is_what_it_is_from_the_disk() -> None:
    disk, memory = (
        PairSampler(FlatViews(), 0, options=DataConfig(in_memory=kept)).make([(1, 0, False)], augment=False)  # type: ignore[arg-type]
        for kept in (False, True)
    )
    for item in dataclasses.fields(disk):
        torch.testing.assert_close(getattr(disk, item.name), getattr(memory, item.name))


def test_batches_from_memory_are_augmented_and_seeded() -> None:
    options = DataConfig(in_memory=True)
    one, two = (next(PairSampler(FlatViews(), 7, options=options).batches(4)) for _ in range(2))  # type: ignore[arg-type]
    torch.testing.assert_close(one.live, two.live)
    assert one.rgb[0].std() > 0, "a flat grey plate has noise"


def test_make_without_background_is_black_and_without_depth_outside_the_mask() -> None:
    sampler = PairSampler(FlatViews(), 0, options=DataConfig(background=False))  # type: ignore[arg-type]
    batch = sampler.make([(1, 0, False)])
    outside = (batch.mask == 0).expand_as(batch.rgb)
    assert batch.rgb[outside].max() == 0 < batch.rgb[~outside].min() + 0.5
    assert batch.live[:, 6:7][batch.mask == 0].max() == 0


def test_make_in_the_category_frame_gives_mesh_coordinates_whatever_the_reference() -> None:
    views = FlatViews()
    batch = PairSampler(views, 0, options=DataConfig(frame="category")).make(  # type: ignore[arg-type]
        [(1, 0, False), (1, 1, False)], augment=False
    )
    torch.testing.assert_close(batch.nocs[0], batch.nocs[1])
    point_plate = np.array([0.03, -0.02, 0.0])
    pixel = flow_view(views[1], CROP_SIDE)["K"] @ (views.poses[1] @ [*point_plate, 1.0])[:3]
    u, v = np.rint(pixel[:2] / pixel[2]).astype(int)
    assert np.linalg.norm(batch.nocs[0, :, v, u].numpy() * 0.2 - point_plate) < 0.5 / 60


def test_views_without_two_of_one_object_are_refused() -> None:
    views = FlatViews()
    views.column = lambda name: np.arange(2)  # type: ignore[method-assign]
    with pytest.raises(ConfigError, match="one view of every object"):
        PairSampler(views, 0)  # type: ignore[arg-type]
