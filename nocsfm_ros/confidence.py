"""How likely a pose is right, from what verification.py finds of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Scores(NamedTuple):
    """What is checked of a pose. None where it cannot be told.

    Attributes:
        fit: share of the live points that lie on the object, of those on sides that are known.
        agreement: see depth_agreement.
        similarity: see pose_similarity.
        correlation: of the colours, see colour_alignment.Comparison.
        colour: see colour_difference.
        coverage: see mask_coverage.
        coordinates: see coordinate_error.
    """

    fit: float
    agreement: float | None
    similarity: float
    correlation: float | None
    colour: float | None
    coverage: float | None
    coordinates: float | None


# The confidence is a logistic regression on scores between the worst and the best that are met: (weight, worst, best).
# Fitted by benchmarks/fit_confidence.py --pairs 800 to 1983 poses on rendered training objects, right, turned, in other
# colours and of another object (similarity is held at 2): the share of right ones, within 10 degrees and a tenth of
# scale_m, among poses of such scores
WEIGHTS = {
    "fit": (0.3, 0.3, 1.0), "agreement": (1.86, 0.5, 1.0), "similarity": (2.0, 0.1, 0.55),
    "correlation": (2.37, -0.2, 0.5), "colour": (1.72, 30.0, 5.0), "coverage": (1.39, 0.3, 1.0),
    "coordinates": (2.48, 0.25, 0.02),
}
BIAS, UNKNOWN = -8.5, 0.6
# What refutes a pose alone: (impossible, harmless). The camera looks through the object, or no lamp makes such a colour
# of the other: 97 % of right poses under training's lamps lie under 50, a blue pen for a red one at 49
VETOES = {"agreement": (0.1, 0.4), "colour": (50.0, 30.0)}
WORDS = {
    "fit": "{:.0%} of the points fit the object", "agreement": "{:.0%} of the object agrees with the depth",
    "similarity": "similarity {:.2f} to the reference",
    "correlation": "correlation {:.2f} of the colours", "colour": "colours {:.0f} apart from the reference's",
    "coordinates": "coordinates {:.2f} apart from the flow's", "coverage": "the mask covers {:.0%} of the object",
}
# Without depth in the reference nothing but the look can be checked
SIMILARITY_RAMP, MASK_RAMP = (0.33, 0.5), (0.5, 0.9)


def combine_scores(scores: Scores) -> tuple[float, str]:
    """How likely the pose is right, [0, 1], and its weakest side in words."""
    known = {name: value for name, value in scores._asdict().items() if value is not None}
    missing = {name: weight * (1 - (_ramp(known[name], ends) if name in known else UNKNOWN))
               for name, (weight, *ends) in WEIGHTS.items()}
    passed = {name: _ramp(known[name], ends) for name, ends in VETOES.items() if name in known}
    logit = BIAS + sum(weight for weight, *_ in WEIGHTS.values()) - sum(missing.values())
    worst = max(known, key=lambda name: (passed.get(name, 1.0) < 0.5, missing[name]))
    return float(np.prod(list(passed.values())) / (1 + np.exp(-logit))), WORDS[worst].format(known[worst])


def combine_looks(similarity: float, mask_probability: float) -> tuple[float, str]:
    """The same for a reference without depth, of which only the look can be checked: not calibrated."""
    scores = {
        f"mask probability {mask_probability:.2f}": _ramp(mask_probability, MASK_RAMP),
        f"similarity {similarity:.2f} to the reference": _ramp(similarity, SIMILARITY_RAMP),
    }
    return float(np.sqrt(np.prod(list(scores.values())))), min(scores, key=lambda name: scores[name])


def _ramp(value: float, ends: Sequence[float]) -> float:
    return float(np.clip((value - ends[0]) / (ends[1] - ends[0]), 0.0, 1.0))
