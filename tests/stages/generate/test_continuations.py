"""What follows a prompt is the same alone and among others, from the start of a run or its middle."""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny import TOKENIZER, random_model

import minimind
from minimind.errors import UserError
from minimind.generation.completions import complete
from minimind.generation.sampling import Sampling
from minimind.stages.generate.continuations import Continuation, Continuer
from minimind.stages.generate.prompts import GivenPrompt

WORDS = ["hello", "你好，世界。", "world " * 20, "there", "hello world, hello there", "你"]
PROMPTS = [GivenPrompt(f"here:{place}", {"prompt": f"{WORDS[place % 6]} {place}"}) for place in range(30)]


def continuer(**changes: Any) -> Continuer:
    sampling = Sampling(temperature=1, top_p=1, max_tokens=12, stop=("好",))
    return Continuer(
        **{"model": random_model(), "tokenizer": TOKENIZER, "sampling": sampling, "batch_size": 3, **changes}
    )


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("batch_size", [1, 3, 40])
def test_prompts_are_continued_as_the_library_does_it(temperature: float, batch_size: int) -> None:
    sampling = Sampling(temperature=temperature, max_tokens=12, stop=("好",))
    mine = continuer(sampling=sampling, batch_size=batch_size)
    found = list(mine.run(PROMPTS))
    ids = [prompt.ids(TOKENIZER, thinking=False) for prompt in PROMPTS]
    expected = complete(mine.model, TOKENIZER, ids, sampling)
    assert [prompt for prompt, _ in found] == PROMPTS
    assert [(one.text, one.ids, one.finish_reason) for _, one in found] == [
        (one.text, one.ids, one.finish_reason) for one in expected
    ]


def test_going_on_in_the_middle_gives_the_rest() -> None:
    mine = continuer()
    whole = list(mine.run(PROMPTS))
    for first in range(31):
        assert list(mine.run(PROMPTS, first)) == whole[first:]


def test_going_on_computes_the_group_again_from_its_start() -> None:
    """Else what is computed beside a prompt, and with it a last digit, would depend on where a run was cut off."""

    @dataclass(frozen=True, kw_only=True)
    class Noting(Continuer):
        groups: list[tuple[int, int]] = field(default_factory=list)

        def _group(self, prompts: Sequence[GivenPrompt], start: int) -> Iterator[Continuation]:
            self.groups.append((start, len(prompts)))
            return super()._group(prompts, start)

    groups = {}
    for first in (0, 13, 24, 29, 30):
        noting = Noting(model=random_model(), tokenizer=TOKENIZER, sampling=Sampling(max_tokens=2), batch_size=1)
        assert len(list(noting.run(PROMPTS, first))) == 30 - first
        groups[first] = noting.groups
    whole = [(0, 8), (8, 8), (16, 8), (24, 6)]
    assert groups == {0: whole, 13: whole[1:], 24: whole[3:], 29: whole[3:], 30: []}


def test_a_prompt_that_does_not_fit_has_an_error_and_the_others_have_answers() -> None:
    prompts = [
        GivenPrompt("here:1", {"prompt": "hello " * 300}),
        PROMPTS[0],
        GivenPrompt("here:3", {"prompt": "hello " * 400}),
    ]
    found = [one for _, one in continuer().run(prompts)]
    assert [bool(one.error) for one in found] == [True, False, True]
    assert "tokens and the context 256, of which" in found[0].error and found[1].ids
    [alone] = [one for _, one in continuer().run(prompts[:1])]
    assert alone == found[0]


def test_an_answer_may_reach_the_end_of_the_context() -> None:
    prompt = GivenPrompt("here", {"prompt": "hello " * 40})
    size = len(prompt.ids(TOKENIZER, thinking=False))
    sampling = Sampling(temperature=0, max_tokens=500, stop=())
    [(_, found)] = continuer(sampling=sampling).run([prompt])
    assert found.finish_reason == "length" and size + len(found.ids) == 256


def test_text_is_told_as_it_comes() -> None:
    told: list[str] = []
    [(_, found)] = continuer(on_event=lambda event: told.append(event.text)).run(PROMPTS[:1])
    assert "".join(told) == found.text and len([piece for piece in told if piece]) > 1


def test_every_end_is_told_once_what_is_computed_again_included() -> None:
    told: list[Continuation] = []
    prompts = [*PROMPTS[:20], GivenPrompt("here", {"prompt": "hello " * 300})]
    found = [one for _, one in continuer(on_end=told.append, batch_size=2).run(prompts, 18)]
    assert len(found) == 3 and len(told) == 5 and all(one in told for one in found)


def test_scores_that_are_not_numbers_end_the_run_with_the_place() -> None:
    model = random_model()
    with torch.no_grad():
        model.embed_tokens.weight[:] = torch.nan
    with pytest.raises(UserError, match="here:0: the model cannot go on: its scores are not numbers"):
        list(continuer(model=model).run(PROMPTS))


def test_it_runs_without_what_only_a_server_needs() -> None:
    blocked = ("fastapi", "starlette", "uvicorn", "llguidance")
    code = f"import sys; sys.modules |= dict.fromkeys({blocked}); import minimind.stages.generate.generate"
    environment = {**os.environ, "PYTHONPATH": str(Path(minimind.__file__).parents[1])}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
