"""A scripted estimator walks the tracker through every state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from nocsfm_ros.config import Config, FilterConfig
from nocsfm_ros.object_model import ObjectModel, View
from nocsfm_ros.revolution import Axis
from nocsfm_ros.tracking import object_tracker
from nocsfm_ros.tracking.object_tracker import ObjectTracker
from nocsfm_ros.tracking.tracker import Tracker
from nocsfm_ros.types import BoxXywh, ObjectCrop, PoseEstimate, RgbdFrame, SimilarityPose, TrackState

WIDTH, HEIGHT = 64, 48
K = np.array([[60.0, 0, 31.5], [0, 60.0, 23.5], [0, 0, 1.0]])
MASK = np.zeros((HEIGHT, WIDTH), bool)
MASK[18:30, 26:38] = True


def pose_at(x_m: float = 0.0, turn_deg: float = 0.0) -> SimilarityPose:
    R = Rotation.from_euler("y", turn_deg, degrees=True).as_matrix()
    return SimilarityPose(R, np.array([x_m, 0.0, 0.5]), 0.2)


class ScriptedEstimator:
    """Answers with the next (pose, confidence) of its script and notes what it was asked."""

    def __init__(self) -> None:
        self.script: list[tuple[SimilarityPose | None, float]] = []
        self.asked: list[Sequence[SimilarityPose]] = []
        self.new_share = 0.0
        self.reference_mask = MASK
        self.kept: list[Any] = []

    def encode_frame(self, frame: RgbdFrame) -> None:
        return None

    def estimate(
        self, frame: RgbdFrame, box_xywh: BoxXywh, model: ObjectModel, priors: Sequence[SimilarityPose] = (),
        is_followed: bool = False,
    ) -> PoseEstimate:
        self.asked.append(priors)
        pose, confidence = self.script.pop(0)
        crop: Any = SimpleNamespace()
        return PoseEstimate(pose, MASK, np.zeros((HEIGHT, WIDTH, 3), np.float32), crop, confidence=confidence,
                            new_share=self.new_share)

    def second_look(self, frame: RgbdFrame, estimate: PoseEstimate, model: ObjectModel) -> PoseEstimate:
        return estimate

    def mask_as_in(self, frame: RgbdFrame, box_xywh: BoxXywh, view: View) -> Any:
        return self.reference_mask

    def make_view(self, frame: RgbdFrame, mask: Any, box_xywh: BoxXywh, T_cam_obj: Any) -> View:
        self.kept.append(mask)
        return _view(T_cam_obj)


def _view(T_cam_obj: Any, scale_m: float | None = 0.2) -> View:
    points = np.random.default_rng(0).uniform(-0.04, 0.04, (200, 3))
    nothing: Any = None
    cells = np.zeros((2, 2, 3), np.float32)
    crop = ObjectCrop(np.zeros((16, 16, 3), np.uint8), np.zeros((16, 16), np.float32), np.eye(3), K)
    return View(
        T_cam_obj, np.eye(4), scale_m, nothing, lambda: nothing, crop, nothing, np.zeros((8, 8), bool), cells, points,
        points[:0], nothing, np.zeros((0, 3), np.float32),
    )


def frame_at(number: int) -> RgbdFrame:
    return RgbdFrame(np.zeros((HEIGHT, WIDTH, 3), np.uint8), np.full((HEIGHT, WIDTH), 0.5, np.float32), K,
                     stamp_ns=number * 50_000_000)


@pytest.fixture
def estimator() -> ScriptedEstimator:
    return ScriptedEstimator()


@pytest.fixture
def tracker(estimator: ScriptedEstimator, monkeypatch: pytest.MonkeyPatch) -> ObjectTracker:
    candidate = SimpleNamespace(box_xywh=(20.0, 15.0, 20.0, 20.0))
    monkeypatch.setattr(object_tracker, "find_candidates", lambda *_: [candidate])
    model = ObjectModel("mug", [_view(pose_at().T_cam_obj)], 0.2, None)
    model.rebuild_cloud()
    gates = replace(Config().tracking, lost_after=2, search_after=4)
    scripted: Any = estimator
    return ObjectTracker(model, scripted, replace(Config(), tracking=gates))


def acquire(tracker: ObjectTracker, estimator: ScriptedEstimator) -> None:
    estimator.script += [(pose_at(), 0.9)]
    assert tracker.update(frame_at(0)).state is TrackState.TRACKING
    assert not estimator.script


def test_search_with_low_confidence_stays_searching_and_says_why(
    tracker: ObjectTracker, estimator: ScriptedEstimator
) -> None:
    estimator.script += [(pose_at(), 0.3)]
    track = tracker.update(frame_at(0))
    assert track.state is TrackState.SEARCHING and track.T_cam_user is None
    assert "confidence 0.30 under" in track.estimate.reason


def test_search_with_high_confidence_starts_tracking(tracker: ObjectTracker, estimator: ScriptedEstimator) -> None:
    acquire(tracker, estimator)


def test_object_with_keyframes_must_be_surer_elsewhere_than_where_it_was_lost(
    tracker: ObjectTracker, estimator: ScriptedEstimator
) -> None:
    unsure = 0.7  # between acquire_confidence and reacquire_confidence
    estimator.script += [(pose_at(), unsure)]
    assert tracker.update(frame_at(0)).state is TrackState.TRACKING
    estimator.script += [(pose_at(0, 20), 0.9)]
    tracker.update(frame_at(1))
    assert len(tracker.model.views) == 2
    tracker.state = TrackState.SEARCHING
    estimator.script += [(pose_at(0.3), unsure)]
    track = tracker.update(frame_at(2))
    assert track.state is TrackState.SEARCHING and "confidence 0.70 under 0.80" in track.estimate.reason
    estimator.script += [(pose_at(0.01, 20), unsure)]
    assert tracker.update(frame_at(3)).state is TrackState.TRACKING


@pytest.mark.parametrize(
    ("state", "shift_m", "is_taken"),
    [(TrackState.LOST, 0.01, True), (TrackState.LOST, 0.3, False), (TrackState.SEARCHING, 0.01, False)],
)
def test_what_is_enough_to_stay_is_enough_to_go_on_where_it_was_just_lost(
    tracker: ObjectTracker, estimator: ScriptedEstimator, state: TrackState, shift_m: float, is_taken: bool
) -> None:
    acquire(tracker, estimator)
    tracker.state = state
    estimator.script += [(pose_at(shift_m), 0.45)] * (2 if state is TrackState.LOST else 1)  # the place it had, too
    assert (tracker.update(frame_at(1)).state is TrackState.TRACKING) == is_taken


def test_reference_without_depth_must_be_surer(tracker: ObjectTracker, estimator: ScriptedEstimator) -> None:
    tracker.model.scale_m = None
    estimator.script += [(pose_at(), 0.6)]
    assert tracker.update(frame_at(0)).state is TrackState.SEARCHING


def test_search_looks_at_the_next_candidates_in_the_next_frame(
    tracker: ObjectTracker, estimator: ScriptedEstimator, monkeypatch: pytest.MonkeyPatch
) -> None:
    candidates = [SimpleNamespace(box_xywh=(float(n), 15.0, 20.0, 20.0)) for n in range(5)]
    counts = iter([5, 4, 5, 2, 3])
    monkeypatch.setattr(object_tracker, "find_candidates", lambda *_: candidates[: next(counts)])
    seen: list[float] = []
    estimate = estimator.estimate

    def noting(frame: RgbdFrame, box_xywh: BoxXywh, *rest: Any, **more: Any) -> PoseEstimate:
        seen.append(box_xywh[0])
        return estimate(frame, box_xywh, *rest, **more)

    monkeypatch.setattr(estimator, "estimate", noting)
    for n, count in enumerate((2, 2, 1, 2, 1)):
        estimator.script += [(None, 0.0)] * count
        tracker.update(frame_at(n))
    assert seen == [0, 1, 2, 3, 4, 0, 1, 2]


def test_follow_gives_the_predicted_pose_as_first_prior(tracker: ObjectTracker, estimator: ScriptedEstimator) -> None:
    acquire(tracker, estimator)
    estimator.script += [(pose_at(0.01), 0.9), (pose_at(0.02), 0.9)]
    tracker.update(frame_at(1))
    tracker.update(frame_at(2))
    predicted = estimator.asked[-1][0]
    np.testing.assert_allclose(predicted.t_cam_obj, [0.02, 0, 0.5], atol=1e-9)


def test_failures_lead_to_lost_then_searching_then_tracking_again(
    tracker: ObjectTracker, estimator: ScriptedEstimator
) -> None:
    acquire(tracker, estimator)
    estimator.script += [(None, 0.0)] * 7  # the second failure looks everywhere as well; LOST also at the last place
    states = [tracker.update(frame_at(n)).state for n in range(1, 5)]
    assert states == [TrackState.TRACKING, TrackState.LOST, TrackState.LOST, TrackState.SEARCHING]
    estimator.script += [(pose_at(0.3, 90), 0.9)]
    assert tracker.update(frame_at(5)).state is TrackState.TRACKING


def test_lost_object_is_looked_for_as_any_remembered_view_and_where_it_was_last(
    tracker: ObjectTracker, estimator: ScriptedEstimator, monkeypatch: pytest.MonkeyPatch
) -> None:
    acquire(tracker, estimator)
    estimator.script += [(pose_at(0.0, 20), 0.95)] + [(None, 0.0)] * 3
    for number in range(1, 4):  # a keyframe, then lost
        tracker.update(frame_at(number))
    assert tracker.state is TrackState.LOST and len(tracker.model.views) == 2
    candidate = SimpleNamespace(box_xywh=(20.0, 15.0, 20.0, 20.0))
    searched: list[int] = []
    tracker.model.rolled = [_view(np.eye(4))] * 3

    def found(_: Any, references: Any, __: Any) -> list[Any]:
        searched.append(len(references))
        return [candidate]

    monkeypatch.setattr(object_tracker, "find_candidates", found)
    estimator.script += [(None, 0.0), (pose_at(0.0, 25), 0.9)]
    assert tracker.update(frame_at(4)).state is TrackState.TRACKING
    assert searched == [5] and estimator.asked[-2] == ()
    (last,) = estimator.asked[-1]
    np.testing.assert_allclose(last.R_cam_obj, pose_at(0.0, 20).R_cam_obj)


@pytest.mark.parametrize(("confidence", "turn_deg"), [(0.88, 0), (0.7, 50)])
def test_round_object_found_again_has_not_spun_where_that_is_as_believable(
    tracker: ObjectTracker, estimator: ScriptedEstimator, confidence: float, turn_deg: float
) -> None:
    acquire(tracker, estimator)
    tracker.axis = Axis(np.array([0.0, 1.0, 0.0]), np.zeros(3))
    estimator.script += [(None, 0.0)] * 3 + [(None, 0.0), (pose_at(0.05, 50), 0.9), (pose_at(0.05), confidence)]
    for number in range(1, 4):
        track = tracker.update(frame_at(number))
    (asked,) = estimator.asked[-1]
    np.testing.assert_allclose(asked.T_cam_obj, pose_at(0.05).T_cam_obj, atol=1e-12)
    assert track.state is TrackState.TRACKING and track.T_cam_user is not None and track.axis_user is not None
    np.testing.assert_allclose(track.T_cam_user, pose_at(0.05, turn_deg).T_cam_obj, atol=1e-12)


def test_one_failed_frame_publishes_no_pose_but_keeps_tracking(
    tracker: ObjectTracker, estimator: ScriptedEstimator
) -> None:
    acquire(tracker, estimator)
    estimator.script += [(pose_at(), 0.1), (pose_at(), 0.9)]
    assert tracker.update(frame_at(1)).T_cam_user is None
    track = tracker.update(frame_at(2))
    assert track.T_cam_user is not None and track.state is TrackState.TRACKING


@pytest.mark.parametrize(("jump", "word"), [(pose_at(0.0, 80), "turned 80 deg"), (pose_at(0.2), "moved 0.20 m")])
def test_unbelievable_step_is_refused(
    tracker: ObjectTracker, estimator: ScriptedEstimator, jump: SimilarityPose, word: str
) -> None:
    acquire(tracker, estimator)
    estimator.script += [(jump, 0.95)]
    track = tracker.update(frame_at(1))
    assert track.T_cam_user is None and word in track.estimate.reason


def test_sure_new_view_becomes_a_keyframe_and_the_reference_stays(
    tracker: ObjectTracker, estimator: ScriptedEstimator
) -> None:
    acquire(tracker, estimator)
    reference = tracker.model.views[0]
    for n, turn_deg in enumerate((10, 20, 30, 40), start=1):
        estimator.script += [(pose_at(0, turn_deg), 0.9)]
        tracker.update(frame_at(n))
    assert tracker.model.views[0] is reference
    assert len(tracker.model.views) == 3  # 20 and 40 deg: 10 and 30 lie within 15 deg of another
    tracker.reset()
    assert tracker.model.views == [reference] and tracker.state is TrackState.SEARCHING


def test_new_view_becomes_a_keyframe_only_where_the_object_was_followed_to(
    tracker: ObjectTracker, estimator: ScriptedEstimator
) -> None:
    estimator.script += [(pose_at(0, 40), 0.9)] * 2
    tracker.update(frame_at(0))
    assert len(tracker.model.views) == 1
    tracker.update(frame_at(1))
    assert len(tracker.model.views) == 2


def test_view_that_leaps_from_the_predicted_one_is_no_keyframe(
    tracker: ObjectTracker, estimator: ScriptedEstimator
) -> None:
    acquire(tracker, estimator)
    steady = [20, 24, 28, 32]  # the first becomes a keyframe, as the reference is alone
    estimator.script += [(pose_at(0, turn_deg), 0.9) for turn_deg in (*steady, 50)]
    for number in range(1, 6):
        tracker.update(frame_at(number))
    assert tracker.state is TrackState.TRACKING and len(tracker.model.views) == 2
    estimator.script += [(pose_at(0, 68), 0.9)]  # goes on as fast: the motion it was
    tracker.update(frame_at(6))
    assert len(tracker.model.views) == 3


@pytest.mark.parametrize(("turn_deg", "new_share", "is_kept"), [(6, 0.2, True), (3, 0.2, False), (6, 0.02, False)])
def test_side_that_comes_into_view_becomes_a_keyframe_before_the_viewpoint_is_new(
    tracker: ObjectTracker, estimator: ScriptedEstimator, turn_deg: float, new_share: float, is_kept: bool
) -> None:
    acquire(tracker, estimator)
    estimator.new_share = new_share
    estimator.script += [(pose_at(0, turn_deg), 0.9)]
    tracker.update(frame_at(1))
    assert len(tracker.model.views) == 1 + is_kept


@pytest.mark.parametrize(("turn_deg", "is_cut"), [(20, True), (40, False)])
def test_a_keyframe_near_the_reference_keeps_only_what_the_reference_shows_too(
    tracker: ObjectTracker, estimator: ScriptedEstimator, turn_deg: float, is_cut: bool
) -> None:
    acquire(tracker, estimator)
    estimator.reference_mask = MASK & (np.arange(WIDTH) < 32)  # without the hand on the right
    estimator.script += [(pose_at(0, turn_deg), 0.9)]
    tracker.update(frame_at(1))
    np.testing.assert_array_equal(estimator.kept[-1], estimator.reference_mask if is_cut else MASK)


def test_where_the_reference_shows_nothing_of_a_view_it_is_not_kept(
    tracker: ObjectTracker, estimator: ScriptedEstimator
) -> None:
    acquire(tracker, estimator)
    estimator.reference_mask = np.zeros_like(MASK)
    estimator.script += [(pose_at(0, 20), 0.9)]
    assert tracker.update(frame_at(1)).state is TrackState.TRACKING
    assert len(tracker.model.views) == 1


def test_unsure_view_is_no_keyframe(tracker: ObjectTracker, estimator: ScriptedEstimator) -> None:
    acquire(tracker, estimator)
    estimator.script += [(pose_at(0, 20), Config().tracking.keyframe_confidence - 0.05)]
    tracker.update(frame_at(1))
    assert len(tracker.model.views) == 1


def test_view_without_depth_is_no_keyframe(
    tracker: ObjectTracker, estimator: ScriptedEstimator, monkeypatch: pytest.MonkeyPatch
) -> None:
    acquire(tracker, estimator)
    blind = _view(pose_at(0.0, 20).T_cam_obj)
    monkeypatch.setattr(estimator, "make_view", lambda *_: replace(blind, points_obj=blind.points_obj[:0]))
    estimator.script += [(pose_at(0.0, 20), 0.95)]
    assert tracker.update(frame_at(1)).num_keyframes == 0


def test_memory_never_exceeds_its_bound(tracker: ObjectTracker, estimator: ScriptedEstimator) -> None:
    tracker.config = replace(tracker.config, tracking=replace(tracker.config.tracking, max_keyframes=3))
    acquire(tracker, estimator)
    for n in range(1, 12):
        estimator.script += [(pose_at(0, 20 * n), 0.9)]
        tracker.update(frame_at(n))
    assert len(tracker.model.views) == 4


def test_user_frame_is_applied_to_the_published_pose(tracker: ObjectTracker, estimator: ScriptedEstimator) -> None:
    T_obj_user = np.eye(4)
    T_obj_user[:3, 3] = (0.0, 0.1, 0.0)
    tracker.model.T_obj_user = T_obj_user
    estimator.script += [(pose_at(), 0.9)]
    T_cam_user = tracker.update(frame_at(0)).T_cam_user
    assert T_cam_user is not None
    np.testing.assert_allclose(T_cam_user[:3, 3], [0, 0.1, 0.5])


def test_filter_smooths_what_is_published_and_not_what_is_tracked(
    tracker: ObjectTracker, estimator: ScriptedEstimator
) -> None:
    tracker.config = replace(tracker.config, filter=FilterConfig(cutoff_hz=1.0, speed_gain=0.0))
    acquire(tracker, estimator)
    estimator.script += [(pose_at(0.02), 0.9)]
    track = tracker.update(frame_at(1))
    assert track.T_cam_user is not None and track.estimate.pose is not None and tracker.last is not None
    assert 0 < track.T_cam_user[0, 3] < 0.01 and track.estimate.pose.t_cam_obj[0] == tracker.last.t_cam_obj[0] == 0.02


class Scene:
    """An estimator that knows how surely each object is seen where: object_id -> (column of the mask, confidence)."""

    def __init__(self) -> None:
        self.seen: dict[str, tuple[int, float]] = {}
        self.config, self.stage_ms = Config(), dict[str, float]()

    def encode_frame(self, frame: RgbdFrame) -> None:
        return None

    def estimate(
        self, frame: RgbdFrame, box_xywh: BoxXywh, model: ObjectModel, priors: Any = (), view: View | None = None,
        is_followed: bool = False,
    ) -> PoseEstimate:
        column, confidence = self.seen[model.object_id]
        mask = np.zeros((HEIGHT, WIDTH), bool)
        mask[20:26, column : column + 6] = True
        crop: Any = SimpleNamespace()
        nocs = np.zeros((HEIGHT, WIDTH, 3), np.float32)
        return PoseEstimate(pose_at((column - 29) / 120), mask, nocs, crop, confidence=confidence)

    def second_look(self, frame: RgbdFrame, estimate: PoseEstimate, model: ObjectModel) -> PoseEstimate:
        return estimate


@pytest.fixture
def four(monkeypatch: pytest.MonkeyPatch) -> tuple[Tracker, Scene]:
    candidate = SimpleNamespace(box_xywh=(20.0, 15.0, 20.0, 20.0))
    monkeypatch.setattr(object_tracker, "find_candidates", lambda *_: [candidate])
    scene: Any = Scene()
    followed = Tracker(scene, Config())
    for object_id in ("red", "green", "blue", "white"):
        model = ObjectModel(object_id, [_view(pose_at().T_cam_obj)], 0.2, None)
        model.rebuild_cloud()
        followed.objects[object_id] = ObjectTracker(model, scene, Config())
    return followed, scene


def states_of(tracker: Tracker, number: int) -> dict[str, bool]:
    tracks = tracker.update(frame_at(number))
    assert [track.object_id for track in tracks] == tracker.object_ids
    return {track.object_id: track.T_cam_user is not None for track in tracks}


def test_four_objects_in_four_places_are_all_tracked(four: tuple[Tracker, Scene]) -> None:
    tracker, scene = four
    scene.seen = {"red": (5, 0.8), "green": (20, 0.8), "blue": (35, 0.8), "white": (50, 0.8)}
    for number in range(3):
        assert all(states_of(tracker, number).values())


def test_followed_object_keeps_its_place_from_a_look_alike_that_searches(four: tuple[Tracker, Scene]) -> None:
    tracker, scene = four
    scene.seen = {"red": (5, 0.1), "green": (20, 0.7), "blue": (35, 0.8), "white": (50, 0.8)}
    assert states_of(tracker, 0) == {"red": False, "green": True, "blue": True, "white": True}
    scene.seen["red"] = (20, 0.75)
    for number in range(1, 4):
        assert states_of(tracker, number) == {"red": False, "green": True, "blue": True, "white": True}
    assert "'green' is seen there" in tracker.update(frame_at(4))[0].estimate.reason


def test_of_two_followed_objects_that_meet_the_surer_one_stays(four: tuple[Tracker, Scene]) -> None:
    tracker, scene = four
    scene.seen = {"red": (14, 0.75), "green": (20, 0.9), "blue": (35, 0.8), "white": (50, 0.8)}
    assert all(states_of(tracker, 0).values())
    scene.seen["red"] = (21, 0.95)
    assert states_of(tracker, 1) == {"red": False, "green": True, "blue": True, "white": True}


def test_of_two_that_search_the_surer_one_gets_the_place(four: tuple[Tracker, Scene]) -> None:
    tracker, scene = four
    scene.seen = {"red": (20, 0.7), "green": (20, 0.9), "blue": (35, 0.8), "white": (50, 0.8)}
    for number in range(3):
        assert states_of(tracker, number) == {"red": False, "green": True, "blue": True, "white": True}
    assert tracker.objects["red"].state is not TrackState.TRACKING


def test_object_that_gave_way_forgets_what_it_learned_there(four: tuple[Tracker, Scene]) -> None:
    tracker, scene = four
    scene.seen = {"red": (20, 0.7), "green": (50, 0.1), "blue": (35, 0.8), "white": (5, 0.8)}
    assert states_of(tracker, 0)["red"]
    red = tracker.objects["red"]
    red.model.add_view(_view(pose_at(turn_deg=40).T_cam_obj))
    scene.seen["green"] = (20, 0.95)
    assert states_of(tracker, 1) == {"red": False, "green": True, "blue": True, "white": True}
    assert red.state is TrackState.LOST and len(red.model.views) == 1
    scene.seen["red"] = (50, 0.8)
    assert all(states_of(tracker, 2).values())


def test_object_that_raises_costs_the_others_nothing_and_is_logged_once(
    four: tuple[Tracker, Scene], caplog: pytest.LogCaptureFixture
) -> None:
    tracker, scene = four
    scene.seen = {"red": (5, 0.8), "green": (20, 0.8), "blue": (35, 0.8), "white": (50, 0.8)}
    assert all(states_of(tracker, 0).values())
    del scene.seen["green"]
    for number in (1, 2):
        assert states_of(tracker, number) == {"red": True, "green": False, "blue": True, "white": True}
    assert tracker.update(frame_at(3))[1].estimate.reason == "KeyError: 'green'"
    assert tracker.objects["green"].state is TrackState.LOST
    assert [record.args for record in caplog.records] == [("green",)]
    scene.seen["green"] = (20, 0.8)
    assert all(states_of(tracker, 4).values())


def test_error_after_one_took_anothers_place_leaves_both_as_they_are_known_to_be(
    four: tuple[Tracker, Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker, scene = four
    scene.seen = {"red": (5, 0.8)}
    assert states_of(tracker, 0)["red"]
    scene.seen["green"] = (5, 0.95)
    monkeypatch.setattr(Tracker, "_exchange", lambda *_: 1 / 0)
    red, green, *_ = tracker.update(frame_at(1))
    assert (red.state, red.T_cam_user) == (TrackState.LOST, None)
    assert green.state is TrackState.TRACKING and green.T_cam_user is not None
    assert tracker.objects["green"].failures == 0


@pytest.mark.parametrize("hole", [np.nan, np.inf, -1.0])
def test_depth_that_is_no_distance_counts_as_not_measured(four: tuple[Tracker, Scene], hole: float) -> None:
    tracker, scene = four
    seen = []
    scene.encode_frame = lambda frame: seen.append(frame.depth_m)  # type: ignore[method-assign, assignment, return-value]
    scene.seen = {"red": (5, 0.8)}
    frame = frame_at(0)
    frame.depth_m[3, 4] = hole
    tracker.update(frame)
    assert seen[0][3, 4] == 0 and seen[0][0, 0] == frame.depth_m[0, 0] and not frame.depth_m[3, 4] == 0


def test_frame_in_which_every_object_raises_is_an_error(four: tuple[Tracker, Scene]) -> None:
    tracker, _ = four
    with pytest.raises(KeyError):
        tracker.update(frame_at(0))


class Doubles(Scene):
    """A scene whose objects are seen at more than one place: object_id -> column of the mask -> colour there."""

    def __init__(self, colours: dict[str, dict[int, float]]) -> None:
        super().__init__()
        self.colours = colours

    def estimate(
        self, frame: RgbdFrame, box_xywh: BoxXywh, model: ObjectModel, priors: Any = (), view: View | None = None,
        is_followed: bool = False,
    ) -> PoseEstimate:
        column = min((5, 50), key=lambda place: abs(place - box_xywh[0]))
        self.seen[model.object_id] = column, 0.9
        estimate = super().estimate(frame, box_xywh, model, priors)
        return replace(estimate, colour=self.colours[model.object_id][column])


def columns_of(colours: dict[str, dict[int, float]], monkeypatch: pytest.MonkeyPatch, per_frame: int) -> list[int]:
    """Where each of the objects is seen in one frame in which all are searched, column 5 being the best candidate."""
    candidates = [SimpleNamespace(box_xywh=(float(column), 20.0, 6.0, 6.0)) for column in (5, 50)]
    monkeypatch.setattr(object_tracker, "find_candidates", lambda *_: candidates)
    scene: Any = Doubles(colours)
    config = replace(Config(), matching=replace(Config().matching, candidates_per_frame=per_frame))
    tracker = Tracker(scene, config)
    for object_id in colours:
        model = ObjectModel(object_id, [_view(pose_at().T_cam_obj)], 0.2, None)
        model.rebuild_cloud()
        tracker.objects[object_id] = ObjectTracker(model, scene, config)
    tracks = tracker.update(frame_at(0))
    assert all(track.state is TrackState.TRACKING and track.T_cam_user is not None for track in tracks)
    return [int(np.flatnonzero(track.estimate.mask.any(axis=0))[0]) for track in tracks]


def test_search_between_an_object_and_its_double_takes_the_nearer_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    assert columns_of({"red": {5: 8.0, 50: 2.0}}, monkeypatch, per_frame=2) == [50]


@pytest.mark.parametrize("red_at_its_own", [1.0, 7.0])  # 7: a lamp that makes it look like green
def test_look_alikes_change_places_when_the_second_is_found_and_both_fit_better(
    monkeypatch: pytest.MonkeyPatch, red_at_its_own: float
) -> None:
    colours = {"red": {5: 6.0, 50: red_at_its_own}, "green": {5: 1.0, 50: 8.0}}
    assert columns_of(colours, monkeypatch, per_frame=2) == [50, 5]


def test_look_alikes_in_their_own_places_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    colours = {"red": {5: 1.0, 50: 6.0}, "green": {5: 3.0, 50: 4.0}}
    assert columns_of(colours, monkeypatch, per_frame=2) == [5, 50]


def test_filter_starts_anew_where_the_object_was_carried_and_goes_on_where_it_was_missed(
    tracker: ObjectTracker, estimator: ScriptedEstimator
) -> None:
    tracker.config = replace(tracker.config, filter=replace(tracker.config.filter, cutoff_hz=1.0, speed_gain=0.0))
    acquire(tracker, estimator)
    estimator.script += [(None, 0.0), (pose_at(0.02), 0.9)]
    tracker.update(frame_at(1))
    near = tracker.update(frame_at(2)).T_cam_user
    assert near is not None and 0 < near[0, 3] < 0.015
    estimator.script += [(None, 0.0)] * 3 + [(None, 0.0), (pose_at(0.4), 0.9)]
    for number in (3, 4):
        tracker.update(frame_at(number))
    assert tracker.state is TrackState.LOST
    estimator.script = [(pose_at(0.4), 0.9), (pose_at(0.4), 0.9)]
    far = tracker.update(frame_at(5)).T_cam_user
    assert far is not None and far[0, 3] == pytest.approx(0.4)


@pytest.mark.parametrize("max_keyframes", [0, 5])
def test_object_known_from_a_picture_without_depth_is_followed_from_its_first_pose(
    tracker: ObjectTracker, estimator: ScriptedEstimator, max_keyframes: int
) -> None:
    tracker.config = replace(
        tracker.config, tracking=replace(tracker.config.tracking, max_keyframes=max_keyframes)
    )
    tracker.model.views = [_view(np.eye(4), None)]
    tracker.reset()
    assert tracker.model.cloud is None and not tracker.model.size_m.any()
    estimator.script += [(pose_at(), 0.9)] * 4
    assert all(tracker.update(frame_at(n)).T_cam_user is not None for n in range(4))
    assert tracker.model.cloud is not None and len(estimator.asked[-1]) == 2  # predicted and last: it is followed
    tracker.reset()
    assert not tracker.model.size_m.any()


def test_of_two_keyframes_alike_the_older_stays() -> None:
    views = [_view(pose_at(0.0, turn_deg).T_cam_obj) for turn_deg in (0, 50, 100, 57)]
    model = ObjectModel("mug", list(views), 0.2, None)
    model.drop_most_redundant()
    assert model.views == views[:3]


def test_fewer_keyframes_wanted_later_are_fewer_kept(
    tracker: ObjectTracker, estimator: ScriptedEstimator
) -> None:
    acquire(tracker, estimator)
    for number, turn_deg in enumerate((0, 20, 40, 60), 1):
        estimator.script += [(pose_at(0.0, turn_deg), 0.95)]
        tracker.update(frame_at(number))
    assert len(tracker.model.views) == 4
    tracker.config = replace(tracker.config, tracking=replace(tracker.config.tracking, max_keyframes=2))
    estimator.script += [(pose_at(0.0, 80), 0.95)]
    tracker.update(frame_at(5))
    assert len(tracker.model.views) == 3


def test_track_has_the_velocity_only_when_followed_for_two_frames_in_a_row(
    tracker: ObjectTracker, estimator: ScriptedEstimator
) -> None:
    estimator.script += [(pose_at(), 0.9), (pose_at(0.01), 0.9), (None, 0.0), (pose_at(0.02), 0.9)]
    estimator.script += [(pose_at(0.03), 0.9)]
    twists = [tracker.update(frame_at(n)).twist for n in range(5)]
    assert [twist is not None for twist in twists] == [False, True, False, False, True]
    for twist in (twists[1], twists[4]):
        assert twist is not None
        np.testing.assert_allclose(twist, [0.2, 0, 0, 0, 0, 0], atol=1e-9)  # 1 cm in 50 ms

