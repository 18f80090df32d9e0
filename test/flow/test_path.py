"""The flow on velocities whose integral is known."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch

from nocsfm_ros.flow.path import draw_tau, integrate, point_on_path


class Step(NamedTuple):
    velocity: torch.Tensor
    tau: float


def test_integrate_constant_velocity_is_exact_in_one_and_in_ten_steps() -> None:
    z0, z1 = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    for steps in (1, 10):
        result, last = integrate(lambda z, tau: Step(z1 - z0, float(tau[0])), z0, steps)
        torch.testing.assert_close(result, z1, atol=1e-5, rtol=0)
        assert last.tau == pytest.approx(1 - 1 / steps)


def test_integrate_velocity_equal_to_tau_sums_the_left_ends() -> None:
    def velocity(z: torch.Tensor, tau: torch.Tensor) -> Step:
        return Step(tau.view(-1, 1, 1, 1).expand_as(z), float(tau[0]))

    result, _ = integrate(velocity, torch.zeros(1, 1, 2, 2), steps=4)
    torch.testing.assert_close(result, torch.full((1, 1, 2, 2), (0 + 0.25 + 0.5 + 0.75) / 4))


def test_point_on_path_at_its_ends_gives_the_two_latents() -> None:
    z0, z1 = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    mixed = point_on_path(z0, z1, torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(mixed[0], z0[0])
    torch.testing.assert_close(mixed[1], z1[1])


def test_draw_tau_puts_the_asked_share_at_zero() -> None:
    tau = draw_tau(20000, 0.8, torch.Generator().manual_seed(0))
    assert abs(float((tau == 0).float().mean()) - 0.8) < 0.01
    assert float(tau.min()) >= 0 and float(tau.max()) <= 1
