"""The true shape of the objects that rendered views show, from the mesh library."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.spatial.distance import pdist

from nocsfm_ros.data.library import MeshLibrary
from nocsfm_ros.data.meshes import surface_samples
from nocsfm_ros.data.views import View, ViewDataset
from nocsfm_ros.errors import ConfigError
from nocsfm_ros.types import Float64Array

NUM_POINTS = 1000


@dataclass(frozen=True)
class ObjectShape:
    """One object in its own frame (tight box centred, y up), metres.

    Attributes:
        points_m: (N, 3) spread evenly over the surface.
        size_m: (3,) sides of the tight box.
        diameter_m: the largest distance between two of its points.
    """

    points_m: Float64Array
    size_m: Float64Array
    diameter_m: float


class ObjectShapes:
    """Shapes by view.

    Args:
        views: what is evaluated.
        library: holds their meshes; found by name, as the indices may differ.

    Raises:
        ConfigError: the library lacks a mesh that the views show.
    """

    def __init__(self, views: ViewDataset, library: MeshLibrary) -> None:
        index_of = {name: index for index, name in enumerate(library.names)}
        self._index_of = {int(mesh): index_of.get(views.mesh_names[mesh]) for mesh in np.unique(views.column("mesh"))}
        missing = [views.mesh_names[mesh] for mesh, index in self._index_of.items() if index is None]
        if missing:
            raise ConfigError(
                "meshes of the rendered views", got=f"{len(missing)} unknown to the mesh library, first {missing[0]}",
                expected="the meshes they were rendered from", mend="render the views again with `nocsfm render`",
            )
        self._unit = lru_cache(maxsize=None)(lambda index: _unit_shape(library, index))

    def of(self, view: View) -> ObjectShape:
        """The shape of a view's object."""
        unit, scale_m = self._unit(self._index_of[int(view["mesh"])]), float(view["diagonal_m"])
        return ObjectShape(unit.points_m * scale_m, unit.size_m * scale_m, unit.diameter_m * scale_m)


def _unit_shape(library: MeshLibrary, index: int) -> ObjectShape:
    """Of the mesh itself, whose box has a diagonal of 1."""
    mesh = library.mesh(index)
    points, *_ = surface_samples(mesh, NUM_POINTS, np.random.default_rng(0))
    size = np.ptp(mesh.vertices.astype(np.float64), axis=0)
    return ObjectShape(points, size, float(pdist(library.hull(index)).max()))
