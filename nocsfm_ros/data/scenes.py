"""Random scenes around one target object, in the camera's frame: table, walls, clutter, light."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from nocsfm_ros.data.hands import holding_hand
from nocsfm_ros.data.library import MeshLibrary
from nocsfm_ros.data.renderer import Item, Light
from nocsfm_ros.data.shapes import plane_mesh
from nocsfm_ros.data.textures import surface_texture
from nocsfm_ros.geometry.transforms import cross, invert, make_T, transform
from nocsfm_ros.types import Float64Array

FRAME_WH = (640, 480)
TARGET = 1
RANDOM_SHARE = 0.2
FLAT_SHARE, FLAT_DRAWS, FLAT_RATIO = 0.15, 20, 0.12  # flat: the thinnest side is under this share of the longest
_PLANE = plane_mesh()


@dataclass(frozen=True)
class Target:
    """The object that a cluster of views shows: same mesh, size and look, base orientation in the camera.

    Attributes:
        index: of the mesh in the library.
        diagonal_m: diagonal of the tight box.
        up_axis: the object's axis that points up from tables: 1 for what stands, the thin one for what lies flat;
            None: it may lie, lean or hang in any orientation.
        R_cam_obj: (3, 3) base orientation.
        look: the part of Item that belongs to the object.
    """

    index: int
    diagonal_m: float
    up_axis: int | None
    R_cam_obj: Float64Array
    look: Item


@dataclass(frozen=True)
class Scene:
    """Items (the target first), light and camera of one view; `up` is the table's normal in the camera, if any."""

    items: list[Item]
    light: Light
    K: Float64Array
    background: tuple[float, float, float]
    up: Float64Array | None = None


def surface_pool(seed: int, count: int = 64) -> npt.NDArray[np.uint8]:
    """(count, 256, 256, 3) textures of tables and walls for a Renderer."""
    rng = np.random.default_rng([10, seed])
    return np.stack([surface_texture(rng) for _ in range(count)])


def sample_target(rng: np.random.Generator, library: MeshLibrary, heldout: bool, num_surfaces: int) -> Target:
    """Draw what a cluster shows: 40 % procedural prints, else the catalogue or random shapes; half of them upright.

    FLAT_SHARE of the draws ask for a flat thing (cards, books, plates, cutlery): depth hardly shows it on a table.
    """
    wants_flat = rng.random() < FLAT_SHARE
    for _ in range(FLAT_DRAWS if wants_flat else 1):
        index = random_mesh(rng, library, heldout, procedural=0.4)
        thin_axis = _thin_axis(library.hull(index))
        if thin_axis is not None:
            break
    up_axis = (1 if thin_axis is None else thin_axis) if rng.random() < 0.5 else None
    diagonal_m = float(np.exp(rng.uniform(np.log(0.06), np.log(0.40))))
    if up_axis is None:
        R = Rotation.random(random_state=rng).as_matrix()
    else:
        R = np.roll(tilted_up(rng)[0], up_axis - 1, axis=1)  # the up direction becomes column up_axis
    look = with_random_look(
        Item(library.mesh(index), np.eye(4), diagonal_m, TARGET), rng, num_surfaces, 0.12
    )
    return Target(index, diagonal_m, up_axis, R, look)


def sample_scene(
    rng: np.random.Generator,
    library: MeshLibrary,
    target: Target,
    heldout: bool,
    num_surfaces: int,
    crowded: bool = True,
) -> Scene:
    """One view of the target: turned by 0 to 45 deg from its base orientation, in surroundings of its own.

    `crowded` False leaves hands and occluders away.
    """
    K = np.array(
        [
            [rng.uniform(540, 660), 0, 319.5 + rng.uniform(-15, 15)],
            [0, 0, 239.5 + rng.uniform(-15, 15)],
            [0, 0, 1],
        ]
    )
    K[1, 1] = K[0, 0]
    T_cam_obj = _target_pose(rng, target, K)
    item = placed(target.look, T_cam_obj)
    hull_cam = library.hull(target.index) * target.diagonal_m @ T_cam_obj[:3, :3].T + T_cam_obj[:3, 3]
    up = _table_normal(rng, target, T_cam_obj)
    items, sun_side = [item], np.array([0.0, -0.7, -0.7])
    if up is not None:
        floor = float((hull_cam @ up).min())
        items += [table_under(rng, up, floor, T_cam_obj[:3, 3], num_surfaces)]
        items += clutter_around(rng, library, target, hull_cam, up, floor, heldout, num_surfaces)
        sun_side = up
    if rng.random() < 0.88:
        items.append(wall_behind(rng, hull_cam, num_surfaces))
    if crowded and rng.random() < (0.3 if up is not None else 0.6):
        items += holding_hand(rng, hull_cam, up)
    if crowded and rng.random() < 0.3:
        items.append(_occluder(rng, library, target, hull_cam, heldout, num_surfaces))
    red, green, blue = rng.uniform(0, 1, 3)
    return Scene(items, sample_light(rng, sun_side), K, (red, green, blue), up)


def with_hand(rng: np.random.Generator, library: MeshLibrary, target: Target, scene: Scene) -> Scene:
    """The scene with a hand on its target."""
    T_cam_obj = scene.items[0].T_cam_obj
    hull_cam = library.hull(target.index) * target.diagonal_m @ T_cam_obj[:3, :3].T + T_cam_obj[:3, 3]
    return replace(scene, items=[*scene.items, *holding_hand(rng, hull_cam, scene.up)])


def sample_light(rng: np.random.Generator, above: Float64Array) -> Light:
    """A sun somewhere on the side of `above`, warm or cold, with more or less sky and shadow."""
    direction = rng.normal(size=3) + 1.2 * above
    direction /= np.linalg.norm(direction)
    warmth, strength, sky = rng.uniform(-0.12, 0.12), rng.uniform(0.3, 1.0), rng.uniform(0.25, 0.65)
    tint = np.array([1 + warmth, 1.0, 1 - warmth])
    sun_r, sun_g, sun_b = strength * tint
    sky_r, sky_g, sky_b = sky / np.sqrt(tint)
    return Light(
        direction,
        (sun_r, sun_g, sun_b),
        (sky_r, sky_g, sky_b),
        float(rng.uniform(0, 0.3)),
        float(rng.uniform(0.3, 0.95)),
    )


def _thin_axis(hull: Float64Array) -> int | None:
    extent = np.ptp(hull, axis=0)
    axis = int(np.argmin(extent))
    return axis if extent[axis] < FLAT_RATIO * extent.max() else None


def tilted_up(rng: np.random.Generator) -> tuple[Float64Array, Float64Array]:
    """An upright orientation seen from 5 to 75 deg above: R_cam_obj and the up direction in the camera."""
    elevation = np.radians(rng.uniform(5, 75))
    up = Rotation.from_euler("z", rng.normal(0, 10), degrees=True).apply(
        [0, -np.cos(elevation), -np.sin(elevation)]
    )
    return frame_with_up(up, rng), up


def frame_with_up(up: Float64Array, rng: np.random.Generator) -> Float64Array:
    """(3, 3) whose second column is `up`, turned about it at random."""
    right = cross(up, rng.normal(size=3))
    right /= np.linalg.norm(right)
    return np.stack([right, up, cross(right, up)], axis=1)


def _target_pose(rng: np.random.Generator, target: Target, K: Float64Array) -> Float64Array:
    axis = rng.normal(size=3)
    turn = Rotation.from_rotvec(np.radians(rng.uniform(0, 45)) * axis / np.linalg.norm(axis)).as_matrix()
    nearest, farthest = max(0.35, 1.4 * target.diagonal_m), min(1.5, 15 * target.diagonal_m)
    distance = rng.uniform(nearest, max(farthest, nearest + 0.1))
    pixel = np.array([rng.uniform(60, 580), rng.uniform(50, 430), 1.0])
    T_cam_obj = np.eye(4)
    T_cam_obj[:3, :3] = turn @ target.R_cam_obj
    T_cam_obj[:3, 3] = distance * np.linalg.solve(K, pixel)
    return T_cam_obj


def _table_normal(rng: np.random.Generator, target: Target, T_cam_obj: Float64Array) -> Float64Array | None:
    """Up direction of the table in the camera, or None for an object in free air."""
    if rng.random() > 0.65:
        return None
    up = tilted_up(rng)[1] if target.up_axis is None else T_cam_obj[:3, target.up_axis]
    towards = -T_cam_obj[:3, 3] / np.linalg.norm(T_cam_obj[:3, 3])
    return up if up @ towards > 0.1 else None


def placed(look: Item, T_cam_obj: Float64Array) -> Item:
    """The same thing at another place."""
    return Item(**{**look.__dict__, "T_cam_obj": T_cam_obj})


def standing(T_cam_obj: Float64Array, hull_obj: Float64Array, up: Float64Array, floor: float) -> Float64Array:
    """The pose moved along `up` until the hull (M, 3), metres, stands on the floor."""
    T = T_cam_obj.copy()
    T[:3, 3] += (floor - float((transform(T_cam_obj, hull_obj) @ up).min())) * up
    return T


def alone_on_table(
    rng: np.random.Generator, item: Item, hull_cam: Float64Array, up: Float64Array, num_surfaces: int
) -> tuple[list[Item], Light]:
    """What the picture of a reference shows: the item on a table with a wall behind, in a light of its own."""
    table = table_under(rng, up, float((hull_cam @ up).min()), item.T_cam_obj[:3, 3], num_surfaces)
    return [item, table, wall_behind(rng, hull_cam, num_surfaces)], sample_light(rng, up)


def camera_about(point: Float64Array, R: Float64Array, away_m: float) -> Float64Array:
    """T_cam_world (4, 4) of the camera at the world's origin after it went around a point (3,) and away from it."""
    to_point = make_T(np.eye(3), point)
    return np.asarray(to_point @ make_T(R, np.array([0, 0, away_m])) @ invert(to_point))


def with_random_look(item: Item, rng: np.random.Generator, num_surfaces: int, reprinted: float) -> Item:
    """The item with another tint and gloss, and with the probability `reprinted` another print."""
    red, green, blue = rng.uniform(0.75, 1.1, 3) if rng.random() < 0.5 else np.full(3, rng.uniform(0.7, 1.1))
    layer = int(rng.integers(num_surfaces)) if rng.random() < reprinted else -1
    return Item(
        **{
            **item.__dict__,
            "tint": (red, green, blue),
            "print_layer": layer,
            "print_scale": float(rng.uniform(2, 14)),
            "shininess": (float(rng.uniform(0, 0.6) ** 2), float(rng.uniform(5, 60))),
        }
    )


def table_under(
    rng: np.random.Generator, up: Float64Array, floor: float, near: Float64Array, num_surfaces: int
) -> Item:
    """A table whose normal is `up` and whose top is at `floor` along it, somewhere under the point `near`."""
    T = np.eye(4)
    T[:3, :3] = frame_with_up(up, rng)
    side = rng.uniform(0.5, 2.5)
    T[:3, 3] = near + (floor - near @ up) * up + T[:3, :3] @ (rng.uniform(-0.3, 0.3, 3) * (side, 0, side))
    return _surface(rng, T, side, num_surfaces)


def wall_behind(rng: np.random.Generator, hull_cam: Float64Array, num_surfaces: int) -> Item:
    """A wall farther away than every point of the hull (M, 3)."""
    T = np.eye(4)
    normal = Rotation.from_euler("xy", rng.normal(0, 20, 2), degrees=True).apply([0, 0, -1])
    T[:3, :3] = frame_with_up(normal, rng)
    T[:3, 3] = hull_cam.mean(axis=0)
    T[:3, 3] -= (float((-(hull_cam - T[:3, 3]) @ normal).max()) + 0.02 + rng.exponential(0.7)) * normal
    return _surface(rng, T, 12.0, num_surfaces)


def _surface(rng: np.random.Generator, T: Float64Array, side: float, num_surfaces: int) -> Item:
    red, green, blue = np.full(3, rng.uniform(0.5, 1.1))
    return Item(
        _PLANE,
        T,
        side,
        0,
        int(rng.integers(num_surfaces)),
        float(np.exp(rng.uniform(np.log(0.4), np.log(6)))),
        (red, green, blue),
        (0.1 * rng.random(), 20.0),
        casts_shadow=False,
    )


def random_mesh(rng: np.random.Generator, library: MeshLibrary, heldout: bool, procedural: float) -> int:
    """An index: procedural with this probability, RANDOM_SHARE random shapes in training, else of the catalogue."""
    drawn = rng.random()
    is_random = not heldout and drawn > 1 - RANDOM_SHARE
    kind = "procedural" if drawn < procedural else "random" if is_random else "catalogue"
    return int(rng.choice(library.indices(heldout, kind)))


def clutter_around(
    rng: np.random.Generator,
    library: MeshLibrary,
    target: Target,
    hull_cam: Float64Array,
    up: Float64Array,
    floor: float,
    heldout: bool,
    num_surfaces: int,
) -> list[Item]:
    """Objects standing on the same table, a third of them touching the target, some of them its twins."""
    items = []
    centre = hull_cam.mean(axis=0)
    for number in range(int(rng.integers(0, 7))):
        is_twin = rng.random() < 0.1
        index = target.index if is_twin else random_mesh(rng, library, heldout, procedural=0.5)
        size = (
            target.diagonal_m
            if is_twin
            else float(np.clip(target.diagonal_m * np.exp(rng.normal(0, 0.45)), 0.04, 0.5))
        )
        R = frame_with_up(up, rng)
        hull = library.hull(index) * size @ R.T
        across = cross(up, rng.normal(size=3))
        across /= np.linalg.norm(across)
        free = 0.001 if rng.random() < 0.35 else rng.exponential(0.6 * target.diagonal_m)
        gap = ((hull_cam - centre) @ across).max() + (hull @ -across).max() + free
        T = np.eye(4)
        T[:3, :3], T[:3, 3] = R, centre + across * gap
        T = standing(T, library.hull(index) * size, up, floor)
        if T[2, 3] - (hull[:, 2].max() - hull[:, 2].min()) / 2 > 0.12:
            item = Item(library.mesh(index), T, size, TARGET + 1 + number)
            same = placed(Item(**{**target.look.__dict__, "instance": TARGET + 1 + number}), T)
            items.append(
                same if is_twin and rng.random() < 0.5 else with_random_look(item, rng, num_surfaces, 0.15)
            )
    return items


def _occluder(
    rng: np.random.Generator,
    library: MeshLibrary,
    target: Target,
    hull_cam: Float64Array,
    heldout: bool,
    num_surfaces: int,
) -> Item:
    """Something between camera and object, beside the line of sight."""
    index = random_mesh(rng, library, heldout, procedural=0.5)
    goal = hull_cam[rng.integers(len(hull_cam))]
    near = rng.uniform(0.45, 0.92)
    size = target.diagonal_m * near * rng.uniform(0.4, 1.2)
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = Rotation.random(random_state=rng).as_matrix(), goal * near
    T[2, 3] = min(T[2, 3], float(hull_cam[:, 2].min()) - 0.4 * size) if rng.random() < 0.8 else T[2, 3]
    T[2, 3] = max(T[2, 3], 0.1 + size / 2)
    return with_random_look(Item(library.mesh(index), T, size, 251), rng, num_surfaces, 0.2)
