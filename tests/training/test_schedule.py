"""The learning rate rises, stays level and falls, without a jump, as a pure function of the step."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimind.training.schedule import rate_scale
from minimind.training.settings import TrainConfig

SETTINGS = st.fixed_dictionaries(
    {
        "schedule": st.sampled_from(["linear", "cosine"]),
        "warmup_steps": st.integers(0, 60),
        "cooldown": st.floats(0, 1),
        "final_scale": st.floats(0, 1),
    }
)


def scales(total: int, **settings: Any) -> list[float]:
    return [rate_scale(step, total, TrainConfig(**settings)) for step in range(total)]


def test_the_rate_rises_to_its_peak_stays_there_and_falls_to_its_final_share() -> None:
    course = scales(1000, warmup_steps=40, cooldown=0.65, final_scale=0.05)
    assert course[:40] == pytest.approx([(step + 1) / 41 for step in range(40)])
    assert course[40:351] == [1.0] * 311
    falls = [before - after for before, after in pairwise(course[350:])]
    assert falls == pytest.approx([0.95 / 650] * 649), "a straight line"
    assert course[-1] == pytest.approx(0.05, abs=0.002)


def test_half_a_cosine_falls_slowly_at_both_ends() -> None:
    course = scales(1000, schedule="cosine", warmup_steps=0, cooldown=1, final_scale=0.1)
    assert (
        course[500] == pytest.approx(0.55)
        and course[0] == pytest.approx(1)
        and course[-1] == pytest.approx(0.1, abs=1e-4)
    )
    falls = [before - after for before, after in pairwise(course)]
    assert falls[0] < 0.01 * max(falls) and falls[-1] < 0.01 * max(falls) == pytest.approx(0.01 * falls[499])


def test_without_warm_up_and_cool_down_the_rate_is_constant() -> None:
    assert scales(20, warmup_steps=0, cooldown=0) == [1.0] * 20


@given(settings=SETTINGS, total=st.integers(1, 300))
def test_the_rate_never_jumps_and_never_rises_after_it_fell(settings: dict[str, Any], total: int) -> None:
    """A line over d steps moves by 1/d at most, half a cosine by pi / 2d."""
    course = scales(total, **settings)
    assert all(0 < scale <= 1 for scale in course)
    steepest_fall = 1.58 / max(total * settings["cooldown"], 1)
    steepest_rise = 1 / (settings["warmup_steps"] + 1)
    assert all(-steepest_fall <= after - before <= steepest_rise + 1e-9 for before, after in pairwise(course))
    peak = course.index(max(course))
    assert course[: peak + 1] == sorted(course[: peak + 1]) and course[peak:] == sorted(course[peak:], reverse=True)


@given(settings=SETTINGS, total=st.integers(2, 300))
def test_the_last_update_is_one_step_away_from_the_final_rate(settings: dict[str, Any], total: int) -> None:
    settings |= {"warmup_steps": 0}
    if settings["cooldown"] * total >= 1:
        last = rate_scale(total - 1, total, TrainConfig(**settings))
        assert last == pytest.approx(settings["final_scale"], abs=1.58 / (settings["cooldown"] * total))
