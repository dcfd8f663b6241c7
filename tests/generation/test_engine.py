"""What the engine promises: the same text alone and among others, and that of the reference."""

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from minimind.errors import UserError
from minimind.generation.completions import complete
from minimind.generation.engine import Engine
from minimind.generation.generate import draw_ids
from minimind.generation.request import Event, QueueFull, Request
from minimind.generation.sampling import Sampling
from minimind.model import Transformer
from minimind.serve.problems import Problem
from minimind.serve.replies import TextChoice
from minimind.text.answers import AnswerStart, join
from minimind.text.tokenizer import Tokenizer

GREEDY = Sampling(temperature=0, max_tokens=20)
WILD = Sampling(temperature=1.5, top_p=0.95, max_tokens=20, seed=7)


def prompts(count: int, longest: int = 60) -> list[list[int]]:
    chance = random.Random(0)
    return [[1, *(chance.randrange(40, 300) for _ in range(chance.randrange(longest)))] for _ in range(count)]


def answers(engine: Engine, requests: Sequence[Request]) -> list[list[Event]]:
    """The events of each request, all submitted at once."""
    numbers = [engine.submit(request) for request in requests]
    events: dict[int, list[Event]] = defaultdict(list)
    for event in engine.run():
        events[event.request].append(event)
    return [events[number] for number in numbers]


def alone(model: Transformer, request: Request, num_ids: int) -> list[int]:
    """What the reference says."""
    sampling, number = request.sampling, request.stream
    return [one.id for one in draw_ids(model, request.prompt, sampling, number=number, num_ids=num_ids)]


def ids(events: Sequence[Event]) -> list[int]:
    return [event.id for event in events if event.id is not None]


@pytest.mark.parametrize("sampling", [GREEDY, WILD, replace(WILD, repetition_penalty=1.3)])
def test_a_request_says_the_same_alone_and_among_32_others(
    model: Transformer, tokenizer: Tokenizer, sampling: Sampling
) -> None:
    """Five slots for 33 requests, so that they come and go; and the words are those of the reference."""
    asked = [Request(prompt=p, sampling=sampling, stream=n) for n, p in enumerate(prompts(33))]
    together = answers(Engine(model, tokenizer, max_rows=5, prefill_tokens=24), asked)
    for request, events in zip(asked, together, strict=True):
        assert ids(events) == alone(model, request, tokenizer.vocab_size)
    assert all(events[-1].finish_reason == "length" for events in together)


def test_greedy_and_sampled_requests_share_a_step(model: Transformer, tokenizer: Tokenizer) -> None:
    asked = [Request(prompt=p, sampling=(GREEDY, WILD)[n % 2], stream=n) for n, p in enumerate(prompts(9))]
    together = answers(Engine(model, tokenizer), asked)
    for request, events in zip(asked, together, strict=True):
        assert ids(events) == alone(model, request, tokenizer.vocab_size)


def test_stop_ids_and_stop_strings_end_a_text_as_in_generation(model: Transformer, tokenizer: Tokenizer) -> None:
    sampling = replace(WILD, max_tokens=60, stop=("好", "l"))
    stops = frozenset(range(250, 310))
    asked = [Request(prompt=p, sampling=sampling, stream=n, stop_ids=stops) for n, p in enumerate(prompts(12))]
    expected = complete(model, tokenizer, [r.prompt for r in asked], sampling, stop_ids=stops)
    found = answers(Engine(model, tokenizer), asked)
    assert [("".join(e.text for e in events), events[-1].finish_reason) for events in found] == [
        (one.text, one.finish_reason) for one in expected
    ]
    assert {one.finish_reason for one in expected} == {"stop"}


def test_a_second_turn_computes_only_what_is_new(model: Transformer, tokenizer: Tokenizer) -> None:
    engine = Engine(model, tokenizer)
    first = prompts(1, 60)[0] + [50] * 40
    said = ids(answers(engine, [Request(prompt=first, sampling=GREEDY)])[0])
    computed = engine.counters.num_computed
    second = [*first, *said, 60, 61]
    found = ids(answers(engine, [Request(prompt=second, sampling=GREEDY)])[0])
    # The last id that was drawn was never computed.
    assert engine.counters.num_computed - computed == 3 + 19
    assert engine.counters.num_reused == len(second) - 3
    assert found == alone(model, Request(prompt=second, sampling=GREEDY), tokenizer.vocab_size)


def test_a_prompt_in_use_by_another_is_copied(model: Transformer, tokenizer: Tokenizer) -> None:
    engine = Engine(model, tokenizer, max_rows=2, prefill_tokens=64)
    shared = [1, *range(50, 90)]
    engine.submit(Request(prompt=[*shared, 7], sampling=GREEDY))
    engine.step()
    request = Request(prompt=[*shared, 8], sampling=GREEDY)
    found = answers(engine, [request])[0]
    assert engine.counters.num_reused == len(shared)
    assert ids(found) == alone(model, request, tokenizer.vocab_size)


def test_a_long_prompt_does_not_stall_the_others(model: Transformer, tokenizer: Tokenizer) -> None:
    engine = Engine(model, tokenizer, prefill_tokens=16)
    short = engine.submit(Request(prompt=[1, 50], sampling=GREEDY))
    engine.step()
    long = engine.submit(Request(prompt=[1] * 100, sampling=GREEDY))
    steps = [{event.request for event in engine.step()} for _ in range(7)]
    assert steps == [{short}] * 6 + [{short, long}]


def test_cancelled_requests_end_before_the_next_step(model: Transformer, tokenizer: Tokenizer) -> None:
    engine = Engine(model, tokenizer, max_rows=1)
    running, waiting, other = (engine.submit(Request(prompt=[1, 50 + n], sampling=GREEDY)) for n in range(3))
    engine.step()
    engine.cancel(running)
    engine.cancel(waiting)
    events = engine.step()
    assert {(e.request, e.finish_reason) for e in events} == {
        (running, "cancelled"), (waiting, "cancelled"), (other, None)
    }  # fmt: skip
    assert [event.request for event in engine.run()] == [other] * 19
    assert engine.is_idle and engine.slots.num_free == 1
    engine.cancel(running)
    assert engine.step() == []


def test_a_poisoned_request_fails_alone(model: Transformer, tokenizer: Tokenizer) -> None:
    """One id's embedding is not a number: who says it fails, and who gets its slot later does not."""
    with torch.no_grad():
        model.embed_tokens.weight.data = model.embed_tokens.weight.clone()
        model.lm_head = torch.nn.Linear(32, model.config.vocab_size, bias=False)
        model.lm_head.weight.copy_(model.embed_tokens.weight)
        model.embed_tokens.weight[299] = float("nan")
    engine = Engine(model, tokenizer, max_rows=4)
    clean = [Request(prompt=[1, 60 + n, 70], sampling=replace(GREEDY, max_tokens=4)) for n in range(8)]
    found = answers(engine, [*clean[:2], Request(prompt=[1] * 90 + [299], sampling=GREEDY), *clean[2:]])
    assert [events[-1].finish_reason for events in found] == ["length"] * 2 + ["error"] + ["length"] * 6
    assert "not numbers" in found[2][-1].error


def test_a_grammar_that_blows_up_takes_no_other_answer_with_it(model: Transformer, tokenizer: Tokenizer) -> None:
    class Exploding:
        def begin(self) -> "Exploding":
            return self

        def allowed(self) -> None:
            raise RuntimeError("too much work")

    clean = [Request(prompt=[1, 60 + n], sampling=GREEDY) for n in range(4)]
    poisoned = Request(prompt=[1, 50], sampling=GREEDY, guide=Exploding())  # type: ignore[arg-type]
    engine = Engine(model, tokenizer)
    found = answers(engine, [*clean[:2], poisoned, *clean[2:]])
    assert [events[-1].finish_reason for events in found] == ["length"] * 2 + ["error"] + ["length"] * 2
    assert [ids(events) for events in found[:2] + found[3:]] == [ids(events) for events in answers(engine, clean)]
    assert engine.is_idle and engine.slots.num_free == 32


def test_a_form_that_cannot_be_held_is_refused_and_no_error_of_the_server(
    model: Transformer, tokenizer: Tokenizer
) -> None:
    class Endless:
        """In place of a guide whose grammar takes more work than it may, once the second token is drawn."""

        def __init__(self) -> None:
            self.num_accepted = 0

        def begin(self) -> "Endless":
            return Endless()

        def allowed(self) -> None:
            return None

        def accept(self, index: int) -> None:
            self.num_accepted += 1
            if self.num_accepted == 2:
                raise ValueError("the grammar does not go on")

    engine = Engine(model, tokenizer)
    engine.submit(Request(prompt=[1, 50], sampling=GREEDY, guide=Endless()))  # type: ignore[arg-type]
    *_, last = engine.run()
    assert last.finish_reason == "error" and last.is_refused and engine.is_idle
    with pytest.raises(Problem, match=r"the form .* cannot be held: the grammar does not go on") as caught:
        TextChoice(tokenizer, 0, echo=None, num_added=0, has_scores=False).push([last])
    assert caught.value.status == 400


@pytest.mark.parametrize("bound", [{"max_queue": 3}, {"max_queue_tokens": 3 * 21}])
def test_what_waits_is_bounded_and_free_slots_are_no_waiting(
    model: Transformer, tokenizer: Tokenizer, bound: dict[str, int]
) -> None:
    engine, one = Engine(model, tokenizer, max_rows=2, **bound), Request(prompt=[1], sampling=GREEDY)
    engine.require_room([one] * 5)
    with pytest.raises(UserError, match=r"6 answers at once .* these would be 4 with 84;"):
        engine.require_room([one] * 6)
    for num_steps in (0, 1):
        for _ in range(5):
            engine.submit(one)
        for _ in range(num_steps):
            engine.step()
        with pytest.raises(QueueFull, match="3 requests with 63 tokens wait already"):
            engine.submit(one)
        assert len(list(engine.run())) == 5 * 20 - 2 * num_steps


def test_a_request_may_wait_however_long_it_is(model: Transformer, tokenizer: Tokenizer) -> None:
    engine, long = Engine(model, tokenizer, max_rows=1, max_queue_tokens=10), Request(prompt=[1], sampling=GREEDY)
    engine.require_room([long] * 2)
    assert engine.submit(long) != engine.submit(long)
    with pytest.raises(QueueFull):
        engine.submit(long)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (Request(prompt=[]), "empty"),
        (Request(prompt=[1] * 256), "256 tokens and the context 256"),
        (Request(prompt=[310]), "outside 0..309"),
        (Request(prompt=[1], logit_bias={400: 1.0}), "logit_bias"),
    ],
)
def test_wrong_requests_are_refused(model: Transformer, tokenizer: Tokenizer, request_: Request, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Engine(model, tokenizer).submit(request_)


def test_an_answer_ends_with_the_context(model: Transformer, tokenizer: Tokenizer) -> None:
    engine = Engine(model, tokenizer, capacity=40)
    [events] = answers(engine, [Request(prompt=[1] * 35, sampling=GREEDY)])
    assert (len(ids(events)), events[-1].finish_reason) == (5, "length")


def test_scores_are_the_models_own_whatever_the_settings(model: Transformer, tokenizer: Tokenizer) -> None:
    prompt = [1, *range(60, 100)]
    request = Request(prompt=prompt, sampling=WILD, num_top=3, score_prompt=True)
    [events] = answers(Engine(model, tokenizer, prefill_tokens=7), [request])
    scores = [score for event in events for score in event.scores]
    text = [*prompt, *ids(events)]
    with torch.no_grad():
        expected = model(torch.tensor([text]))[0, :, : tokenizer.vocab_size].log_softmax(-1)
    assert [score.id for score in scores] == text
    assert scores[0].logprob is None
    for place, score in enumerate(scores[1:]):
        assert score.logprob == pytest.approx(float(expected[place, score.id]), abs=1e-4)
        assert [index for index, _ in score.top] == expected[place].topk(3).indices.tolist()


def test_a_prompt_can_be_scored_and_not_continued(model: Transformer, tokenizer: Tokenizer) -> None:
    asked = [Request(prompt=p, num_top=0, score_prompt=True, prompt_only=True) for p in ([1], [1, 50], [1] * 256)]
    for request, events in zip(asked, answers(Engine(model, tokenizer), asked), strict=True):
        assert [(event.id, event.finish_reason) for event in events] == [(None, "length")]
        assert [score.id for score in events[0].scores] == list(request.prompt)


def test_biases_and_penalties_change_what_is_said(model: Transformer, tokenizer: Tokenizer) -> None:
    def said(**settings: Any) -> list[int]:
        return ids(answers(Engine(model, tokenizer), [Request(prompt=[1, 50], sampling=GREEDY, **settings)])[0])

    plain = said()
    assert said(logit_bias={77: 1000.0}) == [77] * 20
    assert plain[0] not in said(logit_bias={plain[0]: -1000.0})
    assert len(set(said(presence_penalty=1000.0))) == 20
    assert len(set(said(frequency_penalty=1000.0))) == 20


def test_marks_are_told_apart_from_text_that_spells_them(model: Transformer, tokenizer: Tokenizer) -> None:
    mark = tokenizer.control("</think>")
    request = Request(prompt=[1, 50], sampling=GREEDY, answer=AnswerStart.of(tokenizer), logit_bias={mark: 1000.0})
    [events] = answers(Engine(model, tokenizer), [request])
    assert [(delta.text, delta.hidden) for event in events for delta in event.deltas] == [("", "</think>")] * 20


def test_who_cancels_an_answer_is_told_what_was_held_back(model: Transformer, tokenizer: Tokenizer) -> None:
    hello = tokenizer.encode("hello")
    sampling = Sampling(temperature=0, stop=("hellos",))
    engine = Engine(model, tokenizer)
    request = Request(prompt=[1], sampling=sampling, answer=AnswerStart.of(tokenizer), logit_bias={hello[0]: 1000.0})
    number = engine.submit(request)
    told = engine.step()
    engine.cancel(number)
    told += engine.run()
    assert join(delta for event in told for delta in event.deltas).content == tokenizer.decode(hello[:1])


def test_the_engine_survives_a_pass_that_fails(
    model: Transformer, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(model, tokenizer)
    number = engine.submit(Request(prompt=[1], sampling=GREEDY))
    good = engine._forward
    engine._forward = lambda chunks: 1 / 0  # type: ignore[assignment]
    events = engine.step()
    assert [(e.request, e.finish_reason) for e in events] == [(number, "error")]
    assert "ZeroDivisionError" in events[0].error
    engine._forward = good
    assert answers(engine, [Request(prompt=[1], sampling=GREEDY)])[0][-1].finish_reason == "length"
