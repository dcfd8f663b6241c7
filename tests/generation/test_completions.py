"""Many prompts at once say what each says alone, with the weights and the precision of the moment."""

import math
from dataclasses import replace

import pytest
import torch
from tests.tiny import TOKENIZER, random_model

from minimind.errors import UserError
from minimind.generation.completions import Completion, complete, complete_requests, complete_texts
from minimind.generation.generate import draw_ids, generate
from minimind.generation.request import Request
from minimind.generation.sampling import Sampling
from minimind.text.conversation import Message, parse_answer_ids, render_prompt

MODEL = random_model()
PROMPTS = [[1, 50], [1, *range(60, 90)], [7], [1, 2, 3, 4, 5, 6, 7, 8, 9]]
GREEDY = Sampling(temperature=0, max_tokens=20)
WILD = Sampling(temperature=2.0, top_p=1.0, max_tokens=20)


@pytest.mark.parametrize("sampling", [GREEDY, WILD, replace(WILD, repetition_penalty=1.5, top_k=40, min_p=0.001)])
def test_a_prompt_says_the_same_alone_and_in_a_batch(sampling: Sampling) -> None:
    """And the reference, one token after another, says it, too."""
    stop_ids = range(0, TOKENIZER.vocab_size, 20)  # They end at different times, and others take their place.
    together = complete(MODEL, TOKENIZER, PROMPTS, sampling, stop_ids=stop_ids, batch_size=3)
    for number, (prompt, found) in enumerate(zip(PROMPTS, together, strict=True)):
        alone = [*draw_ids(MODEL, prompt, sampling, stop_ids=stop_ids, number=number, num_ids=TOKENIZER.vocab_size)]
        assert [one.id for one in alone] == found.ids
        assert [one.logprob for one in alone] == pytest.approx(found.logprobs, abs=1e-4)
        assert found.finish_reason == ("stop" if found.ids[-1] in stop_ids else "length")
    assert sampling.temperature == 0 or len({len(completion.ids) for completion in together}) > 1


@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_the_size_of_a_batch_changes_nothing(batch_size: int) -> None:
    whole = complete(MODEL, TOKENIZER, PROMPTS, WILD)
    parts = complete(MODEL, TOKENIZER, PROMPTS, WILD, batch_size=batch_size)
    assert [(c.ids, c.text) for c in parts] == [(c.ids, c.text) for c in whole]


def test_the_same_prompt_says_different_things_unless_its_stream_is_the_same() -> None:
    first, second, third = complete(MODEL, TOKENIZER, [[1, 50]] * 3, WILD, streams=[0, 1, 0])
    assert first.ids == third.ids != second.ids


def test_texts_are_continued_as_the_reference_does_it() -> None:
    texts = ["hello", "", "你好"]
    assert complete_texts(MODEL, TOKENIZER, texts, WILD) == generate(
        MODEL, TOKENIZER, texts, temperature=2.0, top_p=1.0, max_tokens=20
    )
    assert complete_texts(MODEL, TOKENIZER, []) == []


def test_an_answer_ends_with_the_context_or_a_shorter_one_that_is_asked_for() -> None:
    sampling = replace(GREEDY, max_tokens=1000)
    assert [len(one.ids) for one in complete(MODEL, TOKENIZER, [[1] * 250], sampling)] == [6]
    found = complete(MODEL, TOKENIZER, [[1] * 30, [1]], sampling, context=40)
    assert [(len(one.ids), one.finish_reason) for one in found] == [(10, "length"), (39, "length")]


def test_a_prompt_that_cannot_be_continued_is_named_before_any_is() -> None:
    for bad, message in [([1] * 256, "prompt 1: .* 256 tokens"), ([], "prompt 1: .*empty"), ([10**6], "prompt 1: ")]:
        with pytest.raises(UserError, match=message):
            complete(MODEL, TOKENIZER, [[1], bad])


def test_scores_that_are_not_numbers_are_reported() -> None:
    model = random_model()
    model.norm.weight.data.fill_(math.nan)
    with pytest.raises(UserError, match="prompt 0: the model cannot go on: its scores are not numbers"):
        complete(model, TOKENIZER, [[1]], WILD)


def test_ids_that_the_tokenizer_lacks_are_never_drawn() -> None:
    sampling = Sampling(temperature=50.0, top_p=1.0, max_tokens=60)
    completions = complete(MODEL, TOKENIZER, [[1]] * 20, sampling, stop_ids=())
    assert max(max(completion.ids) for completion in completions) < TOKENIZER.vocab_size


def test_the_model_trains_on_as_before() -> None:
    """Packed weights and rounded copies must not find their way into a pass with gradients."""
    model = random_model().train()
    with torch.autocast("cpu", torch.bfloat16):
        complete(model, TOKENIZER, PROMPTS, GREEDY)
        assert model.training
        model(torch.tensor(PROMPTS[:1])).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_the_answer_of_a_chat_is_the_message_that_its_ids_make() -> None:
    prompt = render_prompt([Message("user", "hello")], (), TOKENIZER)
    asked = [Request.for_answer(prompt, TOKENIZER, has_tools=True, sampling=WILD, stream=n) for n in range(12)]
    found = complete_requests(MODEL, TOKENIZER, asked)
    assert all(isinstance(one, Completion) and one.text == "" for one in found)
    for one in found:
        # Special tokens are no text to anybody.
        shown = [index for index in one.ids if index in TOKENIZER.end_ids or TOKENIZER.decode([index], True)]
        assert one.message == parse_answer_ids(shown, TOKENIZER)


def test_without_tools_on_offer_no_mark_of_a_call_is_drawn() -> None:
    sampling = Sampling(temperature=100.0, top_p=1.0, max_tokens=200)
    marks = {TOKENIZER.control("<tool_call>"), TOKENIZER.control("</tool_call>")}

    def said(has_tools: bool) -> set[int]:
        request = Request.for_answer([1], TOKENIZER, has_tools=has_tools, sampling=sampling)
        requests = [replace(request, stream=n, stop_ids=frozenset()) for n in range(8)]
        return {index for one in complete_requests(MODEL, TOKENIZER, requests) for index in one.ids}

    assert marks <= said(True) and not marks & said(False)
