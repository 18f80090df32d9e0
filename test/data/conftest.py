"""A library and a renderer that need no catalogue; without off-screen OpenGL their tests are skipped."""

from __future__ import annotations

import pytest

from nocsfm_ros.data.library import CACHE_VERSION, CATALOGUE_LIST, MeshLibrary
from nocsfm_ros.data.renderer import Renderer
from nocsfm_ros.data.scenes import surface_pool
from nocsfm_ros.data.views import NUM_SURFACES
from nocsfm_ros.errors import ConfigError


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> MeshLibrary:
    """Procedural meshes only: the catalogue's list is empty."""
    cache = tmp_path_factory.mktemp("cache")
    (cache / CACHE_VERSION).mkdir()
    (cache / CACHE_VERSION / CATALOGUE_LIST).write_text("", encoding="utf-8")
    library = MeshLibrary(cache)
    few = {False: library.indices(False, "procedural")[:6], True: library.indices(True, "procedural")[:6]}
    library.indices = lambda heldout, kind: few[heldout]  # type: ignore[method-assign]
    return library


@pytest.fixture(scope="session")
def renderer() -> Renderer:
    try:
        return Renderer(surface_pool(0, NUM_SURFACES))
    except ConfigError as error:
        pytest.skip(f"no off-screen OpenGL here: {error}")
