"""A score is the weighted sum of its parts, or a reason: never a number that nobody meant."""

import math
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Barrier, Event
from typing import Any

import pytest
import torch

from minimind.data.prompts import Prompt
from minimind.errors import ConfigError, TrainingError
from minimind.rl.rewards import Reward, Rewards, parse_rewards
from minimind.rl.rollouts import Outcome
from minimind.text.conversation import Message


def outcome(text: str = "72", line: int = 1, gt: tuple[str, ...] = ("72",)) -> Outcome:
    prompt = Prompt((Message("user", "?"),), gt=gt, where=f"x.jsonl:{line}")
    return Outcome(prompt, (Message("assistant", text),), "stop", 10)


def rewards(function: Callable[[Outcome], Any], **settings: Any) -> Rewards:
    limit = settings.pop("max_failures_in_a_row", 32)
    return Rewards([Reward("mine", function, **{"timeout_seconds": 5.0, **settings})], max_failures_in_a_row=limit)


def test_the_total_is_the_weighted_sum_of_the_parts() -> None:
    scored = parse_rewards(["number", "format=0.2", "length(max_tokens=10, buffer=4)=-0.5", "repetition=0"])(
        [outcome(), outcome("73"), outcome("7</think>")]
    )

    assert [one.parts for one in scored] == [
        {"number": 1, "format": 1, "length": -1, "repetition": 0},
        {"number": 0, "format": 1, "length": -1, "repetition": 0},
        {"number": 0, "format": 0, "length": -1, "repetition": 0},
    ]
    assert [one.total for one in scored] == pytest.approx([1.7, 0.7, 0.5])
    assert not any(one.failure for one in scored)


def broken(_: Outcome) -> float:
    raise RuntimeError("no\nmodel")


def leave(_: Outcome) -> float:
    sys.exit(3)


@pytest.fixture
def hang() -> Iterator[Callable[[Outcome], float]]:
    release = Event()

    def wait(_: Outcome) -> float:
        release.wait(60)
        return 1.0

    yield wait
    release.set()


class Unshowable:
    def __repr__(self) -> str:
        raise ValueError

    def __float__(self) -> float:
        raise RuntimeError


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, -math.inf, 1e30, -10001, None, "1.0", b"1", [1.0], 1j, {}, Unshowable(), 10**400]
)
def test_what_is_no_bounded_number_is_dropped(value: Any) -> None:
    [scored] = rewards(lambda _: value)([outcome(line=7)])

    assert scored.failure == "reward_not_finite" and math.isnan(scored.total) and not scored.parts
    assert scored.detail.startswith(f"mine at x.jsonl:7: got {type(value).__name__} ")


@pytest.mark.parametrize("value", [1, 0.5, True, -1e4, torch.tensor(0.25), torch.ones(1)[0]])
def test_numbers_of_any_kind_are_read(value: Any) -> None:
    [scored] = rewards(lambda _: value)([outcome()])

    assert scored.total == float(value) and type(scored.total) is float


def test_a_reward_that_raises_drops_its_sample_alone() -> None:
    def sometimes(given: Outcome) -> float:
        return broken(given) if given.answer.content == "bad" else 1.0

    scored = rewards(sometimes)([outcome(), outcome("bad", line=2), outcome()])

    assert [one.failure for one in scored] == ["", "reward_raised", ""]
    assert scored[1].detail == "mine at x.jsonl:2: RuntimeError: no model"
    [left] = rewards(leave)([outcome()])
    assert left.failure == "reward_raised" and "SystemExit" in left.detail


def test_a_reward_that_hangs_drops_its_sample_when_its_time_is_up(hang: Callable[[Outcome], float]) -> None:
    scored = rewards(lambda one: hang(one) if one.answer.content == "bad" else 1.0, timeout_seconds=0.2)(
        [outcome(), outcome("bad", line=3), outcome()]
    )

    assert [one.failure for one in scored] == ["", "reward_timed_out", ""]
    assert scored[1].detail == "mine at x.jsonl:3: no answer within 0.2 seconds"


def test_calls_that_may_run_side_by_side_do() -> None:
    """Each waits until all eight are there."""
    together = Barrier(8)
    scored = rewards(lambda one: float(together.wait(5) >= 0), timeout_seconds=10, width=8)([outcome()] * 8)

    assert [one.total for one in scored] == [1.0] * 8


def test_functions_are_called_one_at_a_time() -> None:
    running = [0]

    def alone(_: Outcome) -> float:
        running[0] += 1
        time.sleep(0.01)
        running[0] -= 1
        return float(running[0])

    assert [one.total for one in rewards(alone)([outcome()] * 5)] == [0.0] * 5


def test_other_parts_are_kept_when_one_fails() -> None:
    both = Rewards([Reward("mine", broken), Reward("one", lambda _: 1.0)])
    [scored] = both([outcome()])

    assert scored.failure and math.isnan(scored.total) and scored.parts == {"one": 1.0}


def test_too_many_failures_in_a_row_stop_training_with_reward_reason_and_place() -> None:
    with pytest.raises(TrainingError) as error:
        rewards(broken, max_failures_in_a_row=3)([outcome(line=line) for line in range(1, 9)])
    assert str(error.value) == (
        "the reward 'mine' failed 3 times in a row, the last time with reward_raised: "
        "mine at x.jsonl:3: RuntimeError: no model; mend it, then resume"
    )


def test_failures_in_a_row_are_counted_over_calls_and_forgotten_after_a_success() -> None:
    def sometimes(given: Outcome) -> float:
        return math.nan if given.answer.content == "bad" else 1.0

    scored = rewards(sometimes, max_failures_in_a_row=3)
    for _ in range(5):
        scored([outcome("bad"), outcome("bad"), outcome()])
    scored([outcome("bad")])
    scored([outcome("bad")])
    with pytest.raises(TrainingError, match="failed 3 times in a row, the last time with reward_not_finite"):
        scored([outcome("bad")])


def test_a_prompt_that_cannot_be_scored_has_a_problem() -> None:
    parsed = parse_rewards(["format", "number"])
    assert parsed.problem(outcome().prompt) == ""
    assert parsed.problem(outcome(gt=()).prompt) == "has no gt, and the reward 'number' compares with gt"


def test_specs_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    specs = ["number", "repetition(n=3) = 0.5", "os.path:basename=-1", "http://host:1/a?b=c=2", "https://host/score"]
    parsed = parse_rewards(specs, timeout_seconds=3)

    assert [(reward.name, reward.weight, reward.timeout_seconds) for reward in parsed.rewards] == [
        ("number", 1.0, None),
        ("repetition", 0.5, None),
        ("os.path:basename", -1.0, 3),
        ("http://host:1/a?b=c", 2.0, 3),
        ("https://host/score", 1.0, 3),
    ]
    assert parsed.names == tuple(reward.name for reward in parsed.rewards)


@pytest.mark.parametrize(
    ("specs", "problem"),
    [
        ([], "there are no rewards; expected at least one, such as number"),
        (["numbr"], "the reward 'numbr' is unknown; expected number, exact"),
        (["number=many"], "has weight 'many'; expected a number"),
        (["number=nan"], "has weight 'nan'"),
        (["number=1e9"], "has weight '1e9'"),
        (["number="], "has weight ''"),
        (["number", "number=2"], "'number' is given 2 times"),
        (["number(n=2)"], "has parameter 'n'; number takes: none"),
        (["length"], r"lacks max_tokens; write length\(max_tokens=256\)"),
        (["length(256)"], "has parameter '256'; length takes: max_tokens, buffer"),
        (["length(max_tokens=-1)"], "has max_tokens=-1; expected a whole number from 1"),
        (["repetition(n=0)"], "expected a whole number from 1"),
        (["os.path:nothing"], "nothing is not there"),
        (["no_such_module_here:f"], "No module named"),
        (["os.path:basename(n=1)"], "has parameters, which only rules take"),
        (["two words"], "cannot be read"),
        ([""], "cannot be read"),
        (["ftp://host/x"], "is no address"),
        (["http://host/x=much"], "has weight 'much'"),
    ],
)
def test_specs_that_are_wrong_are_refused(specs: list[str], problem: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    with pytest.raises(ConfigError, match=problem):
        parse_rewards(specs)
