"""Rewards that are rules: no model, no network, a few microseconds each.

`number`, `format`, `exact` and `tools` give 0 to 1; `length` and `repetition` are penalties, from -1 to 0.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from minimind.data.prompts import Prompt
from minimind.rl.rollouts import Outcome
from minimind.text.conversation import Message
from minimind.text.final_answer import is_right
from minimind.text.numbers import read_alone
from minimind.text.tokenizer import RESERVED

__all__ = ["RULES", "Rule", "exact", "length", "number", "repetition", "tool_success", "well_formed"]

# A unit of text: a word's letters, at most so many at a time lest "abcabcabc..." be one word; or any other character.
# Chinese has no spaces, so each of its characters is a unit.
_UNIT = re.compile(r"[^\W\d_\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3]{1,12}|\S")


@dataclass(frozen=True)
class Rule:
    """A reward by name.

    parameters:  whole numbers that may be given with it, each with the least it may be
    required:    those of them that must be given
    problem:     why a prompt cannot be scored by it, or ""
    """

    function: Callable[..., float]
    parameters: Mapping[str, int] = field(default_factory=dict)
    required: tuple[str, ...] = ()
    problem: Callable[[Prompt], str] = lambda prompt: ""


def number(outcome: Outcome) -> float:
    r"""1 if the answer comes to gt, in its last \boxed{} or ####, else in its last number; of several, if all occur.

    Only the final text counts: neither reasoning nor a tool call that is broken off. A gt that is no number is compared
    as text.
    """
    return float(is_right(outcome.answer.content, outcome.prompt.gt))


def well_formed(outcome: Outcome) -> float:
    """1 if every turn is well formed: reasoning exactly when asked for, no tag left over, and EOS at the very end."""
    said = outcome.said
    is_answered = bool(outcome.answer.content.strip()) and not outcome.answer.tool_calls
    is_whole = outcome.finish_reason == "stop" and is_answered
    return float(is_whole and all(_is_well_formed(message, outcome.prompt.thinking) for message in said))


def _is_well_formed(message: Message, thinking: bool) -> bool:
    # A tag that is parsed is gone from these texts; what is left was misplaced, or broken off.
    is_clean = not any(tag in text for tag in RESERVED for text in (message.content, message.reasoning_content))
    has_spoken = bool(message.content.strip() or message.tool_calls)
    return is_clean and has_spoken and bool(message.reasoning_content.strip()) == thinking


def exact(outcome: Outcome) -> float:
    """1 if the answer is gt, ends trimmed."""
    return float(outcome.answer.content.strip() == outcome.prompt.gt[0])


def tool_success(outcome: Outcome) -> float:
    """The share of the expected calls, one for each gt, that were made and succeeded: successes / (expected + errors).

    Calling twice with the same arguments is one success; more calls than expected earn nothing.
    """
    expected = len(outcome.prompt.gt)
    succeeded = {result.call.to_json() for result in outcome.tool_results if not result.failed}
    num_errors = sum(result.failed for result in outcome.tool_results)
    return min(len(succeeded), expected) / (expected + num_errors)


def length(outcome: Outcome, *, max_tokens: int, buffer: int | None = None) -> float:
    """0 up to `max_tokens - buffer` sampled tokens, then down in a line to -1 at `max_tokens`, and -1 beyond.

    buffer:  a quarter of max_tokens unless given
    Source:  the soft overlong punishment of DAPO, Yu et al. 2025, arXiv:2503.14476, eq. 13
    """
    buffer = max_tokens // 4 if buffer is None else buffer
    over = outcome.num_tokens - (max_tokens - buffer)
    return -min(max(over / buffer, 0.0), 1.0) if buffer else -float(over > 0)


def repetition(outcome: Outcome, *, n: int = 6) -> float:
    """Minus the share of n-grams that stood in the same text before, over all that the policy said.

    n:  units of an n-gram; a unit is a word, a digit, a sign, or one Chinese character
    """
    texts = [text for message in outcome.said for text in (message.reasoning_content, message.content)]
    repeated = total = 0
    for text in texts:
        units = _UNIT.findall(text)
        grams = [tuple(units[place : place + n]) for place in range(len(units) - n + 1)]
        repeated += len(grams) - len(set(grams))
        total += len(grams)
    return -repeated / total if repeated else 0.0


def _no_gt(prompt: Prompt) -> str:
    return "" if prompt.gt else "has no gt"


def _not_comparable(prompt: Prompt) -> str:
    strange = next((text for text in prompt.gt if not read_alone(text)), None)
    if strange is None or len(prompt.gt) == 1:
        return _no_gt(prompt)
    return f"has {len(prompt.gt)} gt, of which {strange[:50]!r} is no number"


def _not_one(prompt: Prompt) -> str:
    return "" if len(prompt.gt) == 1 else f"has {len(prompt.gt)} gt where one is expected"


RULES: Mapping[str, Rule] = {
    "number": Rule(number, problem=_not_comparable),
    "exact": Rule(exact, problem=_not_one),
    "format": Rule(well_formed),
    "tools": Rule(tool_success, problem=_no_gt),
    "length": Rule(length, {"max_tokens": 1, "buffer": 0}, required=("max_tokens",)),
    "repetition": Rule(repetition, {"n": 1}),
}
