"""Scores for outcomes: a weighted sum of rewards, or the reason why there is none.

    number                         a rule by name, with weight 1 (`rules.py`)
    length(max_tokens=256)=0.5     a rule with parameters, and a weight
    package.module:function=0.5    a function of yours: `function(outcome: Outcome) -> float`
    https://host/score=1.0         an endpoint: POST {"messages", "answer", "gt"}, answered by {"reward": float}

A reward that raises, hangs, or returns what is no bounded number gives no score: that sample is dropped and its reason
counted. It is never scored 0, which would teach the policy something. When it keeps happening, training stops.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from minimind.data.prompts import Prompt
from minimind.errors import ConfigError, TrainingError
from minimind.rl.reward_functions import http_reward, import_reward
from minimind.rl.rollouts import Outcome, Rollout, Score
from minimind.rl.rules import RULES
from minimind.rl.time_limit import CallResult, call_in_time

__all__ = ["Reward", "Rewards", "parse_rewards"]

# A reward beyond is a mistake (1e30 for "very good"), and would drown all others of its group.
MAX_REWARD = 1e4
# Requests under way at once. Functions are called one at a time: not every one is safe in threads.
HTTP_WIDTH = 8

_SPEC = re.compile(
    r"(?P<name>[A-Za-z_][\w.]*(?::[A-Za-z_]\w*)?)(?:\((?P<parameters>[^()]*)\))?(?:\s*=\s*(?P<weight>.*))?"
)


@dataclass(frozen=True)
class Reward:
    """A function that scores an outcome, and how it is called.

    problem:          why a prompt cannot be scored, or ""
    timeout_seconds:  for each call; None calls it directly, for what is known to end
    width:            calls under way at once
    """

    name: str
    function: Callable[[Outcome], float]
    weight: float = 1.0
    problem: Callable[[Prompt], str] = lambda prompt: ""
    timeout_seconds: float | None = 10.0
    width: int = 1


@dataclass(frozen=True)
class _Failure:
    reason: str
    detail: str


class Rewards:
    """Scores outcomes, each by itself and in order.

    max_failures_in_a_row:  of one reward, whatever happens to the others, before training stops
    """

    def __init__(self, rewards: Sequence[Reward], *, max_failures_in_a_row: int = 32) -> None:
        self.rewards = tuple(rewards)
        self.max_failures_in_a_row = max_failures_in_a_row
        self._failures_in_a_row: Counter[str] = Counter()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(reward.name for reward in self.rewards)

    def problem(self, prompt: Prompt) -> str:
        """Why one of them cannot score this prompt, or ""."""
        problems = ((reward.name, reward.problem(prompt)) for reward in self.rewards)
        return next((f"{why}, and the reward {name!r} compares with gt" for name, why in problems if why), "")

    def __call__(self, outcomes: Sequence[Outcome]) -> list[Score]:
        """Errors: TrainingError when a reward fails `max_failures_in_a_row` times in a row."""
        columns = [list(self._score_all(reward, outcomes)) for reward in self.rewards]
        return [self._scored(row) for row in zip(*columns, strict=True)]

    def score(self, rollouts: Sequence[Rollout]) -> list[Rollout]:
        """The same with their scores. Errors: TrainingError, as above"""
        scores = self([rollout.outcome for rollout in rollouts])
        return [replace(rollout, scored=score) for rollout, score in zip(rollouts, scores, strict=True)]

    def _score_all(self, reward: Reward, outcomes: Sequence[Outcome]) -> Iterator[float | _Failure]:
        for start in range(0, len(outcomes), reward.width):
            some = outcomes[start : start + reward.width]
            for outcome, result in zip(some, _call(reward, some), strict=True):
                found = _read(reward, outcome, result)
                self._count(reward, found)
                yield found

    def _count(self, reward: Reward, found: float | _Failure) -> None:
        if not isinstance(found, _Failure):
            self._failures_in_a_row[reward.name] = 0
            return
        self._failures_in_a_row[reward.name] += 1
        if self._failures_in_a_row[reward.name] >= self.max_failures_in_a_row:
            raise TrainingError(
                f"the reward {reward.name!r} failed {self.max_failures_in_a_row} times in a row, the last time with "
                f"{found.reason}: {found.detail}; mend it, then resume"
            )

    def _scored(self, row: Sequence[float | _Failure]) -> Score:
        parts = {name: value for name, value in zip(self.names, row, strict=True) if not isinstance(value, _Failure)}
        for found in row:
            if isinstance(found, _Failure):
                return Score(math.nan, parts, found.reason, found.detail)
        return Score(math.fsum(reward.weight * parts[reward.name] for reward in self.rewards), parts)


def _call(reward: Reward, outcomes: Sequence[Outcome]) -> list[CallResult]:
    if reward.timeout_seconds is None:
        return [CallResult(reward.function(outcome)) for outcome in outcomes]
    return call_in_time(reward.function, outcomes, reward.timeout_seconds)


def _read(reward: Reward, outcome: Outcome, result: CallResult) -> float | _Failure:
    """The number in a call's result, or why there is none."""
    where = f"{reward.name} at {outcome.prompt.where or 'a prompt'}"
    if result.timed_out or isinstance(result.error, TimeoutError):
        return _Failure("reward_timed_out", f"{where}: no answer within {reward.timeout_seconds:g} seconds")
    if result.error is not None:
        kind, said = type(result.error).__name__, " ".join(str(result.error).split())
        return _Failure("reward_raised", f"{where}: {kind}: {said[:200]}")
    value = _number(result.value)
    if not abs(value) <= MAX_REWARD:
        shown = f"{type(result.value).__name__} {_shown(result.value)}"
        return _Failure("reward_not_finite", f"{where}: got {shown}, expected a number within ±{MAX_REWARD:g}")
    return value


def _number(value: Any) -> float:
    """As a float, numbers of NumPy and torch included; NaN for what is none."""
    try:
        return math.nan if isinstance(value, str | bytes) else float(value)
    except Exception:
        return math.nan


def _shown(value: Any) -> str:
    try:
        return repr(value)[:50]
    except Exception:
        return "that cannot be shown"


def parse_rewards(specs: Sequence[str], *, timeout_seconds: float = 10.0, max_failures_in_a_row: int = 32) -> Rewards:
    """Rewards as a recipe spells them, see the top of this file. Errors: ConfigError

    timeout_seconds:  for each call of a function or an endpoint
    """
    rewards = [_parse(spec.strip(), timeout_seconds) for spec in specs]
    if not rewards:
        raise ConfigError(f"there are no rewards; expected at least one, such as {', '.join(RULES)}")
    counts = Counter(reward.name for reward in rewards)
    if twice := [name for name, count in counts.items() if count > 1]:
        raise ConfigError(f"the reward {twice[0]!r} is given {counts[twice[0]]} times; give it once, with one weight")
    return Rewards(rewards, max_failures_in_a_row=max_failures_in_a_row)


def _parse(spec: str, timeout_seconds: float) -> Reward:
    if "://" in spec:
        url, weight = _split_url(spec)
        function = http_reward(url, timeout_seconds)
        return Reward(url, function, weight, timeout_seconds=timeout_seconds, width=HTTP_WIDTH)
    match = _SPEC.fullmatch(spec)
    if match is None:
        raise ConfigError(
            f"the reward {spec!r} cannot be read; expected name, name=0.5, name(n=4)=0.5, module:function"
        )
    name, weight = match["name"], _weight("1" if match["weight"] is None else match["weight"], spec)
    if ":" in name:
        if match["parameters"] is not None:
            raise ConfigError(f"the reward {spec!r} has parameters, which only rules take; write a function without")
        return Reward(name, import_reward(name), weight, timeout_seconds=timeout_seconds)
    if name not in RULES:
        expected = f"{', '.join(RULES)}, module:function, or an address"
        raise ConfigError(f"the reward {name!r} is unknown; expected {expected}")
    rule = RULES[name]
    function = partial(rule.function, **_parameters(spec, name, match["parameters"] or ""))
    return Reward(name, function, weight, rule.problem, timeout_seconds=None)


def _split_url(spec: str) -> tuple[str, float]:
    """An address with `=` in it has to be followed by its weight."""
    url, equals, weight = spec.rpartition("=")
    return (url, _weight(weight, spec)) if equals else (spec, 1.0)


def _weight(text: str, spec: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        weight = math.nan
    if not abs(weight) <= MAX_REWARD:
        raise ConfigError(f"the reward {spec!r} has weight {text!r}; expected a number within ±{MAX_REWARD:g}")
    return weight


def _parameters(spec: str, name: str, text: str) -> dict[str, int]:
    """`max_tokens=256, buffer=64`: all parameters of rules are whole numbers from 0, and sizes of something."""
    rule, given = RULES[name], {}
    for part in filter(None, map(str.strip, text.split(","))):
        key, _, value = (piece.strip() for piece in part.partition("="))
        if key not in rule.parameters:
            known = ", ".join(rule.parameters) or "none"
            raise ConfigError(f"the reward {spec!r} has parameter {key!r}; {name} takes: {known}")
        least = rule.parameters[key]
        if not value.isdecimal() or int(value) < least:
            raise ConfigError(f"the reward {spec!r} has {key}={value}; expected a whole number from {least}")
        given[key] = int(value)
    if missing := [key for key in rule.required if key not in given]:
        raise ConfigError(f"the reward {spec!r} lacks {missing[0]}; write {name}({missing[0]}=256)")
    return given
