"""What the checks of a pose add up to."""

from __future__ import annotations

import pytest

from nocsfm_ros.confidence import Scores, combine_looks, combine_scores

GOOD = Scores(
    fit=0.97, agreement=1.0, similarity=0.55, correlation=0.7, colour=3.0, coverage=0.97, coordinates=0.04,
)
UNTOLD = GOOD._replace(correlation=None, colour=None, agreement=None)


def test_good_scores_are_confident() -> None:
    assert combine_scores(GOOD)[0] > 0.95


def test_what_cannot_be_told_costs_less_than_what_is_bad() -> None:
    bad = GOOD._replace(correlation=0.0, colour=40.0, agreement=0.4)
    assert combine_scores(bad)[0] < 0.1 < combine_scores(UNTOLD)[0] < combine_scores(GOOD)[0]


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"fit": 0.3}, "30% of the points fit the object"),
        ({"agreement": 0.5}, "50% of the object agrees with the depth"),
        ({"correlation": -0.2}, "correlation -0.20 of the colours"),
        ({"colour": 40.0}, "colours 40 apart from the reference's"),
        ({"similarity": 0.1}, "similarity 0.10 to the reference"),
        ({"coordinates": 0.25}, "coordinates 0.25 apart from the flow's"),
        ({"coverage": 0.3}, "the mask covers 30% of the object"),
    ],
)
def test_each_bad_score_lowers_the_confidence_and_is_named(bad: dict[str, float], words: str) -> None:
    confidence, reason = combine_scores(GOOD._replace(**bad))
    assert confidence < combine_scores(GOOD)[0] and reason == words


def test_an_object_looked_through_or_of_impossible_colour_is_refuted_alone() -> None:
    assert combine_scores(GOOD._replace(agreement=0.1)) == (0.0, "10% of the object agrees with the depth")
    assert combine_scores(GOOD._replace(colour=50.0)) == (0.0, "colours 50 apart from the reference's")
    assert combine_scores(GOOD._replace(colour=29.0))[0] > 0.8  # another lamp


def test_middling_scores_in_all_are_no_object() -> None:
    middling = Scores(
        fit=0.6, agreement=0.75, similarity=0.2, correlation=0.15, colour=15.0, coverage=0.7, coordinates=0.15,
    )
    assert combine_scores(middling)[0] < 0.15


def test_looks_without_depth_need_mask_and_similarity() -> None:
    assert combine_looks(0.55, 0.95)[0] == 1.0
    assert combine_looks(0.3, 0.95) == (0.0, "similarity 0.30 to the reference")
    assert combine_looks(0.55, 0.5) == (0.0, "mask probability 0.50")
