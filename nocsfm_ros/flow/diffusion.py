"""The flow's rival: the same network as a diffusion model, from noise to the latent of the NOCS, sampled by DDIM.

The picture's latent z0 is no longer where the path starts; it is given beside the noisy latent (B. Ke et al.,
"Marigold", CVPR 2024). The network says v (T. Salimans and J. Ho, ICLR 2022); the last time is pure noise, and the
steps begin there (S. Lin et al., WACV 2024).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from diffusers import DDIMScheduler

from nocsfm_ros.flow.path import StepT

OBJECTIVE = "diffusion"  # `objective` in the config of networks trained so; the others' is "flow"
NUM_TIMES = 1000
SEED = 0  # of the noise that sampling starts from: one crop has one answer


def noise_schedule() -> DDIMScheduler:
    """How much noise each time 0 to NUM_TIMES - 1 has."""
    return DDIMScheduler(
        num_train_timesteps=NUM_TIMES, beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012,
        prediction_type="v_prediction", clip_sample=False, rescale_betas_zero_snr=True, timestep_spacing="trailing",
    )


def tau_of_times(times: torch.Tensor) -> torch.Tensor:
    """(B,) float32 in [0, 1): 0 for pure noise, as the flow's time is 0 at its start."""
    return 1 - (times.float() + 1) / NUM_TIMES


def clean_latent(z: torch.Tensor, velocity: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
    """The z1 that a noisy latent (B, C, h, w) and its v stand for at times (B,)."""
    kept = noise_schedule().alphas_cumprod.to(z.device)[times].view(-1, 1, 1, 1)
    return kept.sqrt() * z - (1 - kept).sqrt() * velocity


def denoise(
    velocity: Callable[[torch.Tensor, torch.Tensor], StepT], z0: torch.Tensor, steps: int
) -> tuple[torch.Tensor, StepT]:
    """DDIM without added noise (J. Song et al., ICLR 2021).

    Args:
        velocity: of (noisy latent beside z0 (B, 2 C, h, w), tau (B,)), and whatever else it says of the step.
        z0: (B, C, h, w) latent of the picture.
        steps: at least 1.

    Returns:
        z1, and what `velocity` said at the last step.
    """
    schedule = noise_schedule()
    schedule.set_timesteps(steps)
    z = torch.randn(z0.shape, generator=torch.Generator().manual_seed(SEED)).to(z0.device)
    for time in schedule.timesteps:
        tau = tau_of_times(time.expand(len(z0))).to(z0)
        said = velocity(torch.cat([z.to(z0), z0], dim=1), tau)
        z = schedule.step(said.velocity.float(), time, z).prev_sample
    return z.to(z0), said
