"""Full frames of one object in two scenes: a reference picture, and another frame in which to find it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nocsfm_ros.data.library import MeshLibrary
from nocsfm_ros.data.renderer import Renderer
from nocsfm_ros.data.scenes import FRAME_WH, TARGET, Scene, sample_scene, sample_target
from nocsfm_ros.data.views import NUM_SURFACES
from nocsfm_ros.types import BoolArray, Uint8Array

MIN_PIXELS = 300  # of the object, seen in either picture


@dataclass(frozen=True)
class SearchPair:
    """A reference and a frame with its object: pictures (H, W, 3) uint8, masks (H, W) bool of what is seen of it."""

    reference_rgb: Uint8Array
    reference_mask: BoolArray
    rgb: Uint8Array
    mask: BoolArray


def render_search_pair(
    rng: np.random.Generator, library: MeshLibrary, renderer: Renderer, heldout: bool
) -> SearchPair:
    """One random target, seen freely in the reference, and in the frame on a table among clutter and hands."""
    while True:
        target = sample_target(rng, library, heldout, NUM_SURFACES)
        reference, frame = (
            sample_scene(rng, library, target, heldout, NUM_SURFACES, crowded=crowded) for crowded in (False, True)
        )
        if frame.up is None:  # nothing stands around what hangs in the air
            continue
        pair = SearchPair(*_picture(renderer, reference), *_picture(renderer, frame))
        if min(pair.reference_mask.sum(), pair.mask.sum()) >= MIN_PIXELS:
            return pair


def _picture(renderer: Renderer, scene: Scene) -> tuple[Uint8Array, BoolArray]:
    picture = renderer.render(scene.items, scene.K, FRAME_WH, scene.light, scene.background)
    return picture.rgb, picture.instance == TARGET
