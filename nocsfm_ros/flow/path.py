"""The straight path between two latents and its one-step integration.

Flow matching (Lipman et al. 2023; Liu et al. 2023, rectified flow): ``z_tau = (1 - tau) z0 + tau z1`` has the
constant velocity ``z1 - z0``; with a deterministic start one Euler step from tau = 0 is what the network is for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

import torch


class HasVelocity(Protocol):
    """What a velocity network answers with."""

    @property
    def velocity(self) -> torch.Tensor: ...


StepT = TypeVar("StepT", bound=HasVelocity)


def point_on_path(z0: torch.Tensor, z1: torch.Tensor, tau: torch.Tensor) -> torch.Tensor:
    """``z_tau``; z0, z1 (B, C, h, w), tau (B,) in [0, 1]."""
    tau = tau.view(-1, 1, 1, 1)
    return (1 - tau) * z0 + tau * z1


def draw_tau(batch: int, share_at_zero: float, generator: torch.Generator) -> torch.Tensor:
    """(B,) flow times on the generator's device: exactly 0 in `share_at_zero` of the draws, uniform otherwise."""
    tau = torch.rand(batch, generator=generator, device=generator.device)
    start = torch.rand(batch, generator=generator, device=generator.device) < share_at_zero
    return tau.masked_fill(start, 0.0)


def integrate(velocity: Callable[[torch.Tensor, torch.Tensor], StepT], z0: torch.Tensor, steps: int = 1) -> tuple[
    torch.Tensor, StepT
]:
    """Euler integration of ``dz/dtau = velocity(z, tau).velocity`` from tau = 0 to 1 in equal steps.

    Args:
        velocity: of the latent at (z, tau (B,)), and whatever else it says of the step.
        z0: (B, C, h, w).
        steps: at least 1.

    Returns:
        z1, and what `velocity` said at the last step.
    """
    z = z0
    for step in range(steps):
        tau = torch.full((len(z0),), step / steps, device=z0.device, dtype=z0.dtype)
        said = velocity(z, tau)
        z = z + said.velocity / steps
    return z, said
