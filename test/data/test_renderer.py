"""The renderer against analytic answers."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from nocsfm_ros.data.meshes import Mesh
from nocsfm_ros.data.renderer import Item, Light, Renderer
from nocsfm_ros.data.shapes import plane_mesh, procedural_mesh
from nocsfm_ros.data.textures import SIZE
from nocsfm_ros.errors import ConfigError
from nocsfm_ros.types import Float64Array

K_OFF_CENTRE = np.array([[333.0, 0, -41.3], [0, 301.0, 88.6], [0, 0, 1]])  # a crop beside the optical axis
SIZE_WH = (120, 96)
LIGHT = Light(np.array([0.0, -0.6, -0.8]))


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    try:
        return Renderer(np.full((2, SIZE, SIZE, 3), 200, np.uint8))
    except ConfigError as error:
        pytest.skip(f"no off-screen OpenGL here: {error}")


def _rays(K: Float64Array, size_wh: tuple[int, int]) -> Float64Array:
    u, v = np.meshgrid(np.arange(size_wh[0]), np.arange(size_wh[1]))
    return np.stack([(u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1], np.ones_like(u, float)], -1)


def _sphere(rings: int = 96) -> Mesh:
    plane = plane_mesh()
    polar, turn = np.meshgrid(
        np.linspace(0, np.pi, rings), np.linspace(0, 2 * np.pi, 2 * rings), indexing="ij"
    )
    points = np.stack(
        [np.sin(polar) * np.cos(turn), np.cos(polar), np.sin(polar) * np.sin(turn)], -1
    ).reshape(-1, 3)
    first = (np.arange(rings - 1)[:, None] * 2 * rings + np.arange(2 * rings - 1)).ravel()
    faces = np.concatenate(
        [
            np.stack([first, first + 1, first + 2 * rings], 1),
            np.stack([first + 1, first + 2 * rings + 1, first + 2 * rings], 1),
        ]
    )
    count = len(points)
    return Mesh(
        "sphere",
        points.astype(np.float32),
        points.astype(np.float32),
        np.zeros((count, 2), np.float32),
        np.full((count, 3), 0.7, np.float32),
        np.full(count, -1, np.float32),
        faces.astype(np.int32),
        plane.textures,
    )


@pytest.mark.parametrize("smooth", [True, False])
def test_depth_of_tilted_plane_off_centre_camera_lies_on_the_plane(renderer: Renderer, smooth: bool) -> None:
    T = np.eye(4)
    normal = np.array([0.3, -0.5, -0.8]) / np.linalg.norm([0.3, -0.5, -0.8])
    right = np.cross(normal, [1.0, 0, 0]) / np.linalg.norm(np.cross(normal, [1.0, 0, 0]))
    T[:3, :3], T[:3, 3] = np.stack([right, normal, np.cross(right, normal)], 1), (0.3, -0.1, 1.2)
    drawn = renderer.render([Item(plane_mesh(), T, 9.0, 7)], K_OFF_CENTRE, SIZE_WH, LIGHT, smooth=smooth)
    rays = _rays(K_OFF_CENTRE, SIZE_WH)
    expected = (normal @ T[:3, 3]) / (rays @ normal)
    assert (drawn.instance == 7).all()
    np.testing.assert_allclose(drawn.depth_m, expected, rtol=2e-5)


def test_depth_of_sphere_back_projected_lies_on_the_sphere(renderer: Renderer) -> None:
    T = np.eye(4)
    T[:3, 3] = (0.25, -0.02, 0.9)
    drawn = renderer.render([Item(_sphere(), T, 0.08, 3)], K_OFF_CENTRE, SIZE_WH, LIGHT)
    points = (drawn.depth_m[..., None] * _rays(K_OFF_CENTRE, SIZE_WH))[drawn.instance == 3]
    radii = np.linalg.norm(points - T[:3, 3], axis=1)
    assert len(points) > 500
    np.testing.assert_allclose(radii, 0.08, atol=2e-4)
    rays = _rays(K_OFF_CENTRE, SIZE_WH)
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    hit = np.linalg.norm(np.cross(rays, T[:3, 3]), axis=-1) < 0.08
    assert (hit != (drawn.instance == 3)).sum() <= 0.02 * hit.sum()  # the sphere is made of facets


def test_projected_vertices_of_box_outline_exactly_the_drawn_pixel_centres(renderer: Renderer) -> None:
    mesh = procedural_mesh(1, kind="box")
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = [[0.8, 0.36, 0.48], [0, 0.8, -0.6], [-0.6, 0.48, 0.64]], (0.26, -0.04, 0.8)
    drawn = renderer.render([Item(mesh, T, 0.2, 1)], K_OFF_CENTRE, SIZE_WH, LIGHT)
    points = mesh.vertices * 0.2 @ T[:3, :3].T + T[:3, 3]
    uv = (points @ K_OFF_CENTRE.T)[:, :2] / points[:, 2:]
    outline = cv2.convexHull(uv.astype(np.float32))
    for (row, column), instance in np.ndenumerate(drawn.instance):
        inside_px = cv2.pointPolygonTest(outline, (float(column), float(row)), True)
        assert inside_px > -0.02 if instance else inside_px < 0.02


def test_colour_of_smooth_drawing_is_centred_on_the_same_pixels_as_depth(renderer: Renderer) -> None:
    T = np.eye(4)
    T[:3, 3] = (0.27, -0.03, 0.9)
    drawn = renderer.render(
        [Item(_sphere(), T, 0.08, 3)],
        K_OFF_CENTRE,
        SIZE_WH,
        Light(np.array([0.0, 0, -1]), shadow=0),
        background=(0, 0, 0),
    )
    weight = drawn.rgb.sum(-1) > 60
    for axis in (0, 1):
        assert abs(np.nonzero(weight)[axis].mean() - np.nonzero(drawn.instance)[axis].mean()) < 0.15


def test_silhouettes_with_occluder_in_front_lose_the_hidden_pixels(renderer: Renderer) -> None:
    behind, front = np.eye(4), np.eye(4)
    behind[:3, 3], front[:3, 3] = (0.25, 0, 0.9), (0.17, 0, 0.5)
    items = [Item(_sphere(), behind, 0.08, 1), Item(_sphere(), front, 0.03, 2)]
    alone, seen = renderer.silhouettes(items, K_OFF_CENTRE, SIZE_WH, 1)
    assert set(np.unique(alone)) == {0, 1}
    assert 0 < (seen == 1).sum() < (alone == 1).sum()
    assert ((seen == 1) <= (alone == 1)).all()


def test_shadow_of_object_on_table_darkens_it(renderer: Renderer) -> None:
    T_plane, T_ball = np.eye(4), np.eye(4)
    T_plane[:3, :3], T_plane[:3, 3] = [[1, 0, 0], [0, 0, 1], [0, -1, 0]], (0.25, 0, 0.955)
    T_ball[:3, 3] = (0.25, 0, 0.9)
    items = [Item(_sphere(), T_ball, 0.05, 1), Item(plane_mesh(), T_plane, 3.0, 0, casts_shadow=False)]
    sun = np.array([0.5, 0, -1]) / np.linalg.norm([0.5, 0, -1])
    dark, bright = (
        renderer.render(items, K_OFF_CENTRE, SIZE_WH, Light(sun, shadow=s)).rgb.astype(int) for s in (0.9, 0)
    )
    change = (bright - dark).sum(-1)
    table = renderer.render(items, K_OFF_CENTRE, SIZE_WH, LIGHT).instance == 0
    assert (change[table] > 60).sum() > 30
    assert (change[table] == 0).mean() > 0.5


def test_scene_without_anything_is_the_background(renderer: Renderer) -> None:
    seen = renderer.render([], K_OFF_CENTRE, SIZE_WH, LIGHT, (1.0, 0.5, 0.0))
    assert seen.rgb.shape == (96, 120, 3) and (seen.rgb == (255, 127, 0)).all()
    assert not seen.depth_m.any() and not seen.instance.any()
