from itertools import accumulate, repeat

import pytest
import torch

from mbdl_course.fold import estimate, last, until


def halve(s, _):
    return s / 2


def test_last_is_the_final_state():
    assert last(accumulate([1, 2, 3])) == 6


def test_last_of_nothing_is_an_error():
    with pytest.raises(ValueError, match="states: got an empty"):
        last([])


def test_until_ends_with_the_first_close_pair():
    states = list(until(accumulate(repeat(0), halve, initial=1.0), lambda a, b: a - b < 0.2))
    assert states == [1.0, 0.5, 0.25, 0.125]


def test_until_is_bounded():
    states = list(until(accumulate(repeat(0), halve, initial=1.0), lambda a, b: False, most=5))
    assert len(states) == 6
    with pytest.raises(ValueError, match="most: got 0"):
        list(until([1], lambda a, b: True, most=0))


def test_estimate_is_the_state_or_its_first_field():
    s = torch.ones(2, 1)
    assert estimate(s) is s
    assert estimate((s, 0)) is s
