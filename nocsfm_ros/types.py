"""The nouns of nocsfm_ros, as frozen dataclasses. Units: metres, pixels, nanoseconds. See docs/conventions.md.

`T_a_b` maps points of frame b into frame a: ``p_a = T_a_b @ p_b``. Frames used here: ``cam`` the camera's
optical frame (x right, y down, z forward), ``obj`` the object's own frame, fixed once by its reference.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Float64Array = npt.NDArray[np.float64]
Float32Array = npt.NDArray[np.float32]
Uint8Array = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]
BoxXywh = tuple[float, float, float, float]


@dataclass(frozen=True)
class RgbdFrame:
    """One synchronised colour and depth picture, depth registered to colour.

    Attributes:
        rgb: (H, W, 3) uint8.
        depth_m: (H, W) float32, metres along the optical axis, 0 = invalid.
        K: (3, 3) float64 pinhole intrinsics of the whole picture, pixels; an integer is a pixel centre.
        stamp_ns: capture time of the source clock.
        frame_id: name of the camera's optical frame.
    """

    rgb: Uint8Array
    depth_m: Float32Array
    K: Float64Array
    stamp_ns: int = 0
    frame_id: str = ""

    @property
    def size_wh(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.rgb.shape[1], self.rgb.shape[0]


@dataclass(frozen=True)
class Reference:
    """What the user gives for one object: a picture, and as much more as there is.

    Attributes:
        object_id: name of the object.
        rgb: (H, W, 3) uint8.
        mask: (H, W) bool, True on the object.
        depth_m: (H, W) float32 metres, 0 = invalid, or None for a plain picture.
        K: (3, 3) float64, or None (then depth_m must be None too).
        T_cam_user: (4, 4) pose of the user's own object frame in the reference camera, or None
            (then the object frame is the reference-anchored one of geometry.nocs).
    """

    object_id: str
    rgb: Uint8Array
    mask: BoolArray
    depth_m: Float32Array | None = None
    K: Float64Array | None = None
    T_cam_user: Float64Array | None = None


@dataclass(frozen=True)
class ObjectCrop:
    """A square cut-out of a frame, background kept, resampled to S x S.

    Attributes:
        rgb: (S, S, 3) uint8.
        depth_m: (S, S) float32 metres, nearest-neighbour resampled, 0 = invalid or outside the picture.
        A_crop_image: (3, 3) float64, homogeneous pixels of the image -> pixels of the crop.
        K_crop: (3, 3) float64, ``A_crop_image @ K``.
    """

    rgb: Uint8Array
    depth_m: Float32Array
    A_crop_image: Float64Array
    K_crop: Float64Array


@dataclass(frozen=True)
class SimilarityPose:
    """``p_cam = R_cam_obj @ (scale_m * nocs) + t_cam_obj``. The scale is never folded into R.

    Attributes:
        R_cam_obj: (3, 3) float64 rotation.
        t_cam_obj: (3,) float64 metres.
        scale_m: metres per unit of NOCS.
    """

    R_cam_obj: Float64Array
    t_cam_obj: Float64Array
    scale_m: float

    @property
    def T_cam_obj(self) -> Float64Array:
        """(4, 4) rigid part: maps metric object points into the camera."""
        T_cam_obj = np.eye(4)
        T_cam_obj[:3, :3], T_cam_obj[:3, 3] = self.R_cam_obj, self.t_cam_obj
        return T_cam_obj


@dataclass(frozen=True)
class NocsMap:
    """What the flow predicts for a crop.

    Attributes:
        nocs: (S, S, 3) float32 normalised object coordinates, centred, [-0.5, 0.5].
        mask_prob: (S, S) float32 in [0, 1].
        sigma: (S, S) float32, the expected error of nocs, in its unit.
        matched: pose of the frame of these coordinates in the camera, by the network's own matches with the reference;
            None where too few agree, and where one of the two pictures has no depth.
    """

    nocs: Float32Array
    mask_prob: Float32Array
    sigma: Float32Array
    matched: SimilarityPose | None = None


@dataclass(frozen=True)
class PoseEstimate:
    """The answer for one object in one frame. `pose` is None when there is none; `reason` says why.

    Attributes:
        pose: object pose in the camera, or None.
        mask: (H, W) bool of the whole picture: the predicted foreground.
        nocs: (H, W, 3) float32 of the whole picture, 0 outside the mask.
        crop: the crop that was looked at, or None.
        nocs_map: the flow's raw answer in the crop, or None.
        confidence: [0, 1], the gates' combined score.
        inlier_ratio: share of the masked depth points that agree with the object memory, without those of new_share.
        new_share: share of the masked depth points on a side that no view of the memory has seen.
        similarity: cosine similarity of the picture inside the mask to the reference, [-1, 1].
        colour: median distance of its colours to the user's reference, CIELAB chroma; None where none can be compared.
        residual_m: RMS distance of the inliers to the object memory, metres.
        covariance: (6, 6) float64 of (x, y, z, rot_x, rot_y, rot_z) in the camera frame, m and rad, ROS order.
        reason: one short sentence for people.
    """

    pose: SimilarityPose | None
    mask: BoolArray
    nocs: Float32Array
    crop: ObjectCrop | None = None
    nocs_map: NocsMap | None = None
    confidence: float = 0.0
    inlier_ratio: float = 0.0
    new_share: float = 0.0
    similarity: float = 0.0
    colour: float | None = None
    residual_m: float = 0.0
    covariance: Float64Array = field(default_factory=lambda: np.zeros((6, 6)))
    reason: str = ""


class TrackState(enum.IntEnum):
    """Values as in nocsfm_msgs/msg/Track."""

    SEARCHING = 0
    TRACKING = 1
    LOST = 2


@dataclass(frozen=True)
class Track:
    """One object after one frame.

    Attributes:
        object_id: name of the object.
        state: see TrackState.
        stamp_ns: capture time of the frame.
        estimate: this frame's estimate; its pose is None unless the state is TRACKING.
        T_cam_user: (4, 4) pose of the user's object frame (the object frame itself if none was given), or None.
        size_m: (3,) metres, box of what has been seen of the object, along the axes of the user's frame.
        centre_m: (3,) metres, middle of that box in the user's frame.
        twist: (6,) velocity of that box: of its middle in m/s, then of its turn in rad/s, along the camera's axes; None
            until it has been followed for two frames in a row.
        box_xywh: box of the mask in pixels, or None.
        num_keyframes: views remembered beside the reference.
        axis_user: (3,) direction, in the user's frame, about which the object has looked the same all round so far: its
            turn about it is arbitrary (of a ball any direction). None for other objects.
    """

    object_id: str
    state: TrackState
    stamp_ns: int
    estimate: PoseEstimate
    T_cam_user: Float64Array | None
    size_m: Float64Array
    box_xywh: BoxXywh | None
    num_keyframes: int
    centre_m: Float64Array = field(default_factory=lambda: np.zeros(3))
    twist: Float64Array | None = None
    axis_user: Float64Array | None = None
