"""Training and use must show the network the same thing: one pair through PairSampler, and through Estimator."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from nocsfm_ros.config import Config
from nocsfm_ros.estimator import Estimator
from nocsfm_ros.flow.autoencoder import build_autoencoder
from nocsfm_ros.flow.model import FlowModel
from nocsfm_ros.flow.velocity import LiveView, VelocityNetwork
from nocsfm_ros.matching.backbone import FeatureMap
from nocsfm_ros.training.config import LossConfig
from nocsfm_ros.training.flow import flow_losses
from nocsfm_ros.training.pairs import PairSampler
from nocsfm_ros.training.view_tensors import FEATURES
from nocsfm_ros.types import RgbdFrame, Uint8Array

SIDE, CHANNELS = 128, 12
K = np.array([[300.0, 0, 63.5], [0, 300.0, 63.5], [0, 0, 1.0]])
WHOLE_SQUARE = (-0.5, -0.5, float(SIDE), float(SIDE))


class ColourBackbone:
    """Cells are random projections of their mean colours: cheap, and the same for the same picture."""

    stride = 16

    def encode(self, rgb: Uint8Array) -> FeatureMap:
        rows, columns = rgb.shape[0] // 16, rgb.shape[1] // 16
        means = rgb.reshape(rows, 16, columns, 16, 3).mean(axis=(1, 3)) - 127
        features = np.sin(means @ np.random.default_rng(0).normal(size=(3, CHANNELS)) / 20)
        return FeatureMap((features / np.linalg.norm(features, axis=2, keepdims=True)).astype(np.float32), 16.0)


class RecordingNetwork(VelocityNetwork):  # type: ignore[misc]
    """Notes what it is given."""

    seen: dict[str, Any] = {}

    def encode_reference(self, condition: torch.Tensor, context: torch.Tensor | None = None) -> torch.Tensor:
        self.seen |= {"reference": condition, "reference_context": context}
        tokens: torch.Tensor = super().encode_reference(condition, context)
        return tokens

    def encode_live(
        self, condition: torch.Tensor, context: torch.Tensor | None = None, hints: torch.Tensor | None = None
    ) -> LiveView:
        self.seen |= {"live": condition, "live_context": context, "hints": hints}
        view: LiveView = super().encode_live(condition, context, hints)
        return view


def step_view(angle_deg: float) -> dict[str, Any]:
    """A printed block 6 cm in front of a wall, turned in its plane."""
    v, u = np.mgrid[:SIDE, :SIDE]
    T = np.eye(4)
    T[:3, :3] = Rotation.from_euler("z", angle_deg, degrees=True).as_matrix()
    T[:3, 3] = (0.01, 0.0, 0.5)
    rays = np.stack([u, v, np.ones_like(u)], axis=-1) @ np.linalg.inv(K).T
    on_block = (rays * 0.5 - T[:3, 3]) @ T[:3, :3]
    mask = (np.abs(on_block[..., :2]) < (0.07, 0.05)).all(axis=2)
    cells = np.floor(on_block[..., :2] / 0.02).astype(int) % 16
    prints = np.random.default_rng(1).integers(0, 255, (16, 16, 3))
    rgb = np.where(mask[..., None], prints[cells[..., 1], cells[..., 0]], 60)
    return {
        "rgb": rgb.astype(np.uint8), "depth": np.rint(np.where(mask, 0.5, 0.56) * 1e4).astype(np.uint16),
        "mask": (mask * 255).astype(np.uint8), "K": K, "T_cam_obj": T, "symmetry": 1, "diagonal_m": 0.172,
    }


class TwoViews:
    """The least that PairSampler needs of a ViewDataset."""

    def __init__(self, estimator: Estimator) -> None:
        self.views = [step_view(0.0), step_view(20.0)]
        for view in self.views:
            _, features = estimator.encode_features(frame_of(view), WHOLE_SQUARE)
            view[FEATURES] = features.features

    def column(self, name: str) -> np.ndarray:  # type: ignore[type-arg]
        return {"cluster": np.zeros(2, int), "mesh": np.zeros(2, int)}[name]

    def __getitem__(self, row: int) -> dict[str, Any]:
        return self.views[row]


def frame_of(view: dict[str, Any]) -> RgbdFrame:
    return RgbdFrame(view["rgb"], view["depth"].astype(np.float32) * np.float32(1e-4), view["K"])


@pytest.fixture
def estimator() -> Estimator:
    torch.manual_seed(0)
    network = RecordingNetwork(context_channels=CHANNELS)
    backbone: Any = ColourBackbone()
    estimator = Estimator(FlowModel(build_autoencoder(), network), backbone, Config())
    estimator.flow.dtype = torch.float32
    estimator.flow.velocity.float()
    estimator.flow.autoencoder.float()
    return estimator


def test_network_sees_the_same_in_training_and_in_use(estimator: Estimator) -> None:
    views = TwoViews(estimator)
    batch = PairSampler(views, 0).make([(1, 0, False)], augment=False)  # type: ignore[arg-type]
    reference, live = (frame_of(view) for view in views.views)
    margin = estimator.config.matching.crop_margin
    inner = SIDE / margin
    box_xywh = ((SIDE - inner) / 2 - 0.5, (SIDE - inner) / 2 - 0.5, inner, inner)
    view = estimator.make_view(reference, views.views[0]["mask"] > 0, box_xywh, None)
    estimator._look(live, box_xywh, [view])
    seen = RecordingNetwork.seen
    torch.testing.assert_close(seen["live_context"], batch.live_context)
    torch.testing.assert_close(seen["reference_context"], batch.reference_context)
    for name in ("reference", "live"):
        given, trained = seen[name], getattr(batch, name)
        torch.testing.assert_close(given[:, :3], trained[:, :3], atol=0.01, rtol=0)  # the picture
        torch.testing.assert_close(given[:, 6:], trained[:, 6:])  # validity and mask
        # the frame's origin and scale come from a few per cent other points
        torch.testing.assert_close(given[:, 3:6], trained[:, 3:6], atol=0.03, rtol=0.05)
    torch.testing.assert_close(seen["hints"][:, 3:], batch.hints[:, 3:])
    torch.testing.assert_close(seen["hints"][:, :3], batch.hints[:, :3], atol=0.03, rtol=0.05)
    assert batch.hints[:, 3].sum() > 3


def test_flow_losses_are_finite_and_reach_the_network_also_without_any_object(estimator: Estimator) -> None:
    sampler = PairSampler(TwoViews(estimator), 0)  # type: ignore[arg-type]
    autoencoder = build_autoencoder()
    for other in (False, True):
        network = VelocityNetwork(context_channels=CHANNELS)
        batch, generator = sampler.make([(1, 0, other)]), torch.Generator().manual_seed(0)
        losses = flow_losses(network, autoencoder, batch, generator, LossConfig())
        losses["loss"].backward()  # type: ignore[no-untyped-call]
        assert all(torch.isfinite(value) for value in losses.values())
        assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.view_encoder.parameters())
        assert (losses["affine"] == 0) == other
