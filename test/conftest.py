"""A folder of views as `nocsfm render` writes them, made without a renderer."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from nocsfm_ros.data.views import CROP_SIZE, FIELDS


@pytest.fixture(scope="session")
def views_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two objects, three views each: printed blocks in front of a wall, turned in their plane."""
    folder = tmp_path_factory.mktemp("views")
    (folder / "shard_00000").mkdir()
    (folder / "meshes.json").write_text(json.dumps([{"name": "a"}, {"name": "b"}]))
    views = [_view(mesh, angle_deg) for mesh in range(2) for angle_deg in (0.0, 20.0, 45.0)]
    for name, (_, dtype) in FIELDS.items():
        np.save(folder / "shard_00000" / f"{name}.npy", np.stack([np.asarray(v[name], dtype) for v in views]))
    return folder


def _view(mesh: int, angle_deg: float) -> dict[str, object]:
    K = np.array([[600.0, 0, 127.5], [0, 600.0, 127.5], [0, 0, 1.0]])
    T = np.eye(4)
    T[:3, :3] = Rotation.from_euler("z", angle_deg, degrees=True).as_matrix()
    T[:3, 3] = (0.01, 0.0, 0.5)
    v, u = np.mgrid[:CROP_SIZE, :CROP_SIZE]
    rays = np.stack([u, v, np.ones_like(u)], axis=-1) @ np.linalg.inv(K).T
    on_block = (rays * 0.5 - T[:3, 3]) @ T[:3, :3]
    mask = (np.abs(on_block[..., :2]) < (0.07, 0.05)).all(axis=2)
    cells = np.floor(on_block[..., :2] / 0.02).astype(int) % 16
    prints = np.random.default_rng(mesh).integers(0, 255, (16, 16, 3))
    return {
        "rgb": np.where(mask[..., None], prints[cells[..., 1], cells[..., 0]], 60),
        "depth": np.rint(np.where(mask, 0.5, 0.56) * 1e4), "mask": mask * 255, "K": K, "T_cam_obj": T,
        "diagonal_m": 0.172, "mesh": mesh, "cluster": mesh, "symmetry": 1, "visible": 1.0,
    }
