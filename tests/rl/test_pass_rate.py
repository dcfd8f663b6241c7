"""Right answers are counted per prompt, and the same seed draws the same answers."""

from collections.abc import Callable

import pytest

from minimind.data.prompts import Prompt
from minimind.generation.sampling import Sampling
from minimind.model import Transformer
from minimind.rl.backends import InProcess
from minimind.rl.outcomes import Outcome
from minimind.rl.pass_rate import measure_pass
from minimind.rl.rewards import Reward, Rewards
from minimind.rl.rollouts import Sampler
from minimind.text.conversation import Message
from minimind.text.tokenizer import Tokenizer

PROMPTS = [Prompt((Message("user", text),)) for text in ("the cat", "add 12", "今天")]


def rewards(*functions: Callable[[Outcome], float]) -> Rewards:
    return Rewards([Reward(f"r{n}", function) for n, function in enumerate(functions)])


@pytest.fixture
def sampler(make_policy: Callable[..., Transformer], tokenizer: Tokenizer) -> Sampler:
    backend = InProcess(make_policy(), tokenizer)
    sampling = Sampling(temperature=1.0, top_p=1.0, max_tokens=4)
    return Sampler(backend=backend, tokenizer=tokenizer, sampling=sampling, context=96)


def test_counts_are_of_full_marks_of_one_reward(sampler: Sampler) -> None:
    seen: list[Outcome] = []

    def half(outcome: Outcome) -> float:
        seen.append(outcome)
        return float(len(seen) % 2) if outcome.prompt is PROMPTS[1] else 0.99

    found = measure_pass(sampler, PROMPTS, range(3), rewards(half), samples=6)
    assert found.right == [0, 3, 0] and len(found.scores) == 18 and sum(found.scores) == pytest.approx(3 + 12 * 0.99)
    assert len(seen) == 18 and len({outcome.messages for outcome in seen}) > 9


def test_an_answer_that_cannot_be_scored_is_not_right(sampler: Sampler) -> None:
    def broken(outcome: Outcome) -> float:
        raise ValueError("no")

    found = measure_pass(sampler, PROMPTS, range(3), rewards(lambda outcome: 1.0, broken), samples=2)
    assert found == ([0, 0, 0], [])


def test_the_seed_decides_what_is_drawn(sampler: Sampler) -> None:
    drawn: list[str] = []

    def listen(outcome: Outcome) -> float:
        drawn.append(outcome.answer.content)
        return 0.0

    for _ in range(2):
        measure_pass(sampler, PROMPTS, range(3), rewards(listen), samples=2)
    assert drawn[:6] == drawn[6:] and len(drawn) == 12
    # Another process that measures the last two prompts draws what was drawn for them here.
    measure_pass(sampler, PROMPTS[1:], range(1, 3), rewards(listen), samples=2)
    assert drawn[12:] == drawn[2:6]
