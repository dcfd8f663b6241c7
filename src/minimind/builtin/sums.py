"""Sums to be answered from the head: small enough to learn, hard enough to be wrong about, and checked by a number.

Each row is a conversation with the right answer in it and `gt` beside it, so the same rows serve fine-tuning, which
learns the answer, and reinforcement learning, which drops it and compares. Values are parted by hash, as in
`skills.py`: held-out sums are asked nowhere else.
"""

from collections.abc import Iterator
from random import Random
from typing import Any

from minimind.builtin.skills import Wordings, is_held_out, pick

__all__ = ["builtin_sums"]

NUM_SUMS = {False: 6000, True: 200}

QUESTIONS: dict[str, Wordings] = {
    "+": {"en": ("What is {} plus {}?", "{} + {} = ?"), "zh": ("{}加{}等于几？", "{} + {} = ?")},
    "-": {"en": ("What is {} minus {}?", "{} - {} = ?"), "zh": ("{}减{}等于几？", "{} - {} = ?")},
}


def builtin_sums(*, held_out: bool, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Rows `{"conversations", "gt", "lang"}`: sums and differences of two numbers below 100; row n has its own seed."""
    for index in range(NUM_SUMS[held_out]):
        random = Random(f"sum {seed} {held_out} {index}")
        language = "zh" if index % 2 else "en"
        while True:
            operator, b, a = random.choice("+-"), *sorted(random.choices(range(1, 100), k=2))
            if is_held_out("sums", (operator, a, b)) == held_out:
                break
        answer = str(a + b if operator == "+" else a - b)
        # A difference stays at least 0; a sum may name the smaller number first.
        shown = random.sample((a, b), 2) if operator == "+" else (a, b)
        messages = [
            {"role": "user", "content": pick(random, QUESTIONS[operator], language).format(*shown)},
            {"role": "assistant", "content": answer},
        ]
        yield {"conversations": messages, "gt": [answer], "source": "minimind-sums", "lang": language}
