"""The four exception types of nocsfm_ros.

Every message says four things: what is wrong, what was got, what was expected, and what to do about it.
"""

from __future__ import annotations

from functools import partial


class NocsfmError(Exception):
    """Base of everything nocsfm_ros raises on purpose.

    Args:
        what: the thing that is wrong ("depth image", "parameter matching.threshold").
        got: what was found.
        expected: what would have been right.
        mend: what the reader can do about it.
    """

    def __init__(self, what: str, *, got: object, expected: object, mend: str = "") -> None:
        self.what, self.got, self.expected, self.mend = what, got, expected, mend
        text = f"{what}: got {got}, expected {expected}"
        super().__init__(f"{text}. {mend}" if mend else text)

    def __reduce__(self) -> tuple[object, ...]:
        """Errors come back from worker processes whole; Exception's own way knows no keyword arguments."""
        return partial(type(self), got=self.got, expected=self.expected, mend=self.mend), (self.what,)


class ShapeError(NocsfmError, ValueError):
    """A programmer handed over an array of the wrong shape, dtype or range."""


class ConfigError(NocsfmError, ValueError):
    """A user's setting, file or argument cannot be used."""


class CheckpointError(NocsfmError):
    """Weights are missing, corrupt or of another architecture."""


class FrameError(NocsfmError, ValueError):
    """An input image, depth map or camera cannot be used; the caller drops this frame and goes on."""
