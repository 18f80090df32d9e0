"""Procedural pictures: surfaces (noise, checkers, stripes, wood, tiles, collages) and printed labels."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

SIZE = 256
Picture = npt.NDArray[np.uint8]
Painter = Callable[[np.random.Generator], npt.NDArray[np.float64]]
_FONTS = (
    cv2.FONT_HERSHEY_SIMPLEX,
    cv2.FONT_HERSHEY_DUPLEX,
    cv2.FONT_HERSHEY_TRIPLEX,
    cv2.FONT_HERSHEY_COMPLEX,
    cv2.FONT_HERSHEY_SCRIPT_COMPLEX,
)
_LETTERS = "AABCDEEFGHIIKLMNOOPRSTUVWXZ"


def random_colour(rng: np.random.Generator, strength: float = 1.0) -> npt.NDArray[np.float64]:
    """(3,) RGB in [0, 255]; `strength` 0 is grey, 1 any saturation."""
    hsv = np.array(
        [[[rng.uniform(0, 180), 255 * strength * rng.beta(1.0, 1.3), 255 * rng.uniform(0.08, 1.0)]]]
    )
    return np.asarray(cv2.cvtColor(hsv.astype(np.uint8), cv2.COLOR_HSV2RGB)[0, 0], np.float64)


def surface_texture(rng: np.random.Generator) -> Picture:
    """(256, 256, 3) uint8 of a table, wall, floor, cloth or nothing nameable."""
    painters: tuple[Painter, ...] = (
        _noise,
        _noise,
        _wood,
        _wood,
        _checkers,
        _stripes,
        _tiles,
        _collage,
        _plain,
        _speckle,
    )
    picture = painters[rng.integers(len(painters))](rng)
    if rng.random() < 0.5:
        picture = picture * (0.75 + 0.5 * octaves(rng, 2, 6)[..., None])
    return np.clip(picture, 0, 255).astype(np.uint8)


def label_texture(rng: np.random.Generator, words: tuple[str, ...] = ()) -> Picture:
    """(256, 256, 3) uint8 of a printed package: ground, bands, shapes, text lines, sometimes a bar code."""
    ground, ink = random_colour(rng), random_colour(rng)
    image = np.empty((SIZE, SIZE, 3))
    image[:] = ground
    style = rng.random()
    if style < 0.25:
        image += (ink - ground) * np.linspace(0, 1, SIZE)[:, None, None] * rng.uniform(0.4, 1)
    elif style < 0.45:
        image = surface_texture(rng).astype(np.float64)
    canvas = np.clip(image, 0, 255).astype(np.uint8)
    for _ in range(rng.integers(1, 5)):
        top, height = rng.integers(0, SIZE), rng.integers(8, 90)
        cv2.rectangle(canvas, (0, int(top)), (SIZE, int(top + height)), _ink(rng), -1)
    for _ in range(rng.integers(1, 7)):
        _draw_shape(canvas, rng)
    for _ in range(rng.integers(1, 5)):
        _draw_text(canvas, rng, words)
    if rng.random() < 0.3:
        _draw_bars(canvas, rng)
    return canvas


def keyboard_texture(rng: np.random.Generator, ground: npt.ArrayLike) -> Picture:
    """(256, 256, 3) uint8 of the top of a laptop: five rows of keys with letters, a touch pad below them."""
    image = np.empty((SIZE, SIZE, 3))
    image[:] = ground
    canvas = np.clip(image, 0, 255).astype(np.uint8)
    key, ink = _ink(rng), _ink(rng)
    columns, pitch = int(rng.integers(11, 16)), int(rng.integers(24, 31))
    width = (SIZE - 16) / columns
    for row in range(5):
        for column in range(columns):
            left, top = int(8 + column * width), 14 + row * pitch
            cv2.rectangle(canvas, (left, top), (int(left + width - 4), top + pitch - 5), key, -1)
            letter = _LETTERS[rng.integers(len(_LETTERS))]
            cv2.putText(canvas, letter, (left + 3, top + 14), cv2.FONT_HERSHEY_SIMPLEX, 0.4, ink, 1, cv2.LINE_AA)
    pad = int(rng.integers(30, 60))
    top = 22 + 5 * pitch
    cv2.rectangle(canvas, (SIZE // 2 - pad, top), (SIZE // 2 + pad, SIZE - 12), key, int(rng.choice([-1, 2])))
    return canvas


def octaves(rng: np.random.Generator, low: int, high: int) -> npt.NDArray[np.float64]:
    """(256, 256) value noise in [0, 1]: random grids of 2^low .. 2^(high-1) cells, each finer one weaker."""
    total = np.zeros((SIZE, SIZE))
    for power in range(low, high):
        cells = rng.random((2**power, 2**power)).astype(np.float32)
        total += cv2.resize(cells, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC) * 0.6 ** (power - low)
    low_value, high_value = np.percentile(total, (2, 98))
    return np.asarray(np.clip((total - low_value) / (high_value - low_value), 0, 1))


def _blend(weight: npt.NDArray[np.float64], rng: np.random.Generator) -> npt.NDArray[np.float64]:
    one, two = random_colour(rng, 0.8), random_colour(rng, 0.8)
    return one + (two - one) * weight[..., None]


def _ink(rng: np.random.Generator) -> tuple[float, float, float]:
    red, green, blue = random_colour(rng)
    return float(red), float(green), float(blue)


def _noise(rng: np.random.Generator) -> npt.NDArray[np.float64]:
    low = int(rng.integers(1, 4))
    return _blend(octaves(rng, low, low + int(rng.integers(2, 5))), rng)


def _plain(rng: np.random.Generator) -> npt.NDArray[np.float64]:
    return random_colour(rng, 0.6) + rng.normal(0, 4, (SIZE, SIZE, 1))


def _wood(rng: np.random.Generator) -> npt.NDArray[np.float64]:
    grain = cv2.resize(rng.random((64, 4)).astype(np.float32), (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
    rings = 0.5 + 0.5 * np.sin(2 * np.pi * (rng.uniform(2, 9) * octaves(rng, 1, 3) + 2 * grain))
    dark = np.array([rng.uniform(60, 150), rng.uniform(35, 95), rng.uniform(15, 60)])
    light = np.minimum(dark * rng.uniform(1.2, 2.2), 245)
    return np.asarray(dark + (light - dark) * (0.6 * rings + 0.4 * grain)[..., None])


def _checkers(rng: np.random.Generator) -> npt.NDArray[np.float64]:
    row, column = np.indices((SIZE, SIZE)) // (2 ** int(rng.integers(3, 7)))
    return _blend(((row + column) % 2).astype(np.float64), rng)


def _stripes(rng: np.random.Generator) -> npt.NDArray[np.float64]:
    row, column = np.indices((SIZE, SIZE)) / SIZE
    wave = np.sin(2 * np.pi * (rng.integers(0, 9) * row + rng.integers(1, 13) * column))
    return _blend(
        wave * 0.5 + 0.5 if rng.random() < 0.4 else (wave > rng.uniform(-0.7, 0.7)).astype(np.float64), rng
    )


def _tiles(rng: np.random.Generator) -> npt.NDArray[np.float64]:
    row, column = np.indices((SIZE, SIZE))
    height = int(2 ** rng.integers(4, 7))
    column = column + (row // height % 2) * height * int(rng.integers(0, 2))
    joint = ((row % height) < 3) | ((column % (2 * height)) < 3)
    shade = rng.random((SIZE // height + 1, SIZE // height + 4))[row // height, column // (2 * height)]
    image = _blend(shade * rng.uniform(0.1, 1), rng)
    image[joint] = random_colour(rng, 0.3)
    return image


def _speckle(rng: np.random.Generator) -> npt.NDArray[np.float64]:
    spots = cv2.GaussianBlur(rng.random((SIZE, SIZE)), (0, 0), rng.uniform(0.6, 3.0))
    return _blend((spots > np.quantile(spots, rng.uniform(0.5, 0.97))).astype(np.float64), rng)


def _collage(rng: np.random.Generator) -> npt.NDArray[np.float64]:
    image = np.clip(_noise(rng), 0, 255).astype(np.uint8)
    for _ in range(rng.integers(6, 30)):
        _draw_shape(image, rng)
    for _ in range(rng.integers(0, 4)):
        _draw_text(image, rng, ())
    return image.astype(np.float64)


def _draw_shape(image: Picture, rng: np.random.Generator) -> None:
    centre, radius = rng.integers(0, SIZE, 2), int(rng.integers(6, 70))
    kind, fill = rng.integers(4), -1 if rng.random() < 0.75 else int(rng.integers(2, 9))
    if kind == 0:
        cv2.circle(image, (int(centre[0]), int(centre[1])), radius, _ink(rng), fill, cv2.LINE_AA)
    elif kind == 1:
        sides = int(rng.integers(3, 11))
        angles = np.linspace(0, 2 * np.pi, sides, endpoint=False) + rng.uniform(0, 6)
        reach = radius * np.where(np.arange(sides) % 2, rng.uniform(0.4, 1), 1)
        corners = centre + reach[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)
        cv2.fillPoly(image, [corners.astype(np.int32)], _ink(rng), cv2.LINE_AA)
    elif kind == 2:
        axes = (radius, int(rng.integers(4, radius + 1)))
        cv2.ellipse(
            image, (int(centre[0]), int(centre[1])), axes, rng.uniform(0, 180), 0, 360, _ink(rng), fill
        )
    else:
        end = centre + rng.integers(-80, 80, 2)
        cv2.rectangle(image, (int(centre[0]), int(centre[1])), (int(end[0]), int(end[1])), _ink(rng), fill)


def _draw_text(image: Picture, rng: np.random.Generator, words: tuple[str, ...]) -> None:
    made = "".join(rng.choice(list(_LETTERS), rng.integers(2, 9)))
    text = words[rng.integers(len(words))] if words else made
    size, thickness = rng.uniform(0.5, 2.6), int(rng.integers(1, 6))
    font, origin = (
        _FONTS[rng.integers(len(_FONTS))],
        (int(rng.integers(-20, 120)), int(rng.integers(25, SIZE))),
    )
    for line in range(int(rng.integers(1, 4)) if size < 1 else 1):
        below = (origin[0], origin[1] + int(line * 32 * size))
        cv2.putText(image, text, below, font, size, _ink(rng), thickness, cv2.LINE_AA)


def _draw_bars(image: Picture, rng: np.random.Generator) -> None:
    left, top = rng.integers(0, SIZE - 80, 2)
    cv2.rectangle(image, (int(left), int(top)), (int(left + 78), int(top + 48)), (250, 250, 250), -1)
    for column in np.flatnonzero(rng.random(70) < 0.45):
        x = int(left + 4 + column)
        cv2.line(image, (x, int(top + 5)), (x, int(top + 40)), (15, 15, 15), 1)
