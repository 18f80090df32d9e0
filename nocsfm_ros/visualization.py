"""Pictures for people: overlays, grids with captions. RGB uint8 in, RGB uint8 out."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from nocsfm_ros.types import BoolArray, Float64Array, Track, TrackState, Uint8Array

STATE_COLOURS: dict[TrackState, tuple[int, int, int]] = {
    TrackState.SEARCHING: (255, 176, 0),
    TrackState.TRACKING: (60, 220, 90),
    TrackState.LOST: (255, 70, 70),
}
AXIS_COLOURS = ((255, 60, 60), (60, 220, 60), (70, 130, 255))  # x red, y green, z blue
OUTLINE = (0, 0, 0)
TEXT = (255, 255, 255)
BACKDROP = (24, 24, 24)
FONT = cv2.FONT_HERSHEY_SIMPLEX
MASK_TINT, STRIP_BRIGHTNESS = 0.35, 0.3
NEAR_M = 0.02  # nothing nearer than this is drawn: it would project to infinity
# Corners of a box as signs along x, y, z, and the 12 pairs that differ in one sign.
CORNERS = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], dtype=np.float64)
EDGES = [(a, b) for a in range(8) for b in range(a + 1, 8) if np.count_nonzero(CORNERS[a] != CORNERS[b]) == 1]


def overlay(
    rgb: Uint8Array, tracks: Sequence[Track], K: Float64Array, latency_ms: float | None = None
) -> Uint8Array:
    """The frame with every object's mask, box, axes, state and confidence drawn on it; of several the names too.

    Args:
        rgb: (H, W, 3) uint8, left unchanged.
        tracks: of this frame.
        K: (3, 3) intrinsics of the frame.
        latency_ms: written into the corner if given.

    Returns:
        (H, W, 3) uint8.
    """
    picture = np.ascontiguousarray(rgb).copy()
    draw_tracks(picture, tracks, K)
    scale = _text_scale(picture)
    for track in tracks if len(tracks) > 1 else ():
        if track.box_xywh is not None:
            corner_uv = int(track.box_xywh[0]), int(track.box_xywh[1])
            draw_text(picture, track.object_id, corner_uv, STATE_COLOURS[track.state], scale * 0.5)
    for row, track in enumerate(tracks):
        text = caption(track)
        if track.estimate.pose is None and track.estimate.reason:
            text += f"  {track.estimate.reason}"
        draw_text(picture, text, (6, int((row + 1) * 26 * scale)), STATE_COLOURS[track.state], scale * 0.6)
    if latency_ms is not None:
        draw_text(picture, f"{latency_ms:.0f} ms", (6, picture.shape[0] - 8), TEXT, scale * 0.6)
    return picture


def caption(track: Track) -> str:
    """An object's name, state and confidence in one line."""
    return f"{track.object_id}  {track.state.name}  {100 * track.estimate.confidence:.0f}%"


def draw_tracks(picture: Uint8Array, tracks: Sequence[Track], K: Float64Array) -> None:
    """Draw every object's mask, box and axes into the picture; no words."""
    for track in tracks:
        _draw_mask(picture, track.estimate.mask, STATE_COLOURS[track.state])
    for track in tracks:
        _draw_pose(picture, track, K)


def grid(
    pictures: Sequence[Uint8Array],
    captions: Sequence[str] = (),
    columns: int = 4,
    cell_wh: tuple[int, int] = (240, 180),
) -> Uint8Array:
    """Pictures side by side, each fitted into its cell without distortion, its caption above it."""
    named = [
        (picture, captions[index] if index < len(captions) else "") for index, picture in enumerate(pictures)
    ]
    return sheet([named[start : start + columns] for start in range(0, len(named), columns)], cell_wh)


def sheet(
    rows: Sequence[Sequence[tuple[Uint8Array, str]]], cell_wh: tuple[int, int] = (240, 180)
) -> Uint8Array:
    """Rows of (picture, caption); rows may differ in length.

    Returns:
        (H, W, 3) uint8 as wide as the longest row.
    """
    width = max((len(row) for row in rows), default=1) * cell_wh[0]
    lines = []
    for row in rows:
        line = np.hstack([_cell(picture, caption, cell_wh) for picture, caption in row])
        lines.append(
            cv2.copyMakeBorder(line, 0, 0, 0, width - line.shape[1], cv2.BORDER_CONSTANT, value=BACKDROP)
        )
    return np.vstack(lines).astype(np.uint8) if lines else np.zeros((cell_wh[1], width, 3), np.uint8)


def draw_text(
    picture: Uint8Array, text: str, origin_uv: tuple[int, int], colour: tuple[int, int, int], scale: float
) -> None:
    """Write text on a darkened strip, readable on dark and on light. The origin is bottom left."""
    text = text.encode("ascii", "replace").decode()  # OpenCV's fonts need not have other letters
    thickness, (u, v) = max(1, round(1.6 * scale)), origin_uv
    (width, height), below = cv2.getTextSize(text, FONT, scale, thickness)
    strip = picture[max(v - height - 3, 0) : v + below, max(u - 3, 0) : u + width + 3]
    strip[:] = np.round(STRIP_BRIGHTNESS * strip).astype(np.uint8)
    cv2.putText(picture, text, origin_uv, FONT, scale, colour, thickness, cv2.LINE_AA)


def draw_outline(picture: Uint8Array, mask: BoolArray, colour: tuple[int, int, int]) -> None:
    """Draw the outer edge of a mask of the picture's size, with a dark rim, into the picture."""
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    cv2.drawContours(picture, outlines, -1, OUTLINE, 3, cv2.LINE_AA)
    cv2.drawContours(picture, outlines, -1, colour, 1, cv2.LINE_AA)


def _draw_mask(picture: Uint8Array, mask: BoolArray, colour: tuple[int, int, int]) -> None:
    if mask.shape != picture.shape[:2] or not mask.any():
        return
    tinted = (1 - MASK_TINT) * picture[mask] + MASK_TINT * np.array(colour)
    picture[mask] = np.round(tinted).astype(np.uint8)
    draw_outline(picture, mask, colour)


def _draw_pose(picture: Uint8Array, track: Track, K: Float64Array) -> None:
    if track.estimate.pose is None:
        return
    T_cam_user = track.estimate.pose.T_cam_obj if track.T_cam_user is None else track.T_cam_user
    corners_cam = (track.centre_m + CORNERS * track.size_m / 2) @ T_cam_user[:3, :3].T + T_cam_user[:3, 3]
    farthest = int(np.argmax(np.linalg.norm(corners_cam, axis=1)))
    for a, b in sorted(EDGES, key=lambda edge: farthest not in edge):  # hidden edges first and thin
        _draw_segment(
            picture, corners_cam[[a, b]], K, STATE_COLOURS[track.state], 1 if farthest in (a, b) else 2
        )
    length_m = 0.5 * float(np.max(track.size_m))
    for axis, colour in enumerate(AXIS_COLOURS):
        tip_cam = T_cam_user[:3, 3] + length_m * T_cam_user[:3, axis]
        _draw_segment(picture, np.stack([T_cam_user[:3, 3], tip_cam]), K, colour, 3)


def _draw_segment(
    picture: Uint8Array, ends_cam: Float64Array, K: Float64Array, colour: tuple[int, int, int], width: int
) -> None:
    near, far = sorted(ends_cam, key=lambda point: float(point[2]))
    if not np.all(np.isfinite(ends_cam)) or far[2] <= NEAR_M:
        return
    if near[2] < NEAR_M:  # cut at the near plane
        near = far + (near - far) * (far[2] - NEAR_M) / (far[2] - near[2])
    ends = np.stack([near, far]) @ K.T
    pixels_uv = np.clip(np.round(ends[:, :2] / ends[:, 2:]), -30000, 30000).astype(int)
    start, end = (tuple(int(value) for value in pixel) for pixel in pixels_uv)
    cv2.line(picture, start, end, OUTLINE, width + 2, cv2.LINE_AA)
    cv2.line(picture, start, end, colour, width, cv2.LINE_AA)


def _cell(picture: Uint8Array, caption: str, cell_wh: tuple[int, int]) -> Uint8Array:
    caption_height, pad = 22, 3
    cell = np.full((cell_wh[1], cell_wh[0], 3), BACKDROP, np.uint8)
    room_w, room_h = cell_wh[0] - 2 * pad, cell_wh[1] - caption_height - pad
    factor = min(room_w / picture.shape[1], room_h / picture.shape[0])
    size_wh = max(1, int(picture.shape[1] * factor)), max(1, int(picture.shape[0] * factor))
    small = cv2.resize(picture, size_wh, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_NEAREST)
    left, top = pad + (room_w - size_wh[0]) // 2, caption_height + (room_h - size_wh[1]) // 2
    cell[top : top + size_wh[1], left : left + size_wh[0]] = small
    wide = cv2.getTextSize(caption, FONT, 0.45, 1)[0][0]
    draw_text(cell, caption, (pad + 2, 15), TEXT, 0.45 * min(1.0, (cell_wh[0] - 10) / max(wide, 1)))
    return cell


def _text_scale(picture: Uint8Array) -> float:
    return float(np.clip(picture.shape[1] / 640, 0.5, 3.0))
