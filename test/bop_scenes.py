"""Writes a tiny BOP data set: one scene of ellipsoids, whose mesh is neither centred nor upright."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from nocs_scenes import GREY, SEMI_AXES, Thing, seen

K = np.array([[600.0, 0, 220.5], [0, 600.0, 165.5], [0, 0, 1]])
OBJ_ID = 5
CENTRE_M = np.array([0.01, -0.02, 0.03])  # of the box, in the mesh's own frame


def model_facts(diagonal_m: float, **more: Any) -> dict[str, Any]:
    """An entry of models_info.json, millimetres."""
    low, size = 1000 * (CENTRE_M - SEMI_AXES * diagonal_m), 2000 * SEMI_AXES * diagonal_m
    box = {f"min_{axis}": low[i] for i, axis in enumerate("xyz")} | {f"size_{a}": size[i] for i, a in enumerate("xyz")}
    return {"diameter": float(size.max()), **box, **more}


def write_bop(root: Path, things: dict[int, Thing], **model: Any) -> Path:
    """One thing per image, seen to three quarters; returns the scene's folder."""
    scene = root / "train_pbr" / "000000"
    for folder in ("rgb", "depth", "mask_visib"):
        (scene / folder).mkdir(parents=True)
    gt, info, cameras = {}, {}, {}
    for image, thing in things.items():
        depth_m, _ = seen(thing, K)
        wall_m = np.where(depth_m > 0, depth_m, 1.5)
        rgb = np.where(depth_m[..., None] > 0, 200, GREY).astype(np.uint8).repeat(3, axis=2)
        cv2.imwrite(str(scene / "rgb" / f"{image:06d}.png"), rgb)
        cv2.imwrite(str(scene / "depth" / f"{image:06d}.png"), np.rint(wall_m * 10_000).astype(np.uint16))
        cv2.imwrite(str(scene / "mask_visib" / f"{image:06d}_000000.png"), np.where(depth_m > 0, 255, 0))
        R, t = thing.T_cam_obj[:3, :3], thing.T_cam_obj[:3, 3]
        t_mm = 1000 * (t - R @ CENTRE_M)
        gt[image] = [{"obj_id": OBJ_ID, "cam_R_m2c": R.ravel().tolist(), "cam_t_m2c": t_mm.tolist()}]
        info[image] = [{"visib_fract": 0.75}]
        cameras[image] = {"cam_K": K.ravel().tolist(), "depth_scale": 0.1}
    for name, facts in (("scene_gt", gt), ("scene_gt_info", info), ("scene_camera", cameras)):
        (scene / f"{name}.json").write_text(json.dumps(facts), encoding="utf-8")
    diagonal_m = next(iter(things.values())).diagonal_m
    (root / "models").mkdir()
    text = json.dumps({str(OBJ_ID): model_facts(diagonal_m, **model)})
    (root / "models" / "models_info.json").write_text(text, encoding="utf-8")
    return scene
