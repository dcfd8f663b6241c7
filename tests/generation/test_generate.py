"""One token after another: what the model says without a cache, streamed or whole, drawn as the settings say."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.tiny import EXPERTS, TOKENIZER, random_model

from minimind.errors import UserError
from minimind.generation.completions import complete
from minimind.generation.generate import draw_ids, generate, stream
from minimind.generation.sampler import Drawn
from minimind.generation.sampling import Sampling, draw, penalise
from minimind.model import Transformer

MODEL = random_model(max_position_embeddings=64)
MIXTURE = random_model(max_position_embeddings=64, **EXPERTS)
PROMPTS = [[1, 50], [1, *range(60, 90)], [7], [1, 2, 3, 4, 5, 6, 7, 8, 9]]
GREEDY = Sampling(temperature=0, max_tokens=20)
WILD = Sampling(temperature=2.0, top_p=1.0, max_tokens=20)


class Scripted(Transformer):
    """A model that says one given id after another, whatever the prompt."""

    def __init__(self, script: list[int]) -> None:
        super().__init__(MODEL.config)
        self.script = script
        self.place = 0

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        scores = torch.zeros(len(states), self.config.vocab_size)
        scores[:, self.script[self.place]] = 50.0
        self.place += 1
        return scores


def drawn(model: Transformer, prompt: Sequence[int], sampling: Sampling, **settings: Any) -> list[Drawn]:
    return list(draw_ids(model, prompt, sampling, **settings))


@torch.no_grad()
def without_cache(model: Transformer, prompt: list[int], steps: int) -> list[int]:
    """Greedy ids, the whole text anew for each."""
    ids = list(prompt)
    for _ in range(steps):
        ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
    return ids[len(prompt) :]


@pytest.mark.parametrize("model", [MODEL, MIXTURE], ids=["dense", "mixture"])
def test_the_cache_changes_nothing(model: Transformer) -> None:
    for prompt in PROMPTS:
        found = drawn(model, prompt, GREEDY)
        assert [one.id for one in found] == without_cache(model, prompt, 20)
        assert {one.logprob for one in found} == {0.0}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("stop", [(), ("a", "好", "lo w")])
def test_streamed_is_whole(seed: int, stop: tuple[str, ...]) -> None:
    """And as the engine has it."""
    sampling = replace(WILD, seed=seed, stop=stop, max_tokens=60)
    prompt = [1, *TOKENIZER.encode("你好 hello")]
    [whole] = complete(MODEL, TOKENIZER, [prompt], sampling)
    pieces = list(stream(MODEL, TOKENIZER, prompt, sampling))
    assert "".join(pieces) == whole.text and "" not in pieces
    assert not any(text in whole.text for text in stop)
    if not stop:
        ids = [index for index in whole.ids if index not in TOKENIZER.end_ids]
        assert whole.text == TOKENIZER.decode(ids, skip_special=True)


def test_the_same_seed_gives_the_same_text_and_another_seed_another() -> None:
    texts = [generate(MODEL, TOKENIZER, "hello", seed=seed, temperature=1.0, max_tokens=30) for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_a_text_gives_a_text_and_a_list_gives_a_list_with_random_numbers_of_their_own() -> None:
    settings = {"temperature": 1.0, "max_tokens": 30, "seed": 3}
    one, second, third = generate(MODEL, TOKENIZER, ["hello", "hello", "你"], **settings)
    assert one == generate(MODEL, TOKENIZER, "hello", **settings) != second and third
    assert generate(MODEL, TOKENIZER, []) == []


@pytest.mark.parametrize("limit", [1, 7])
def test_exactly_max_tokens_are_drawn(limit: int) -> None:
    assert len(drawn(MODEL, PROMPTS[1], replace(GREEDY, max_tokens=limit))) == limit


def test_generation_ends_with_the_context() -> None:
    assert [len(drawn(MODEL, [1] * size, replace(GREEDY, max_tokens=100))) for size in (63, 60)] == [1, 4]


def test_a_prompt_that_does_not_fit_is_refused_with_both_numbers_before_anything_is_drawn() -> None:
    with pytest.raises(UserError, match=r"64 tokens and the context 64, of which the answer needs at least one;"):
        draw_ids(MODEL, [1] * 64)
    with pytest.raises(UserError, match="context 64"):
        stream(MODEL, TOKENIZER, "hello " * 100)


@pytest.mark.parametrize(("prompt", "message"), [([], "is empty"), ([1, 10**6], "ids outside"), ([-1], "ids")])
def test_a_prompt_that_is_no_prompt_is_refused(prompt: list[int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        draw_ids(MODEL, prompt)


def test_a_stop_id_is_told_and_is_no_part_of_the_text() -> None:
    script = [*TOKENIZER.encode("hello"), TOKENIZER.eos_id, 99]
    found = drawn(Scripted(script), [1], GREEDY, stop_ids=TOKENIZER.end_ids)
    assert [one.id for one in found] == script[:-1]
    assert generate(Scripted(script), TOKENIZER, "", temperature=0) == "hello"


def test_a_stop_string_ends_a_text() -> None:
    script = [*TOKENIZER.encode("hello world"), TOKENIZER.eos_id]
    assert "".join(stream(Scripted(script), TOKENIZER, [1], replace(GREEDY, stop=("o w",)))) == "hell"


def test_log_probabilities_are_those_of_the_distribution_sampled_from() -> None:
    sampling = Sampling(temperature=0.7, top_k=5, repetition_penalty=1.3, max_tokens=6)
    ids = [1, 50]
    for one in drawn(MODEL, [1, 50], sampling):
        with torch.no_grad():
            scores = MODEL(torch.tensor([ids]))[:, -1]
        seen = torch.zeros_like(scores, dtype=torch.bool).index_fill_(1, torch.tensor(ids), True)
        filtered = penalise(scores, seen, 1.3)
        draws, logprobs = draw(filtered.expand(2000, -1), sampling, [n / 2000 for n in range(2000)])
        expected = dict(zip(draws.tolist(), logprobs.tolist(), strict=True))
        assert one.logprob == pytest.approx(expected[one.id], abs=1e-4)
        ids.append(one.id)


def test_a_repetition_penalty_counts_ids_and_spares_the_end_of_the_text() -> None:
    prompt, sampling = [1, TOKENIZER.eos_id, 60], Sampling(temperature=1.0, repetition_penalty=100, max_tokens=1)
    [found] = drawn(Scripted([60]), prompt, sampling)
    assert found.id != 60 and found.logprob < -1
    [found] = drawn(Scripted([TOKENIZER.eos_id]), prompt, sampling, stop_ids=[TOKENIZER.eos_id])
    assert found.id == TOKENIZER.eos_id and found.logprob > -0.1


def test_weights_that_are_not_numbers_are_reported() -> None:
    model = random_model()
    model.norm.weight.data.fill_(math.nan)
    for sampling in (GREEDY, WILD, Sampling()):
        with pytest.raises(UserError, match="scores are not numbers"):
            drawn(model, [1], sampling)


def test_the_training_mode_is_as_before() -> None:
    model = random_model().train()
    generate(model, TOKENIZER, "hello", max_tokens=2)
    assert model.training
