"""Errors keep their words on the way back from a worker process."""

from __future__ import annotations

import pickle

from nocsfm_ros.errors import ConfigError


def test_an_error_comes_through_a_pickle_with_all_its_words() -> None:
    error = ConfigError("a setting", got=3, expected="less", mend="lower it")
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is ConfigError and str(back) == str(error) == "a setting: got 3, expected less. lower it"
    assert (back.what, back.got, back.expected, back.mend) == ("a setting", 3, "less", "lower it")
