"""Full frames to search: what their masks claim, and the same ones every time."""

from __future__ import annotations

import numpy as np
import pytest

from nocsfm_ros.data import search_frames
from nocsfm_ros.data.library import MeshLibrary
from nocsfm_ros.data.renderer import Renderer
from nocsfm_ros.data.scenes import FRAME_WH
from nocsfm_ros.data.search_frames import MIN_PIXELS, SearchPair, render_search_pair


def _pair(library: MeshLibrary, renderer: Renderer, seed: int = 0) -> SearchPair:
    return render_search_pair(np.random.default_rng([0, seed]), library, renderer, heldout=True)


def test_pair_is_two_whole_frames_in_which_the_object_is_seen(library: MeshLibrary, renderer: Renderer) -> None:
    pair = _pair(library, renderer)
    for rgb, mask in ((pair.reference_rgb, pair.reference_mask), (pair.rgb, pair.mask)):
        assert rgb.shape == (*FRAME_WH[::-1], 3) and rgb.dtype == np.uint8
        assert mask.shape == FRAME_WH[::-1] and MIN_PIXELS <= mask.sum() < mask.size / 2
    assert not np.array_equal(pair.rgb, pair.reference_rgb)


def test_pair_of_the_same_seed_is_the_same_and_of_another_is_not(library: MeshLibrary, renderer: Renderer) -> None:
    one, two, other = _pair(library, renderer), _pair(library, renderer), _pair(library, renderer, 1)
    np.testing.assert_array_equal(one.rgb, two.rgb)
    np.testing.assert_array_equal(one.reference_mask, two.reference_mask)
    assert not np.array_equal(one.rgb, other.rgb)


def test_frame_shows_heldout_objects_on_a_table(
    library: MeshLibrary, renderer: Renderer, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple[bool, bool, bool]] = []

    def noted(*arguments: object, crowded: bool) -> object:
        scene = sample_scene(*arguments, crowded=crowded)  # type: ignore[arg-type, misc]
        drawn.append((bool(arguments[3]), crowded, scene.up is not None))
        return scene

    sample_scene = search_frames.sample_scene
    monkeypatch.setattr(search_frames, "sample_scene", noted)
    _pair(library, renderer, 2)
    assert all(heldout for heldout, *_ in drawn)
    (_, reference_crowded, _), (_, frame_crowded, on_table) = drawn[-2:]
    assert (reference_crowded, frame_crowded, on_table) == (False, True, True)
