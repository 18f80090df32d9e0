"""What a GPU needs and a CPU cannot show: no tensor of a training step is made without naming its device.

Under torch's default device "meta" such a tensor would be on meta, and any use beside the batch's raises.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from nocsfm_ros.data.views import ViewDataset
from nocsfm_ros.flow.autoencoder import build_autoencoder
from nocsfm_ros.flow.model import Velocity
from nocsfm_ros.flow.transformer import VelocityTransformer
from nocsfm_ros.flow.velocity import VelocityNetwork
from nocsfm_ros.training.autoencoder import reconstruction_losses, start_from_patches
from nocsfm_ros.training.config import DataConfig, LossConfig, MatchingConfig, VitConfig
from nocsfm_ros.training.flow import flow_losses, one_step
from nocsfm_ros.training.pairs import PairSampler
from nocsfm_ros.training.student import Student, backbone_losses, show


@contextmanager
def no_default_device(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Tensors made without a device are unusable, and none may come from or go to NumPy."""

    def refused(*_: object) -> None:
        raise AssertionError("a copy between device and host in the middle of a step")

    with monkeypatch.context() as patch, torch.device("meta"):
        patch.setattr(torch.Tensor, "numpy", refused)
        yield


def _sampler(views_folder: Path, frame: str = "anchored") -> PairSampler:
    return PairSampler(ViewDataset(views_folder), 0, options=DataConfig(in_memory=True, frame=frame))


def test_the_meta_device_catches_a_tensor_made_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = torch.zeros(2)
    with no_default_device(monkeypatch), pytest.raises((RuntimeError, NotImplementedError)):
        float((ours + torch.ones(2)).sum())


@pytest.mark.parametrize("frame", ["anchored", "category"])
def test_batches_from_memory_name_their_device(
    views_folder: Path, monkeypatch: pytest.MonkeyPatch, frame: str
) -> None:
    batches = _sampler(views_folder, frame).batches(4)
    with no_default_device(monkeypatch):
        batch = next(batches)
    assert all(value.device.type == "cpu" for value in vars(batch).values())


@pytest.mark.parametrize("kind", ["unet", "transformer"])
def test_flow_step_names_its_device(views_folder: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    autoencoder = build_autoencoder()
    model: Velocity = (
        VelocityNetwork(widths=(8, 48, 48)) if kind == "unet" else VelocityTransformer(16, 32, 2, 16, 1, 2)
    )
    batch, generator = next(_sampler(views_folder).batches(2)), torch.Generator("cpu")
    with no_default_device(monkeypatch):
        losses = flow_losses(model, autoencoder, batch, generator, LossConfig())
        losses["loss"].backward()  # type: ignore[no-untyped-call]
        nocs, logit = one_step(model, autoencoder, batch)
    assert {value.device.type for value in (*losses.values(), nocs, logit)} == {"cpu"}


@pytest.mark.parametrize("mosaic_share", [0.0, 1.0])
def test_backbone_step_names_its_device(
    views_folder: Path, monkeypatch: pytest.MonkeyPatch, mosaic_share: float
) -> None:
    sampler, options = _sampler(views_folder), MatchingConfig(mosaic_share=mosaic_share)
    student, generator = Student(VitConfig(width=16, layers=1, heads=2), 0, 128).train(), torch.Generator("cpu")
    pairs = next(sampler.draws(4))
    with no_default_device(monkeypatch):
        live, reference = (show(student, sampler, pairs, side, options) for side in (0, 1))
        losses = backbone_losses(live, reference, options, generator, 0.5)
        losses["loss"].backward()  # type: ignore[no-untyped-call]
    assert {value.device.type for value in losses.values()} == {"cpu"}


def test_autoencoder_step_names_its_device(views_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, batches = build_autoencoder(), _sampler(views_folder).batches(2)
    with no_default_device(monkeypatch):
        start_from_patches(model, batches)
        losses = reconstruction_losses(model, next(batches))
    assert losses["loss"].device.type == "cpu"
