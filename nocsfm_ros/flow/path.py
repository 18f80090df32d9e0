"""The straight path between two latents and its one-step integration.

Flow matching (Lipman et al. 2023; Liu et al. 2023, rectified flow): ``z_tau = (1 - tau) z0 + tau z1`` has the
constant velocity ``z1 - z0``; with a deterministic start one Euler step from tau = 0 is what the network is for.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

Velocity = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def point_on_path(z0: torch.Tensor, z1: torch.Tensor, tau: torch.Tensor) -> torch.Tensor:
    """``z_tau``; z0, z1 (B, C, h, w), tau (B,) in [0, 1]."""
    tau = tau.view(-1, 1, 1, 1)
    return (1 - tau) * z0 + tau * z1


def draw_tau(batch: int, share_at_zero: float, generator: torch.Generator | None = None) -> torch.Tensor:
    """(B,) flow times: exactly 0 in `share_at_zero` of the draws (the one step used), uniform otherwise."""
    tau = torch.rand(batch, generator=generator)
    start = torch.rand(batch, generator=generator) < share_at_zero
    return torch.where(start, torch.zeros(()), tau)


def integrate(velocity: Velocity, z0: torch.Tensor, steps: int = 1) -> torch.Tensor:
    """Euler integration of ``dz/dtau = velocity(z, tau)`` from tau = 0 to 1 in equal steps; tau is given as (B,)."""
    z = z0
    for step in range(steps):
        tau = torch.full((len(z0),), step / steps, device=z0.device, dtype=z0.dtype)
        z = z + velocity(z, tau) / steps
    return z
