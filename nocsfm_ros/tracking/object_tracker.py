"""One object's state machine: SEARCHING -> TRACKING -> LOST -> SEARCHING, with the memory that feeds it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from nocsfm_ros.config import Config
from nocsfm_ros.estimator import Estimator
from nocsfm_ros.geometry.camera import project
from nocsfm_ros.geometry.crops import box_from_mask
from nocsfm_ros.geometry.transforms import motion_between, moved, rotation_angle_deg, transform
from nocsfm_ros.matching.localiser import find_candidates
from nocsfm_ros.object_model import ObjectModel
from nocsfm_ros.revolution import find_axis, nearest_turn
from nocsfm_ros.tracking.pose_filter import PoseFilter
from nocsfm_ros.tracking.pose_graph import PoseGraph
from nocsfm_ros.tracking.prediction import MAX_STEP_S, Velocity
from nocsfm_ros.types import (
    BoxXywh,
    Float32Array,
    PoseEstimate,
    RgbdFrame,
    SimilarityPose,
    Track,
    TrackState,
)

SAME_PLACE = 0.5  # share of a mask that lies in another object's mask, from which both cannot be right
NEW_SIDE_DEG, NEW_SIDE_SHARE = 5.0, 0.07  # a view that turned less has no other side
# a keyframe nearer to the reference than this keeps what the flow sees by that picture too, where that is most of it
CLEAN_DEG, MIN_CLEAN = 30.0, 0.5
LEAP_DEG = 6.0  # a pose further from the predicted one is rough, or the motion is: no keyframe
ALIKE = 0.05  # difference in confidence of two turns of a round object
SURER = 0.1  # confidence above the other's that takes its place from it
# CIELAB chroma that the confidence forgives for the lamp's sake, and what it is worth among look-alikes
FORGIVEN_COLOUR, COLOUR_WEIGHT = 12.0, 0.1


class ObjectTracker:
    """Tracks one object.

    Args:
        model: its memory, grown here through the gates.
        estimator: shared by all objects.
        config: all settings.
    """

    def __init__(self, model: ObjectModel, estimator: Estimator, config: Config) -> None:
        self.model, self.estimator, self.config = model, estimator, config
        self.filter, self.velocity, self.graph = PoseFilter(), Velocity(), PoseGraph(model)
        self.reset()

    def reset(self) -> None:
        """Forget where the object is and every view but the reference."""
        self.state = TrackState.SEARCHING
        self.failures = 0
        self.next_candidate = 0
        self.last: SimilarityPose | None = None
        self.before_last: SimilarityPose | None = None
        self.last_ns = self.before_last_ns = 0
        self.confidence = 0.0
        self.taken: Mapping[str, PoseEstimate] = {}
        self.filter.reset()
        self.velocity.reset()
        self._forget_keyframes()

    def _forget_keyframes(self) -> None:
        self.model.forget_keyframes()
        self.axis = find_axis(self.model)

    def update(self, frame: RgbdFrame, taken: Mapping[str, PoseEstimate] | None = None) -> Track:
        """Advance by one frame; `taken` has what other objects are already found in it."""
        self.taken = taken or {}
        following = self.state is TrackState.TRACKING
        estimate = self._follow(frame) if following else self._search(frame)
        if following and estimate.pose is None and self.failures > 0:  # it has jumped away: look everywhere
            estimate = self._search(frame)
        if estimate.pose is not None:
            self._accept(frame, estimate)
        elif self.state is not TrackState.SEARCHING:
            self._count_failure()
        return self._track(frame, estimate)

    def _follow(self, frame: RgbdFrame) -> PoseEstimate:
        """Look where the object should be; a pose that fails a gate is taken out of the estimate."""
        last = self.last
        if last is None or self.model.cloud is None:  # without a cloud nothing tells where it should be seen
            return self._search(frame)
        predicted = self._predicted(frame.stamp_ns)
        box_xywh = self._projected_box(predicted, frame)
        if box_xywh is None:
            return _nothing(frame, "the predicted pose is outside the picture")
        estimate = self.estimator.estimate(frame, box_xywh, self.model, [predicted, last], is_followed=True)
        return self._gated(estimate, self.config.tracking.min_confidence, last)

    def _search(self, frame: RgbdFrame) -> PoseEstimate:
        """Look at some candidates of the whole frame, best first, and keep the one most like the object.

        Candidates look like any remembered view, or like the reference any way round; a lost object is also looked for
        where it was last. A video has another frame soon: what this one leaves unseen, the next one looks at. A
        believable candidate does not end the search: it may be the double of the object, which comes next.
        """
        encoded = self.estimator.encode_frame(frame)
        sought = [view.search() for view in self.model.sights]
        candidates = find_candidates(encoded, sought, self.config.matching)
        share = self.config.matching.candidates_per_frame
        first = self.next_candidate if self.next_candidate < len(candidates) else 0
        candidates, self.next_candidate = candidates[first : first + share], first + share
        looks = [self.estimator.estimate(frame, candidate.box_xywh, self.model) for candidate in candidates]
        if self.state is TrackState.LOST and self.last is not None:
            box_xywh = self._projected_box(self.last, frame)
            if box_xywh is not None:
                looks.append(self.estimator.estimate(frame, box_xywh, self.model, [self.last]))
        nothing = _nothing(frame, "nothing in the picture looks like the reference")
        best = max(looks, key=self._preference, default=nothing)
        best = self._unspun(frame, self.estimator.second_look(frame, best, self.model))
        return self._gated(best, self._needed_confidence(best), None)

    def _unspun(self, frame: RgbdFrame, estimate: PoseEstimate) -> PoseEstimate:
        """A round object looks the same in many poses: the one nearest to its last, where it is as believable."""
        box_xywh = box_from_mask(estimate.mask)
        if self.axis is None or self.last is None or estimate.pose is None or box_xywh is None:
            return estimate
        nearest = nearest_turn(estimate.pose, self.last, self.axis)
        again = self.estimator.estimate(frame, box_xywh, self.model, [nearest])
        return again if again.confidence > estimate.confidence - ALIKE else estimate

    def _preference(self, estimate: PoseEstimate) -> tuple[bool, float]:
        """What can be accepted comes first: the place of a look-alike may be the most like the object."""
        sure = estimate.confidence >= self._needed_confidence(estimate)
        return sure and not self._owner(estimate), likeness(estimate)

    def _needed_confidence(self, estimate: PoseEstimate) -> float:
        """To take up tracking: less by the reference alone, whose depth has been checked, and where it was lost.

        As long as it is LOST, what would have been enough to stay is enough to go on in the same place.
        """
        gates, pose, last = self.config.tracking, estimate.pose, self.last
        is_where_lost = pose is not None and last is not None and not self._jump(pose, last, allowed=1)
        if is_where_lost and self.state is TrackState.LOST:
            return gates.min_confidence
        by_reference_alone = len(self.model.views) == 1 and self.model.scale_m is not None
        return gates.acquire_confidence if by_reference_alone or is_where_lost else gates.reacquire_confidence

    def _gated(self, estimate: PoseEstimate, threshold: float, last: SimilarityPose | None) -> PoseEstimate:
        if estimate.pose is None:
            return estimate
        problem = ""
        if estimate.confidence < threshold:
            problem = f"confidence {estimate.confidence:.2f} under {threshold:.2f}: {estimate.reason}"
        elif last is not None:
            problem = self._jump(estimate.pose, last, allowed=1 + self.failures)
        problem = problem or self._owner(estimate)
        return replace(estimate, pose=None, reason=problem) if problem else estimate

    def _jump(self, pose: SimilarityPose, last: SimilarityPose, allowed: int) -> str:
        """Why so many steps cannot lead from the last pose to this one, or nothing."""
        gates = self.config.tracking
        turn_deg = rotation_angle_deg(last.R_cam_obj, pose.R_cam_obj)
        if turn_deg > gates.max_rotation_deg * allowed:
            return f"turned {turn_deg:.0f} deg since the last frame"
        shift_m = float(np.linalg.norm(pose.t_cam_obj - last.t_cam_obj))
        if shift_m > gates.max_translation * pose.scale_m * allowed:
            return f"moved {shift_m:.2f} m since the last frame"
        return ""

    def _owner(self, estimate: PoseEstimate) -> str:
        """Which other object is as surely seen where this one is, or nothing: look-alikes must not swap."""
        for name, other in self.taken.items():
            if estimate.confidence < other.confidence + SURER and is_same_place(estimate, other):
                return f"{name!r} is seen there"
        return ""

    def give_way(self, frame: RgbdFrame, name: str) -> Track:
        """Another object is much more surely seen where this one was: lost, and what was learned there forgotten."""
        self.state, self.failures, self.last, self.before_last = TrackState.LOST, 0, None, None
        self.filter.reset()
        self._forget_keyframes()
        return self._track(frame, _nothing(frame, f"{name!r} is seen there, and more surely"))

    def seen_at(self, frame: RgbdFrame, other: PoseEstimate) -> PoseEstimate | None:
        """How this object is seen in another one's place, or None if nothing there would be taken for it."""
        box_xywh = box_from_mask(other.mask)
        if box_xywh is None:
            return None
        estimate = self.estimator.estimate(frame, box_xywh, self.model)
        believable = estimate.pose is not None and estimate.confidence >= self._needed_confidence(estimate)
        return estimate if believable and is_same_place(estimate, other) else None

    def move(self, frame: RgbdFrame, estimate: PoseEstimate) -> Track:
        """The object is here, and was not where it was followed: what was learned there is forgotten."""
        self.reset()
        self._accept(frame, estimate)
        return self._track(frame, estimate)

    def fail(self, frame: RgbdFrame, reason: str) -> Track:
        """The frame brought an error instead of an answer: not found."""
        if self.state is not TrackState.SEARCHING:
            self._count_failure()
        return self._track(frame, _nothing(frame, reason))

    def _accept(self, frame: RgbdFrame, estimate: PoseEstimate) -> None:
        pose = estimate.pose
        if pose is None:
            return
        is_steady = self.last is not None and (
            rotation_angle_deg(self._predicted(frame.stamp_ns).R_cam_obj, pose.R_cam_obj) < LEAP_DEG
        )
        if self.state is TrackState.TRACKING and self.failures == 0:
            self.before_last, self.before_last_ns = self.last, self.last_ns
        else:
            self.before_last = None
            self.velocity.reset()
            if self.last is None or self._jump(pose, self.last, allowed=1 + self.failures):
                self.filter.reset()  # it was carried away: nothing was in between
        self.last, self.last_ns, self.confidence = pose, frame.stamp_ns, estimate.confidence
        self.state, self.failures, self.next_candidate = TrackState.TRACKING, 0, 0
        self._remember(frame, estimate, pose, is_steady)

    def _remember(self, frame: RgbdFrame, estimate: PoseEstimate, pose: SimilarityPose, is_steady: bool) -> None:
        """The mask feedback, gated: a sure view from a new side becomes a keyframe.

        What moves with the object, such as a hand, joins its mask after a while; the user's own picture has none of it.
        As long as that still shows the same side, a keyframe keeps only what the flow sees by it too.
        """
        gates, box_xywh = self.config.tracking, box_from_mask(estimate.mask)
        first = self.model.scale_m is None
        if box_xywh is None or (gates.max_keyframes == 0 and not first):
            return
        nearest_deg = rotation_angle_deg(self.model.nearest_view(pose.R_cam_obj).R_cam_obj, pose.R_cam_obj)
        # past an edge a side comes into view at once: it is as new as another viewpoint
        new_side = nearest_deg >= NEW_SIDE_DEG and estimate.new_share > NEW_SIDE_SHARE
        new = nearest_deg >= gates.keyframe_min_deg or new_side
        # where it was just found or leapt, the pose is rougher; but a lone reference steadies nothing
        is_followed = self.before_last is not None and (is_steady or len(self.model.views) == 1)
        is_due = first or (new and is_followed and estimate.confidence >= gates.keyframe_confidence)
        if not is_due or _touches_border(box_xywh, frame):
            return
        mask, reference = estimate.mask, self.model.nearest_reference(pose.R_cam_obj)
        if rotation_angle_deg(reference.R_cam_obj, pose.R_cam_obj) < CLEAN_DEG:
            mask = mask & self.estimator.mask_as_in(frame, box_xywh, reference)
        box_xywh = box_from_mask(mask)
        if box_xywh is None or mask.sum() < MIN_CLEAN * estimate.mask.sum():
            return
        view = self.estimator.make_view(frame, mask, box_xywh, pose.T_cam_obj)
        if not len(view.points_obj):  # without depth it can be compared with no other view
            return
        self.model.scale_m = self.model.scale_m or pose.scale_m
        while len(self.model.views) > gates.max_keyframes > 0:
            self.model.drop_most_redundant()
        self.model.add_view(view)
        self.graph.add(view, self.config.registration)
        self.axis = find_axis(self.model)

    def _count_failure(self) -> None:
        self.failures += 1
        if self.state is TrackState.TRACKING and self.failures >= self.config.tracking.lost_after:
            self.state = TrackState.LOST
        elif self.state is TrackState.LOST and self.failures >= self.config.tracking.search_after:
            self.state = TrackState.SEARCHING

    def _predicted(self, stamp_ns: int) -> SimilarityPose:
        """The last pose moved on at constant velocity, where there are two recent poses to tell it."""
        last, before = self.last, self.before_last
        if last is None or before is None:
            if last is None:
                raise RuntimeError("predicted before anything was tracked")
            return last
        step_s, ahead_s = (self.last_ns - self.before_last_ns) * 1e-9, (stamp_ns - self.last_ns) * 1e-9
        if not (0 < step_s < MAX_STEP_S and 0 < ahead_s < MAX_STEP_S):
            return last
        share = min(ahead_s / step_s, 2.0)
        T_cam_obj = moved(last.T_cam_obj, share * motion_between(before.T_cam_obj, last.T_cam_obj))
        return SimilarityPose(T_cam_obj[:3, :3], T_cam_obj[:3, 3], last.scale_m)

    def _projected_box(self, pose: SimilarityPose, frame: RgbdFrame) -> BoxXywh | None:
        """Box of the object memory at a pose, or None outside the picture."""
        if self.model.cloud is None:
            return None
        points_cam = transform(pose.T_cam_obj, self.model.cloud.points_obj)
        points_cam = points_cam[points_cam[:, 2] > 0.05]
        if not len(points_cam):
            return None
        pixels_uv = project(points_cam, frame.K)
        (left, top), (right, bottom) = np.percentile(pixels_uv, [1, 99], axis=0)
        width, height = frame.size_wh
        if right < 0 or bottom < 0 or left >= width or top >= height:
            return None
        return float(left), float(top), float(max(right - left, 4)), float(max(bottom - top, 4))

    def _track(self, frame: RgbdFrame, estimate: PoseEstimate) -> Track:
        pose, T_obj_user = estimate.pose, self.model.T_obj_user
        T_cam_user = twist = axis_user = None
        if self.axis is not None:
            axis_user = self.axis.direction if T_obj_user is None else T_obj_user[:3, :3].T @ self.axis.direction
        if pose is not None:
            T_cam_obj = self.filter.smooth(pose.T_cam_obj, frame.stamp_ns, pose.scale_m, self.config.filter)
            T_cam_user = T_cam_obj if T_obj_user is None else T_cam_obj @ T_obj_user
            twist = self.velocity.update(T_cam_user, self.model.centre_m, frame.stamp_ns)
        return Track(
            object_id=self.model.object_id, state=self.state, stamp_ns=frame.stamp_ns, estimate=estimate,
            T_cam_user=T_cam_user, size_m=self.model.size_m,
            box_xywh=None if pose is None else box_from_mask(estimate.mask), num_keyframes=len(self.model.views) - 1,
            centre_m=self.model.centre_m, twist=twist, axis_user=axis_user,
        )


def likeness(estimate: PoseEstimate) -> float:
    """The confidence, and among the equally sure the nearer colours: of look-alikes nothing else tells."""
    colour = FORGIVEN_COLOUR if estimate.colour is None else estimate.colour
    return estimate.confidence - COLOUR_WEIGHT * (colour / FORGIVEN_COLOUR) ** 2


def is_same_place(estimate: PoseEstimate, other: PoseEstimate) -> bool:
    """Whether most of the estimate's mask lies in the other's."""
    return int((estimate.mask & other.mask).sum()) > SAME_PLACE * int(estimate.mask.sum())


def _nothing(frame: RgbdFrame, reason: str) -> PoseEstimate:
    width, height = frame.size_wh
    nocs: Float32Array = np.zeros((height, width, 3), np.float32)
    return PoseEstimate(pose=None, mask=np.zeros((height, width), bool), nocs=nocs, reason=reason)


def _touches_border(box_xywh: BoxXywh, frame: RgbdFrame) -> bool:
    x, y, w, h = box_xywh
    width, height = frame.size_wh
    return x <= 1 or y <= 1 or x + w >= width - 1 or y + h >= height - 1
