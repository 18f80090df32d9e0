"""True shapes by view: size, diameter and points of meshes whose measures are known."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from nocsfm_ros.data.library import CACHE_VERSION, CATALOGUE_LIST, TEST_SEEDS, MeshLibrary
from nocsfm_ros.errors import ConfigError
from nocsfm_ros.evaluation.shapes import NUM_POINTS, ObjectShapes

NAME = f"procedural/{TEST_SEEDS[3]}"


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> MeshLibrary:
    cache = tmp_path_factory.mktemp("cache")
    (cache / CACHE_VERSION).mkdir()
    (cache / CACHE_VERSION / CATALOGUE_LIST).write_text("", encoding="utf-8")
    return MeshLibrary(cache)


def views_of(*names: str) -> Any:
    return SimpleNamespace(mesh_names=list(names), column=lambda name: np.arange(len(names)))


def test_shape_is_found_by_name_and_scaled_to_the_views_diagonal(library: MeshLibrary) -> None:
    shape = ObjectShapes(views_of(NAME), library).of({"mesh": 0, "diagonal_m": 0.3})
    vertices = library.mesh(library.names.index(NAME)).vertices
    assert np.linalg.norm(shape.size_m) == pytest.approx(0.3, rel=1e-5)
    np.testing.assert_allclose(shape.size_m, np.ptp(vertices, axis=0) * 0.3, rtol=1e-5)
    assert shape.size_m.max() - 1e-6 <= shape.diameter_m <= 0.3 + 1e-6
    assert shape.points_m.shape == (NUM_POINTS, 3)
    assert (np.abs(shape.points_m) <= shape.size_m / 2 + 1e-6).all()


def test_mesh_that_the_library_lacks_is_named(library: MeshLibrary) -> None:
    with pytest.raises(ConfigError, match="1 unknown to the mesh library, first gone/mesh"):
        ObjectShapes(views_of(NAME, "gone/mesh"), library)


def test_mesh_that_no_view_shows_may_be_unknown(library: MeshLibrary) -> None:
    views = views_of(NAME, "gone/mesh")
    views.column = lambda name: np.array([0, 0])
    assert ObjectShapes(views, library).of({"mesh": 0, "diagonal_m": 0.1}).diameter_m > 0
