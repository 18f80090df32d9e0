"""Off-screen rendering with moderngl on EGL: colour, metric depth and instance ids in one draw pass, any K.

One camera convention only: x right, y down, z forward, an integer pixel coordinate is a pixel centre.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from dataclasses import dataclass

import cv2
import moderngl
import numpy as np
import numpy.typing as npt

from nocsfm_ros.data.meshes import TEXTURE_SIZE, Mesh
from nocsfm_ros.data.shaders import FRAGMENT, ITEM_FLOATS, PLAIN_FRAGMENT, PLAIN_VERTEX, VERTEX
from nocsfm_ros.errors import ConfigError
from nocsfm_ros.geometry.transforms import cross
from nocsfm_ros.types import Float64Array

NEAR_M, FAR_M = 0.05, 20.0
SHADOW_SIZE = 256
KEPT_MESHES = 4000  # most of them: what is thrown out is drawn again soon, and costs 2 ms to bring back
MAX_ITEMS, BLOCK_BYTES = 64, 256  # 256 is the largest alignment of uniform blocks that OpenGL allows


def enter_render_process() -> None:
    """In a worker: Mesa's software rasteriser gets one core."""
    os.environ.setdefault("LP_NUM_THREADS", "1")


@dataclass(frozen=True)
class Item:
    """One mesh in front of the camera.

    Attributes:
        mesh: the mesh, in its own frame (unit diagonal).
        T_cam_obj: (4, 4) rigid pose, metres.
        scale_m: metres per mesh unit, one number or one per axis.
        instance: id drawn into the id picture, 0 to 255.
        print_layer: layer of the renderer's surface textures that replaces the mesh's own look, -1 for none.
        print_scale: repeats of that texture per metre.
        tint: (3,) multiplies the colour.
        shininess: (strength, exponent) of the specular light.
        casts_shadow: False for walls and tables.
    """

    mesh: Mesh
    T_cam_obj: Float64Array
    scale_m: float | tuple[float, float, float]
    instance: int = 0
    print_layer: int = -1
    print_scale: float = 4.0
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)
    shininess: tuple[float, float] = (0.1, 20.0)
    casts_shadow: bool = True


@dataclass(frozen=True)
class Light:
    """Sun, sky and fill.

    Attributes:
        to_sun_cam: (3,) unit direction from the scene to the light.
        colour: (3,) of the sun; ambient: (3,); fill: strength of a shadowless light from the camera.
        shadow: 0 none to 1 black.
    """

    to_sun_cam: Float64Array
    colour: tuple[float, float, float] = (0.7, 0.7, 0.7)
    ambient: tuple[float, float, float] = (0.35, 0.35, 0.35)
    fill: float = 0.15
    shadow: float = 0.7


@dataclass(frozen=True)
class Rendering:
    """rgb (H, W, 3) uint8; depth_m (H, W) float32, 0 = nothing; instance (H, W) uint8."""

    rgb: npt.NDArray[np.uint8]
    depth_m: npt.NDArray[np.float32]
    instance: npt.NDArray[np.uint8]


@dataclass
class _Target:
    framebuffer: moderngl.Framebuffer
    colour: moderngl.Texture
    depth: moderngl.Texture


@dataclass
class _Uploaded:
    shaded: moderngl.VertexArray
    plain: moderngl.VertexArray
    textures: moderngl.TextureArray | None
    radius: float
    buffers: list[moderngl.Buffer]

    def release(self) -> None:
        for owned in (self.shaded, self.plain, *self.buffers, self.textures):
            if owned is not None:
                owned.release()


class Renderer:
    """Draws items; keeps what it uploaded. One per process.

    Args:
        surfaces: (L, 256, 256, 3) uint8, pictures that `Item.print_layer` names.

    Raises:
        ConfigError: no EGL here.
    """

    def __init__(self, surfaces: npt.NDArray[np.uint8]) -> None:
        try:
            self._context = moderngl.create_context(standalone=True, backend="egl")  # type: ignore[arg-type]
        except Exception as error:  # moderngl raises bare Exception
            raise ConfigError(
                "off-screen OpenGL",
                got=error,
                expected="EGL with OpenGL 3.3",
                mend="sudo apt-get install libegl1 libgl1-mesa-dri",
            ) from error
        self._context.enable(moderngl.DEPTH_TEST)
        self._program = self._context.program(vertex_shader=VERTEX, fragment_shader=FRAGMENT)
        self._plain = self._context.program(vertex_shader=PLAIN_VERTEX, fragment_shader=PLAIN_FRAGMENT)
        self._blocks = self._context.buffer(reserve=MAX_ITEMS * BLOCK_BYTES, dynamic=True)
        self._surfaces = self._texture_array(surfaces)
        self._no_texture = self._texture_array(np.full((1, TEXTURE_SIZE, TEXTURE_SIZE, 4), 255, np.uint8))
        self._shadow_map = self._context.depth_texture((SHADOW_SIZE, SHADOW_SIZE))
        self._shadow_map.compare_func = "<="
        self._shadow_buffer = self._context.framebuffer(depth_attachment=self._shadow_map)
        self._targets: dict[tuple[int, int], _Target] = {}
        self._uploaded: OrderedDict[str, _Uploaded] = OrderedDict()
        for name, unit in (("pictures", 0), ("shadow_map", 1)):
            self._program[name] = unit

    def render(
        self,
        items: list[Item],
        K: Float64Array,
        size_wh: tuple[int, int],
        light: Light,
        background: tuple[float, float, float] = (0.5, 0.5, 0.5),
        smooth: bool = True,
    ) -> Rendering:
        """Draw `items`, at most MAX_ITEMS, as the camera K of size_wh sees them; shadows fall around the first.

        With `smooth` the colour is drawn at twice the size and filtered by [1 2 1] / 4 around each pixel
        centre; depth and ids are always single samples at the pixel centre (every second one of the pass).
        """
        if not items:
            empty = np.zeros(size_wh[::-1])
            rgb = np.full((*empty.shape, 3), np.asarray(background) * 255)
            return Rendering(rgb.astype(np.uint8), empty.astype(np.float32), empty.astype(np.uint8))
        step = 2 if smooth else 1
        shadow_from_cam = _shadow_camera(items[0], light)
        items = sorted(items, key=_drawing_order)
        bounds = self._prepare(items)
        if light.shadow > 0:
            self._draw_shadows(items, bounds, shadow_from_cam)
        target = self._target((size_wh[0] * step, size_wh[1] * step))
        target.framebuffer.use()
        target.framebuffer.clear(*background, 0.0)
        self._set_light(light, shadow_from_cam)
        clip = clip_from_cam(K, size_wh, step)
        self._program["clip_from_cam"] = _column_major(clip)
        self._shadow_map.use(1)
        for index in _in_view(clip, bounds):
            uploaded = self._bind(items, index)
            is_printed = items[index].print_layer >= 0
            (self._surfaces if is_printed else uploaded.textures or self._no_texture).use(0)
            uploaded.shaded.render()
        return self._read(target, step)

    def silhouettes(
        self, items: list[Item], K: Float64Array, size_wh: tuple[int, int], count: int
    ) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        """Instance ids (H, W) with only the first `count` items drawn, and with all: what occludes them."""
        bounds = self._prepare(items)
        (width, height), clip = size_wh, clip_from_cam(K, size_wh)
        framebuffer = self._target((2 * width, height)).framebuffer
        framebuffer.use()
        framebuffer.clear()
        self._plain["clip_from_cam"] = _column_major(clip)
        in_view = _in_view(clip, bounds)
        for half, shown in enumerate(([index for index in in_view if index < count], in_view)):
            framebuffer.viewport = (half * width, 0, width, height)
            for index in shown:
                self._bind(items, index).plain.render()
        framebuffer.viewport = (0, 0, 2 * width, height)
        both = np.frombuffer(framebuffer.read(components=1), np.uint8).reshape(height, 2 * width)
        return both[:, :width], both[:, width:]

    def _prepare(self, items: list[Item]) -> Float64Array:
        """Send the items' blocks; returns (N, 4) bounding spheres: centre in the camera and radius, metres."""
        blocks = np.zeros((len(items), BLOCK_BYTES // 4), np.float32)
        bounds = np.empty((len(items), 4))
        for index, item in enumerate(items):
            scale = np.full(3, item.scale_m, np.float64)
            cam_from_mesh = item.T_cam_obj * (*scale, 1.0)
            blocks[index, :16] = cam_from_mesh.T.ravel()
            blocks[index, 16:ITEM_FLOATS] = (
                *scale, item.print_scale, *item.tint, item.instance / 255.0, item.print_layer, *item.shininess, 0.0
            )
            bounds[index] = (*item.T_cam_obj[:3, 3], self._upload(item.mesh).radius * scale.max())
        self._blocks.write(blocks.tobytes())
        return bounds

    def _bind(self, items: list[Item], index: int) -> _Uploaded:
        self._blocks.bind_to_uniform_block(0, offset=index * BLOCK_BYTES, size=4 * ITEM_FLOATS)
        return self._upload(items[index].mesh)

    def _draw_shadows(self, items: list[Item], bounds: Float64Array, shadow_from_cam: Float64Array) -> None:
        self._shadow_buffer.use()
        self._shadow_buffer.clear()
        self._plain["clip_from_cam"] = _column_major(shadow_from_cam)
        for index in _in_view(shadow_from_cam, bounds):
            if items[index].casts_shadow:
                self._bind(items, index).plain.render()

    def _set_light(self, light: Light, shadow_from_cam: Float64Array) -> None:
        self._program["to_sun"] = tuple(light.to_sun_cam)
        self._program["sun"] = light.colour
        self._program["ambient"] = light.ambient
        self._program["fill_and_shadow"] = (light.fill, light.shadow)
        self._program["shadow_from_cam"] = _column_major(shadow_from_cam)

    def _upload(self, mesh: Mesh) -> _Uploaded:
        if mesh.name in self._uploaded:
            self._uploaded.move_to_end(mesh.name)
            return self._uploaded[mesh.name]
        rows = np.hstack([mesh.vertices, mesh.normals, mesh.uv, mesh.layer[:, None], mesh.colour])
        vertices = self._context.buffer(rows.astype("f4").tobytes())
        indices = self._context.buffer(mesh.faces.astype("i4").tobytes())
        coarse = [self._context.buffer(array.tobytes()) for array in (mesh.coarse_vertices, mesh.coarse_faces)]
        names = ("in_position", "in_normal", "in_uv", "in_layer", "in_colour")
        uploaded = _Uploaded(
            self._context.vertex_array(self._program, [(vertices, "3f 3f 2f 1f 3f", *names)], indices),
            self._context.vertex_array(self._plain, [(coarse[0], "3f", "in_position")], coarse[1]),
            self._texture_array(mesh.textures) if len(mesh.textures) else None,
            float(np.linalg.norm(mesh.vertices, axis=1).max()),
            [vertices, indices, *coarse],
        )
        self._uploaded[mesh.name] = uploaded
        if len(self._uploaded) > KEPT_MESHES:
            self._uploaded.popitem(last=False)[1].release()
        return uploaded

    def _texture_array(self, pictures: npt.NDArray[np.uint8]) -> moderngl.TextureArray:
        layers, height, width, channels = pictures.shape
        texture = self._context.texture_array(
            (width, height, layers), channels, np.ascontiguousarray(pictures).tobytes()
        )
        texture.build_mipmaps()
        texture.filter = (moderngl.LINEAR_MIPMAP_NEAREST, moderngl.LINEAR)
        return texture

    def _target(self, size_wh: tuple[int, int]) -> _Target:
        if size_wh not in self._targets:
            colour, depth = self._context.texture(size_wh, 4), self._context.depth_texture(size_wh)
            self._targets[size_wh] = _Target(self._context.framebuffer([colour], depth), colour, depth)
        return self._targets[size_wh]

    def _read(self, target: _Target, step: int) -> Rendering:
        width, height = target.colour.size
        rgba = np.frombuffer(target.colour.read(), np.uint8).reshape(height, width, 4)
        window = np.frombuffer(target.depth.read(), np.float32).reshape(height, width)[::step, ::step]
        depth_m = np.where(window < 1, NEAR_M * FAR_M / (FAR_M - window * np.float32(FAR_M - NEAR_M)), np.float32(0))
        instance = rgba[::step, ::step, 3].copy()
        rgb = cv2.cvtColor(rgba, cv2.COLOR_RGBA2RGB)
        if step == 2:
            kernel = np.array([0.25, 0.5, 0.25])
            rgb = cv2.sepFilter2D(rgb, -1, kernel, kernel, borderType=cv2.BORDER_REPLICATE)[::2, ::2]
        return Rendering(np.asarray(rgb, np.uint8), depth_m, instance)


def _drawing_order(item: Item) -> tuple[bool, float]:
    """Near things first, walls and tables last: most of them is hidden by then."""
    return not item.casts_shadow, float(item.T_cam_obj[2, 3])


def _in_view(clip_from_cam: Float64Array, bounds: Float64Array) -> list[int]:
    """Numbers of the spheres (N, 4) that no plane of a projection, four sides, near and far, rules out."""
    planes = np.concatenate([clip_from_cam[3] + clip_from_cam[:3], clip_from_cam[3] - clip_from_cam[:3]])
    planes /= np.linalg.norm(planes[:, :3], axis=1, keepdims=True)
    is_in_view = (bounds[:, :3] @ planes[:, :3].T + planes[:, 3] > -bounds[:, 3:]).all(axis=1)
    return list(np.flatnonzero(is_in_view).tolist())


def clip_from_cam(K: Float64Array, size_wh: tuple[int, int], step: int = 1) -> Float64Array:
    """(4, 4) OpenGL projection. Sample s of the picture drawn `step` times finer looks along pixel s / step.

    Pixel u is column u + 0.5 of the viewport; v likewise with the first row at the viewport's lower edge,
    so that reading the buffer needs no flip.
    """
    width, height = size_wh[0] * step, size_wh[1] * step
    P = np.zeros((4, 4))
    P[0, :3] = 2 * step * K[0] / width
    P[1, :3] = 2 * step * K[1] / height
    P[0, 2] += 1 / width - 1
    P[1, 2] += 1 / height - 1
    P[2, 2:] = (FAR_M + NEAR_M) / (FAR_M - NEAR_M), -2 * FAR_M * NEAR_M / (FAR_M - NEAR_M)
    P[3, 2] = 1
    return P


def _shadow_camera(centre: Item, light: Light) -> Float64Array:
    """Orthographic view along the sun of a cube three times as wide as `centre`."""
    forward = -np.asarray(light.to_sun_cam, np.float64)
    right = cross(forward, [0.0, 0, 1] if abs(forward[2]) < 0.9 else [1.0, 0, 0])
    right /= np.linalg.norm(right)
    reach = 1.8 * float(np.max(np.asarray(centre.scale_m)))
    axes = np.stack([right, cross(forward, right), forward]) / reach
    return np.block([[axes, (-axes @ centre.T_cam_obj[:3, 3])[:, None]], [np.zeros((1, 3)), np.ones((1, 1))]])


def _column_major(matrix: Float64Array) -> tuple[float, ...]:
    return tuple(matrix.T.ravel().tolist())
