"""Cost: its measure, its growth, and the laws of more workers."""

import math
import time

import numpy as np
import pytest

from mbdl_course.scaling import (
    alternating,
    exponents,
    ratio,
    scaled_speed_up,
    serial_part,
    speed_up,
)


def test_calls_are_made_in_turn():
    seen = []
    found = alternating(
        {"a": lambda: seen.append("a"), "b": lambda: seen.append("b")}, rounds=3, least=0
    )
    assert seen[:2] == ["a", "b"] and seen[-6:] == ["a", "b"] * 3
    assert found.keys() == {"a", "b"} and all(len(times) == 3 for times in found.values())


def test_short_calls_are_repeated():
    seen = []
    alternating({"a": lambda: (seen.append(0), time.sleep(1e-3))}, rounds=2, least=5e-3)
    assert 2 + 2 * 3 <= len(seen) <= 2 + 2 * 5


def test_seconds_are_seconds():
    assert min(alternating({"a": lambda: time.sleep(0.02)}, rounds=3)["a"]) >= 0.02


def test_a_ratio_is_taken_within_a_round():
    """Twice as slow a machine in the last round changes both, and not their ratio."""
    assert ratio([2.0, 2.0, 4.0], [1.0, 1.0, 2.0]) == (2, 2, 2)
    assert ratio([2.0, 3.0, 1.0], [1.0, 1.0, 1.0]) == (2, 1, 3)
    with pytest.raises(ValueError):
        ratio([1.0], [1.0, 2.0])


@pytest.mark.parametrize("power", [0.5, 1, 2, 3])
def test_exponents_of_a_power_law(power):
    sizes = np.array([1.0, 2, 8, 100])
    np.testing.assert_allclose(exponents(sizes, 7 * sizes**power), power)


def test_exponents_against_a_fit():
    sizes, costs = [10, 30], [4.0, 9.0]
    (slope,) = exponents(sizes, costs)
    assert math.isclose(slope, np.polyfit(np.log(sizes), np.log(costs), 1)[0])


def test_amdahl_by_counting():
    """100 pieces of work, of which 20 cannot be shared, on 4 workers: 20 + 80 / 4 = 40."""
    assert speed_up(4, 0.2) == 100 / 40
    assert speed_up(1, 0.3) == 1 and math.isclose(speed_up(1e12, 0.25), 4)
    assert speed_up(7, 0) == 7 and speed_up(7, 1) == 1


def test_gustafson_by_counting():
    """4 workers, 10 s, of which 2 not shared: one worker would need 2 + 8 * 4 = 34 s."""
    assert math.isclose(scaled_speed_up(4, 0.2), 34 / 10)


@pytest.mark.parametrize(("workers", "serial"), [(2, 0.1), (16, 0.01), (3, 0.9)])
def test_the_serial_part_is_found_again(workers, serial):
    assert math.isclose(serial_part(workers, speed_up(workers, serial)), serial)


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: alternating([print]), TypeError, "calls: got"),
        (lambda: alternating({"a": 3}), TypeError, "calls: got"),
        (lambda: alternating({}), ValueError, "calls, rounds: got 0"),
        (lambda: alternating({"a": print}, rounds=0), ValueError, "calls, rounds: got 1, 0"),
        (lambda: exponents([1], [1]), ValueError, "two or more"),
        (lambda: exponents([1, 2], [1]), ValueError, "shorter"),
        (lambda: exponents([1, 2], [0, 1]), ValueError, "positive"),
        (lambda: exponents([2, 1], [1, 1]), ValueError, "rising"),
        (lambda: speed_up(0.5, 0.1), ValueError, "workers: got 0.5"),
        (lambda: speed_up(2, 1.1), ValueError, "serial: got 1.1"),
        (lambda: speed_up(2, math.nan), ValueError, "serial: got nan"),
        (lambda: scaled_speed_up(2, -0.1), ValueError, "serial: got -0.1"),
        (lambda: serial_part(1, 1), ValueError, "workers, gained"),
        (lambda: serial_part(2, 0), ValueError, "workers, gained"),
    ],
)
def test_bad_input(call, kind, message):
    with pytest.raises(kind, match=message):
        call()
