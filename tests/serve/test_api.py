"""OpenAI's own client talks to the server: whole, streamed and asynchronous answers are one; errors are its errors."""

import asyncio
import json
import math
import urllib.request
from collections.abc import Iterator
from typing import Any

import openai
import pytest
import torch
from tests.serve.tiny_server import Running, listen, make_service, wait_for
from tests.tiny import TOKENIZER, random_model

from minimind.evals.log_likelihood import ScoreRequest as EvalRequest
from minimind.evals.log_likelihood import log_likelihoods
from minimind.generation.generate import draw_ids
from minimind.generation.sampling import Sampling
from minimind.text.tokenizer import Tokenizer

HELLO: list[Any] = [{"role": "user", "content": "hello there"}]
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {"name": "add", "description": "Add", "parameters": {"type": "object"}},
}
NAMED = {"type": "function", "function": {"name": "add"}}
CALL = '<tool_call>\n{"name": "add", "arguments": {"x": 1, "y": "你"}}\n</tool_call>'

# Settings under which a seeded answer must be one and the same, however it is asked for.
SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "greedy": {"temperature": 0},
    "warm": {"temperature": 1.7, "top_p": 0.8},
    "top_p of 0": {"top_p": 0},
    "max_tokens": {"max_tokens": 3},
    "max_completion_tokens": {"max_completion_tokens": 5},
    "stop string": {"stop": "o"},
    "stop strings": {"stop": ["l", "好", "h"]},
    "penalties": {"presence_penalty": 1.5, "frequency_penalty": -0.5},
    "logit bias": {"logit_bias": {"50": 5, "60": -100}},
    "logprobs": {"logprobs": True},
    "top logprobs": {"logprobs": True, "top_logprobs": 4},
    "three choices": {"n": 3},
    "three choices with stops": {"n": 3, "stop": ["l"], "logprobs": True},
    "two turns": {"messages": [*HELLO, {"role": "assistant", "content": "hello"}, *HELLO]},
    "system": {"messages": [{"role": "system", "content": "你好"}, *HELLO]},
    "developer": {"messages": [{"role": "developer", "content": "你好"}, *HELLO]},
    "parts": {"messages": [{"role": "user", "content": [{"type": "text", "text": "hello"}]}]},
    "tool result": {
        "messages": [
            *HELLO,
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "1", "type": "function", "function": {"name": "add", "arguments": "{}"}}],
            },
            {"role": "tool", "tool_call_id": "1", "content": "3"},
        ]
    },
    "reasoning given back": {"messages": [*HELLO, {"role": "assistant", "content": "a", "reasoning": "b"}, *HELLO]},
    "tools": {"tools": [TOOL]},
    "no tool choice": {"tools": [TOOL], "tool_choice": "none"},
    "thinking": {"extra_body": {"chat_template_kwargs": {"enable_thinking": True}}},
    "field's settings": {"extra_body": {"top_k": 5, "min_p": 0.1, "repetition_penalty": 1.2}},
    "ignored fields": {"user": "a", "metadata": {"a": "b"}, "store": False, "response_format": {"type": "text"}},
}


def asked(settings: dict[str, Any]) -> dict[str, Any]:
    return {"model": "tiny", "messages": HELLO, "seed": 11, **settings}


@pytest.fixture(scope="module")
def client(running: Running) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0, timeout=30) as client:
        yield client


def joined(chunks: list[Any]) -> list[dict[str, Any]]:
    """What a stream says of each choice, put together; the order of its chunks is checked on the way."""
    found: dict[int, dict[str, Any]] = {}
    for choice in (choice for chunk in chunks for choice in chunk.choices):
        first = choice.index not in found
        one = found.setdefault(choice.index, {"content": "", "reasoning": "", "calls": {}, "scores": [], "end": None})
        assert (choice.delta.role == "assistant") == first and one["end"] is None
        one["content"] += choice.delta.content or ""
        extra = choice.delta.model_extra or {}
        assert extra.get("reasoning") == extra.get("reasoning_content")
        one["reasoning"] += extra.get("reasoning") or ""
        for call in choice.delta.tool_calls or ():
            known = one["calls"].setdefault(call.index, {"id": call.id, "name": call.function.name, "arguments": ""})
            assert (call.id is None) == (known["arguments"] != "" or call.function.name is None)
            known["arguments"] += call.function.arguments or ""
        one["scores"] += [s.model_dump() for s in (choice.logprobs.content if choice.logprobs else ())]
        one["end"] = choice.finish_reason
    return [found[index] for index in sorted(found)]


def whole(reply: Any) -> list[dict[str, Any]]:
    return [
        {
            "content": choice.message.content or "",
            "reasoning": (choice.message.model_extra or {}).get("reasoning_content", ""),
            "calls": {
                n: {"id": None, "name": call.function.name, "arguments": call.function.arguments}
                for n, call in enumerate(choice.message.tool_calls or ())
            },
            "scores": [score.model_dump() for score in (choice.logprobs.content if choice.logprobs else ())],
            "end": choice.finish_reason,
        }
        for choice in reply.choices
    ]


def is_same(one: Any, other: Any) -> bool:
    """Equal, but for the last digits of log-probabilities: other work beside it may change the order of sums."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(is_same(value, other[name]) for name, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(is_same, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=0, abs_tol=1e-4)
    return one == other


def without_ids(choices: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**choice, "calls": {n: {**call, "id": None} for n, call in choice["calls"].items()}} for choice in choices]


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("way", ["stream", "async", "async stream"])
def test_an_answer_is_one_however_it_is_asked_for(client: openai.OpenAI, running: Running, name: str, way: str) -> None:
    settings = asked(SETTINGS[name])
    expected = client.chat.completions.create(**settings)
    counted = expected.usage
    assert counted.total_tokens == counted.prompt_tokens + counted.completion_tokens

    async def other_way() -> list[dict[str, Any]]:
        async with openai.AsyncOpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0) as other:
            if way == "async":
                return whole(await other.chat.completions.create(**settings))
            stream = await other.chat.completions.create(**settings, stream=True)
            return joined([chunk async for chunk in stream])

    if way == "stream":
        chunks = list(client.chat.completions.create(**settings, stream=True, stream_options={"include_usage": True}))
        assert chunks[-1].choices == [] and chunks[-1].usage == counted
        assert all(chunk.usage is None and chunk.choices for chunk in chunks[:-1])
        found = joined(chunks)
    else:
        found = asyncio.run(other_way())
    assert is_same(without_ids(found), whole(expected)), (found, expected)
    assert len(found) == settings.get("n", 1)
    assert sum(len(one["scores"]) for one in found) == (counted.completion_tokens if "logprobs" in settings else 0)


def test_the_answer_is_the_engines_and_the_models(
    client: openai.OpenAI, running: Running, tokenizer: Tokenizer
) -> None:
    reply = client.completions.create(model="tiny", prompt=[1, 50, 60], max_tokens=20, seed=3, temperature=1, top_p=1)
    engine = running.service.runner.engines["tiny"]
    assert reply.usage.prompt_tokens == 3 and engine.capacity == 1024
    sampling = Sampling(temperature=1.0, top_p=1.0, max_tokens=20, seed=3)
    ends, num_ids = (tokenizer.eos_id, 0), tokenizer.vocab_size
    alone = [one.id for one in draw_ids(random_model(), [1, 50, 60], sampling, stop_ids=ends, num_ids=num_ids)]
    assert reply.choices[0].text == tokenizer.decode([i for i in alone if i not in ends], skip_special=True)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("said", "settings", "expected"),
    [
        ("hello" + "\n" + CALL, {"tools": [TOOL]}, ("hello", "", 1, "tool_calls")),
        (CALL + "\n" + CALL, {"tools": [TOOL]}, ("", "", 2, "tool_calls")),
        # Without tools on offer the mark cannot be drawn, and the next likeliest id here is an end.
        (CALL, {}, ("", "", 0, "stop")),
        (CALL, {"tools": [TOOL], "tool_choice": "none"}, ("", "", 0, "stop")),
        ("a </tool_call> b", {"tools": [TOOL]}, ("a  b", "", 0, "stop")),
        (CALL.partition('"arguments":')[2], {"tools": [TOOL], "tool_choice": NAMED}, ("", "", 1, "tool_calls")),
        (CALL.partition('"name":')[2], {"tools": [TOOL], "tool_choice": "required"}, ("", "", 1, "tool_calls")),
        ("a b\n</think>\n\nhello", {"extra_body": {"chat_template_kwargs": {"enable_thinking": True}}},
         ("hello", "a b", 0, "stop")),
        ("hello\n\nworld\n", {}, ("hello\n\nworld\n", "", 0, "stop")),
        ("hello", {"stop": ["ll"]}, ("he", "", 0, "stop")),
    ],
)  # fmt: skip
def test_calls_and_reasoning_are_told_apart(
    client: openai.OpenAI, running: Running, said: str, settings: dict[str, Any], expected: tuple, stream: bool
) -> None:
    running.say(said)
    given = {"model": "scripted", "messages": HELLO, "max_tokens": 200, "temperature": 0, **settings}
    reply = client.chat.completions.create(**given, stream=stream)
    [one] = joined(list(reply)) if stream else whole(reply)
    content, reasoning, num_calls, end = expected
    assert (one["content"], one["reasoning"], len(one["calls"]), one["end"]) == (content, reasoning, num_calls, end)
    for call in one["calls"].values():
        assert call["name"] == "add" and json.loads(call["arguments"]) == {"x": 1, "y": "你"}


def only(name: str, values: list[Any]) -> dict[str, Any]:
    """The schema of an object with this one field."""
    field = {"type": "object", "properties": {name: {"enum": values}}}
    return field | {"required": [name], "additionalProperties": False}


@pytest.mark.parametrize("choice", ["required", NAMED])
@pytest.mark.parametrize("seed", range(3))
def test_a_model_that_babbles_still_calls_tools_in_their_form(client: openai.OpenAI, choice: Any, seed: int) -> None:
    parameters = {
        "type": "object",
        "properties": {"x": {"enum": [1, 2]}},
        "required": ["x"],
        "additionalProperties": False,
    }
    tool = {"type": "function", "function": {"name": "add", "parameters": parameters}}
    given = asked({"tools": [tool], "tool_choice": choice, "seed": seed, "max_tokens": 200, "temperature": 2})
    reply = client.chat.completions.create(**given).choices[0]
    [call] = reply.message.tool_calls
    assert call.function.name == "add" and json.loads(call.function.arguments)["x"] in (1, 2)
    assert reply.finish_reason == "tool_calls" and reply.message.content is None


@pytest.mark.parametrize("thinking", [False, True])
def test_a_model_that_babbles_still_answers_in_json(client: openai.OpenAI, thinking: bool) -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"enum": ["x", "y"]}},
        "required": ["a"],
        "additionalProperties": False,
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "s", "schema": schema}}
    close = {"extra_body": {"chat_template_kwargs": {"enable_thinking": True}}, "logit_bias": {"26": 100}}
    settings = asked({"response_format": wanted, "max_tokens": 100, **(close if thinking else {})})
    reply = client.chat.completions.create(**settings).choices[0]
    assert json.loads(reply.message.content)["a"] in ("x", "y") and reply.finish_reason == "stop"


def test_a_prompt_of_ids_is_scored_as_evaluations_need_it(
    client: openai.OpenAI, model: torch.nn.Module, tokenizer: Tokenizer
) -> None:
    """Two prompts at once, echoed and not continued; and what a string would be, but without its BOS."""
    prompts = [[1, *tokenizer.encode("hello 你好")], [1, 60, 70]]
    reply = client.completions.create(model="tiny", prompt=prompts, echo=True, max_tokens=0, logprobs=1)
    for prompt, choice in zip(prompts, reply.choices, strict=True):
        with torch.no_grad():
            logprobs = model(torch.tensor([prompt]))[0, :, : tokenizer.vocab_size].log_softmax(-1)
        scores = choice.logprobs
        assert scores.token_logprobs[0] is None and scores.top_logprobs[0] is None
        expected = [float(logprobs[place, index]) for place, index in enumerate(prompt[1:])]
        assert scores.token_logprobs[1:] == pytest.approx(expected, abs=1e-4)
        assert [max(top.values()) for top in scores.top_logprobs[1:]] == pytest.approx(
            logprobs[:-1].max(-1).values.tolist(), abs=1e-4
        )
        assert choice.text == tokenizer.decode(prompt) and len(scores.tokens) == len(prompt)
    text = client.completions.create(model="tiny", prompt="hello 你好", echo=True, max_tokens=1, logprobs=0)
    assert text.choices[0].text.startswith("hello 你好")
    assert text.choices[0].logprobs.token_logprobs[:-1] == pytest.approx(
        reply.choices[0].logprobs.token_logprobs[1:], abs=1e-4
    )
    assert text.choices[0].logprobs.text_offset[0] == 0


def test_what_lm_eval_sends_is_scored_as_our_own_evaluation_scores_it(client: openai.OpenAI) -> None:
    """Its local-completions asks for one token more than it scores, and leaves out the last one that it is told."""
    # The server scores among the tokenizer's ids alone, so the rows that this model has beyond them are left out.
    weights = random_model().state_dict()
    weights["embed_tokens.weight"] = weights["embed_tokens.weight"][: TOKENIZER.vocab_size]
    model = random_model(vocab_size=TOKENIZER.vocab_size)
    model.load_state_dict(weights)
    prompts = torch.randint(36, 310, (2000, 5), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        drawn = model(prompts)[:, -1, : TOKENIZER.vocab_size].argmax(-1)
    # Where EOS is drawn, too, it has to be told: else the last token of the continuation would be left out.
    ends = prompts[drawn == TOKENIZER.eos_id][0].tolist()
    requests = [EvalRequest((1,), (60, 70, 80)), EvalRequest(tuple(ends[:2]), tuple(ends[2:]))]
    ids = [[*request.context, *request.ids] for request in requests]
    settings = {"temperature": 0, "max_tokens": 1, "logprobs": 1, "seed": 1234, "echo": True}
    choices = client.completions.create(model="tiny", prompt=ids, **settings).choices
    for request, choice, expected in zip(requests, choices, log_likelihoods(model, requests), strict=True):
        told, tops = choice.logprobs.token_logprobs, choice.logprobs.top_logprobs
        place = len(request.context)
        assert sum(told[place:-1]) == pytest.approx(expected.nats, abs=1e-4) and len(told[place:-1]) == 3
        assert all(value <= max(top.values()) for value, top in zip(told[place:], tops[place:], strict=True))


@pytest.mark.parametrize("settings", [{}, {"n": 2}, {"echo": True}, {"echo": True, "logprobs": 2}, {"stop": "l"}])
@pytest.mark.parametrize("prompt", ["hello", ["hello", "你好"], [1, 50], [[1, 50], [1, 51]]])
def test_streamed_completions_are_the_whole_ones(client: openai.OpenAI, prompt: Any, settings: dict[str, Any]) -> None:
    given = {"model": "tiny", "prompt": prompt, "seed": 5, "max_tokens": 9, **settings}
    expected = client.completions.create(**given)
    parts: dict[int, list[Any]] = {}
    for chunk in client.completions.create(**given, stream=True):
        for choice in chunk.choices:
            parts.setdefault(choice.index, []).append(choice)
    assert len(parts) == len(expected.choices)
    for choice in expected.choices:
        mine = parts[choice.index]
        assert "".join(part.text for part in mine) == choice.text
        assert mine[-1].finish_reason == choice.finish_reason and all(p.finish_reason is None for p in mine[:-1])
        if choice.logprobs:
            assert [s for p in mine for s in p.logprobs.token_logprobs] == choice.logprobs.token_logprobs


WRONG: list[tuple[dict[str, Any], type[openai.APIStatusError], str]] = [
    ({"model": "other"}, openai.NotFoundError, "no such model"),
    ({"messages": []}, openai.BadRequestError, "messages"),
    ({"messages": [{"role": "robot", "content": "a"}]}, openai.BadRequestError, "role"),
    ({"messages": [{"role": "user", "content": 7}]}, openai.BadRequestError, "content"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, openai.BadRequestError, "image_url"),
    ({"messages": [{"role": "user", "content": "你" * 3000}]}, openai.BadRequestError, "1024 tokens: the prompt"),
    ({"temperature": -1}, openai.BadRequestError, "temperature"),
    ({"temperature": 3}, openai.BadRequestError, "temperature"),
    ({"top_p": 2}, openai.BadRequestError, "top_p"),
    ({"n": 0}, openai.BadRequestError, "n"),
    ({"n": 100}, openai.BadRequestError, "n"),
    ({"max_tokens": 0}, openai.BadRequestError, "max_tokens"),
    ({"seed": 2**70}, openai.BadRequestError, "seed"),
    ({"stop": [""]}, openai.BadRequestError, "stop"),
    ({"stop": ["a"] * 40}, openai.BadRequestError, "stop"),
    ({"stop": "a" * 400}, openai.BadRequestError, "stop"),
    ({"logit_bias": {"hello": 1}}, openai.BadRequestError, "logit_bias"),
    ({"logit_bias": {"400": 1}}, openai.BadRequestError, "logit_bias"),
    ({"logit_bias": {"5": 1000}}, openai.BadRequestError, "logit_bias"),
    ({"presence_penalty": 9}, openai.BadRequestError, "presence_penalty"),
    ({"top_logprobs": 3}, openai.BadRequestError, "logprobs"),
    ({"logprobs": True, "top_logprobs": 90}, openai.BadRequestError, "top_logprobs"),
    ({"response_format": {"type": "yaml"}}, openai.BadRequestError, "response_format"),
    ({"response_format": {"type": "json_schema"}}, openai.BadRequestError, "json_schema is missing"),
    ({"tool_choice": "required"}, openai.BadRequestError, "tool_choice needs tools"),
    (
        {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "b"}}},
        openai.BadRequestError,
        "names",
    ),
    ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, openai.BadRequestError, "name"),
    ({"extra_body": {"functions": [{"name": "f"}]}}, openai.BadRequestError, "functions: is not supported"),
    ({"extra_body": {"top_k": -5}}, openai.BadRequestError, "top_k"),
    ({"extra_body": {"repetition_penalty": 0}}, openai.BadRequestError, "repetition_penalty"),
    ({"extra_body": {"repetition_penalty": 5e-324}}, openai.BadRequestError, "repetition_penalty"),
]


@pytest.mark.parametrize(("settings", "kind", "message"), WRONG)
@pytest.mark.parametrize("way", ["whole", "stream", "async stream"])
def test_wrong_requests_raise_openais_errors(
    client: openai.OpenAI,
    running: Running,
    settings: dict[str, Any],
    kind: type[openai.APIStatusError],
    message: str,
    way: str,
) -> None:
    async def ask() -> None:
        async with openai.AsyncOpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0) as other:
            await other.chat.completions.create(**asked(settings), stream=True)

    with pytest.raises(kind, match=message) as caught:
        if way == "async stream":
            asyncio.run(ask())
        else:
            client.chat.completions.create(**asked(settings), stream=way == "stream")
    assert set(caught.value.body) == {"message", "type", "param", "code"}


def test_models_health_and_metrics_are_told(client: openai.OpenAI, running: Running) -> None:
    assert [model.id for model in client.models.list()] == ["tiny", "scripted"]
    assert client.models.retrieve("tiny").id == "tiny"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("other")
    with urllib.request.urlopen(f"{running.url}/health") as reply:
        assert json.load(reply) == {"status": "ok"}
    with urllib.request.urlopen(f"{running.url}/metrics") as reply:
        assert 'minimind_generated_tokens_total{model="tiny"}' in reply.read().decode()


def test_a_full_queue_is_429_and_what_no_empty_one_could_take_is_400() -> None:
    with listen(make_service(max_rows=1, max_queue=2)) as server:
        with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
            three = asked({"n": 3, "max_tokens": 900, "logit_bias": {"2": -100, "0": -100}})
            running = client.chat.completions.create(**three, stream=True)
            with running, pytest.raises(openai.RateLimitError, match="try again later"):
                client.chat.completions.create(**asked({}))
            wait_for(lambda: server.service.runner.engines["tiny"].is_idle)
            assert len(client.chat.completions.create(**asked({"n": 3})).choices) == 3
            with pytest.raises(openai.BadRequestError, match="of those beyond 1 at most 2 may wait"):
                client.chat.completions.create(**asked({"n": 4}))
        assert server.service.runner.num_open == 0


def test_an_answer_that_fails_is_an_error_and_the_next_one_is_none(client: openai.OpenAI, running: Running) -> None:
    running.say("hello")
    engine = running.service.runner.engines["scripted"]
    engine._forward.logits = lambda states: torch.full((len(states), 310), float("nan"))  # type: ignore[method-assign]
    given: dict[str, Any] = {"model": "scripted", "messages": HELLO}
    with pytest.raises(openai.InternalServerError, match="cannot go on"):
        client.chat.completions.create(**given)
    with pytest.raises(openai.APIError, match="cannot go on"):
        list(client.chat.completions.create(**given, stream=True))
    running.say("hello")
    assert client.chat.completions.create(**given).choices[0].message.content == "hello"
