"""`nocsfm render --demo DIR`: the demo's bag with ground truth, and its reference picture."""

from __future__ import annotations

from pathlib import Path

from nocsfm_ros.data.demo_scene import NUM_FRAMES, NUM_SURFACES, SURFACE_SEED, demo_frame, reference_frame
from nocsfm_ros.data.renderer import Renderer
from nocsfm_ros.data.scenes import surface_pool
from nocsfm_ros.data.sequences import write_sequence


def render_demo(folder: Path, num_frames: int = NUM_FRAMES) -> None:
    """Write the demo's reference and sequence; replaces older ones. Raises ConfigError: no off-screen OpenGL here."""
    renderer = Renderer(surface_pool(SURFACE_SEED, NUM_SURFACES))
    write_sequence(folder, reference_frame(renderer), (demo_frame(renderer, index) for index in range(num_frames)))
