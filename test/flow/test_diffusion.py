"""Diffusion with networks that know the answer, and its noise at both ends."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch

from nocsfm_ros.flow.autoencoder import build_autoencoder
from nocsfm_ros.flow.diffusion import NUM_TIMES, clean_latent, denoise, noise_schedule, tau_of_times
from nocsfm_ros.flow.velocity import VelocityNetwork
from nocsfm_ros.training.config import LossConfig
from nocsfm_ros.training.flow import _noisy, flow_losses
from nocsfm_ros.training.pairs import PairBatch


class Step(NamedTuple):
    velocity: torch.Tensor
    tau: float


def kept_at(tau: torch.Tensor) -> torch.Tensor:
    """alpha-bar at a time of the network."""
    times = ((1 - tau.double()) * NUM_TIMES - 1).round().long()
    return noise_schedule().alphas_cumprod[times].view(-1, 1, 1, 1)


@pytest.mark.parametrize("steps", [1, 10, 50])
def test_denoise_by_a_network_that_knows_the_answer_arrives_there(steps: int) -> None:
    z0, z1 = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    seen: list[float] = []

    def velocity(shown: torch.Tensor, tau: torch.Tensor) -> Step:
        z, beside = shown.chunk(2, dim=1)
        torch.testing.assert_close(beside, z0)
        seen.append(float(tau[0]))
        kept = kept_at(tau)  # v = (sqrt(kept) z - z1) / sqrt(1 - kept)
        return Step((kept.sqrt() * z - z1) / (1 - kept).sqrt(), float(tau[0]))

    result, last = denoise(velocity, z0, steps)
    torch.testing.assert_close(result, z1, atol=1e-3, rtol=0)
    assert len(seen) == steps and seen[0] == 0 and seen == sorted(seen) and last.tau == seen[-1]


def test_denoise_gives_the_same_answer_twice() -> None:
    z0 = torch.zeros(1, 2, 4, 4)
    first, second = (denoise(lambda z, tau: Step(0.1 * z[:, :2], 0.0), z0, 3)[0] for _ in range(2))
    torch.testing.assert_close(first, second)
    assert float(first.std()) > 0


def test_last_time_is_pure_noise_and_the_first_nearly_none() -> None:
    kept = noise_schedule().alphas_cumprod
    assert float(kept[-1]) == pytest.approx(0, abs=1e-6) and float(kept[0]) > 0.99
    assert tau_of_times(torch.tensor([NUM_TIMES - 1, 0])).tolist() == pytest.approx([0, 1 - 1 / NUM_TIMES])


def test_training_sample_ends_at_z1_under_its_own_velocity() -> None:
    z0, z1 = torch.randn(8, 3, 4, 4), torch.randn(8, 3, 4, 4)
    sample = _noisy(z0, z1, torch.Generator().manual_seed(0))
    torch.testing.assert_close(sample.shown[:, 3:], z0)
    torch.testing.assert_close(sample.end(sample.velocity), z1, atol=1e-4, rtol=0)
    assert len(torch.unique(sample.tau)) > 4


def test_clean_latent_at_pure_noise_is_minus_v() -> None:
    z, v = torch.randn(2, 1, 3, 2, 2)
    torch.testing.assert_close(clean_latent(z, v, torch.tensor([NUM_TIMES - 1])), -v)


def small_network(objective: str) -> VelocityNetwork:
    return VelocityNetwork(latent_side=16, widths=(16, 48, 48), objective=objective)


@pytest.mark.parametrize(("objective", "times"), [("flow", 1), ("diffusion", 8)])
def test_losses_show_the_network_what_its_objective_asks_for(objective: str, times: int) -> None:
    torch.manual_seed(0)
    model, shown = small_network(objective), []
    model.register_forward_pre_hook(lambda _, arguments: shown.append(arguments[:2]))
    condition, mask = torch.rand(8, 8, 64, 64), (torch.rand(8, 1, 64, 64) > 0.5).float()
    nothing = torch.zeros(8, 0, 1, 1)
    batch = PairBatch(torch.rand(8, 3, 64, 64), condition, condition, nothing, nothing, torch.zeros(8, 5, 8, 8),
                      torch.rand(8, 3, 64, 64) - 0.5, mask, torch.eye(4).expand(8, 4, 4), torch.ones(8),
                      torch.zeros(8, 2))
    losses = flow_losses(model, build_autoencoder(), batch, torch.Generator().manual_seed(1), LossConfig())
    losses["loss"].backward()  # type: ignore[no-untyped-call]
    (z, tau), gradient = shown[0], model.stem.weight.grad
    assert z.shape[1] == (32 if objective == "diffusion" else 16) and len(torch.unique(tau)) >= times
    assert gradient is not None and bool(torch.isfinite(gradient).all()) and float(gradient.abs().sum()) > 0


def test_network_with_the_objective_diffusion_takes_two_latents_and_says_one() -> None:
    model = small_network("diffusion")
    condition = torch.rand(1, 8, 64, 64)
    live, tokens = model.encode_live(condition), model.encode_reference(condition)
    said = model(torch.randn(1, 2 * build_autoencoder().latent_channels, 16, 16), torch.zeros(1), live, tokens)
    assert said.velocity.shape == (1, 16, 16, 16)
    assert VelocityNetwork().config["objective"] == "flow"
