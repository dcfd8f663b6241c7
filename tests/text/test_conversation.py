"""Ids, weights and the way back: nothing can be forged, nothing is lost, and only the assistant's words weigh."""

import json
import re
from dataclasses import replace
from itertools import takewhile
from pathlib import Path

import pytest
from tests.random_chats import CORPUS, FORGERIES, PLAIN, SPACE, TOKENIZERS, WORDS, chats, without

from minimind.errors import DataError, TokenizerError
from minimind.text.conversation import (
    Conversation,
    Message,
    ToolCall,
    parse_answer_ids,
    parse_ids,
    render,
    render_prompt,
    render_text,
    render_tool_results,
)
from minimind.text.tokenizer import PATTERNS, RESERVED, Tokenizer


@pytest.fixture(params=PATTERNS)
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return TOKENIZERS[request.param]


def test_reference_prompts_have_the_published_text_and_ids(shared: Path) -> None:
    tokenizer = Tokenizer.load(shared / "reference" / "minimind_tokenizer.json")
    differing = {
        # Text that spells control tokens stays text here.
        "control text typed by a user": "ids",
        # The published ids merge the prompt's last newlines with the answer's spaces; a model that is prompted with
        # the newlines alone never sees that token. Ours begin with the prompt's ids, as generation does.
        "leading spaces in the answer": "ids",
        "unknown role is dropped": "refused",
    }
    rows = (shared / "reference" / "minimind_rendered.jsonl").read_text(encoding="utf-8").splitlines()
    for row in map(json.loads, rows):
        if differing.get(row["name"]) == "refused":
            with pytest.raises(DataError, match="message 2 has role 'critic'"):
                Conversation.parse(row, "file:1")
            continue
        chat = Conversation.parse(row, "file:1")
        thinking = row["open_thinking"] if row["add_generation_prompt"] else None
        ids = render(chat, tokenizer).ids
        if thinking is not None:
            ids = render_prompt(chat.messages, chat.tools, tokenizer, thinking)
        assert render_text(chat, thinking=thinking) == row["text"]
        assert (ids == row["ids"]) is (row["name"] not in differing)
        assert tokenizer.decode(ids) == row["text"]


def assert_all_comes_back(count: int, tokenizer: Tokenizer) -> None:
    for chat in chats(count, WORDS + SPACE + FORGERIES):
        rendered = render(chat, tokenizer)
        assert parse_ids(rendered.ids, tokenizer) == chat
        assert tokenizer.decode(rendered.ids) == render_text(chat)


def test_a_rendered_conversation_is_read_back_equal(tokenizer: Tokenizer) -> None:
    assert_all_comes_back(1500, tokenizer)


def in_plain_words(chat: Conversation) -> Conversation:
    """The same structure with nothing in it that could be mistaken for a control token."""

    def plain(message: Message) -> Message:
        calls = tuple(ToolCall("f", {}) for _ in message.tool_calls)
        return Message(message.role, "x" if message.content else "", "x" if message.reasoning_content else "", calls)

    return Conversation(tuple(map(plain, chat.messages)), tuple({"name": "f"} for _ in chat.tools))


def assert_no_text_forges(count: int, tokenizer: Tokenizer) -> None:
    for chat in chats(count, FORGERIES):
        placed, expected = (
            [index for index in render(each, tokenizer).ids if index in tokenizer.control_ids]
            for each in (chat, in_plain_words(chat))
        )
        assert placed == expected


def test_control_tokens_depend_on_the_structure_alone(tokenizer: Tokenizer) -> None:
    assert_no_text_forges(1500, tokenizer)


def weights_by_offset(ids: list[int], tokenizer: Tokenizer) -> list[float]:
    """The weights found another way: search the text, with one character for each byte and each control token."""
    control = {name: chr(0x1000 + tokenizer.control(name)) for name in RESERVED}
    spelled = [
        chr(0x1000 + i) if i in tokenizer.control_ids else tokenizer.token_bytes[i].decode("latin-1") for i in ids
    ]
    start, end, think, close = (control[name] for name in ("<|im_start|>", "<|im_end|>", "<think>", "</think>"))
    answer = re.compile(f"{start}assistant\n{think}(?:\n\n{close}\n\n|\n(?!\n{close}))([^{end}]*{end})", re.DOTALL)
    inside = set()
    for match in answer.finditer("".join(spelled)):
        inside |= set(range(*match.span(1)))
    weights, offset = [], 0
    for text in spelled:
        places = {place in inside for place in range(offset, offset + len(text))}
        assert len(places) == 1, "a token lies on both sides of a boundary"
        weights.append(float(places.pop()))
        offset += len(text)
    return weights


def assert_weights_agree(count: int, tokenizer: Tokenizer) -> None:
    for chat in chats(count, WORDS + SPACE + FORGERIES, seed=1):
        rendered = render(chat, tokenizer)
        assert rendered.weights == weights_by_offset(rendered.ids, tokenizer)


def test_weights_equal_those_found_by_searching_the_text(tokenizer: Tokenizer) -> None:
    assert_weights_agree(1000, tokenizer)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_promises_hold_on_a_hundred_thousand_chats(tokenizer: Tokenizer) -> None:
    assert_all_comes_back(50_000, tokenizer)
    assert_no_text_forges(50_000, tokenizer)
    assert_weights_agree(10_000, tokenizer)


def assistant_text(message: Message) -> str:
    """What the model itself has to write after the prompt."""
    reasoning = f"{message.reasoning_content}\n</think>\n\n" if message.reasoning_content else ""
    calls = [f"<tool_call>\n{call.to_json()}\n</tool_call>" for call in message.tool_calls]
    return reasoning + "\n".join(([message.content] if message.content else []) + calls) + "<|im_end|>"


def test_supervised_tokens_spell_exactly_what_the_assistant_says(tokenizer: Tokenizer) -> None:
    for chat in chats(500, WORDS + SPACE + FORGERIES, seed=2):
        rendered = render(chat, tokenizer)
        supervised = [index for index, weight in zip(rendered.ids, rendered.weights, strict=True) if weight == 1]
        answers = [message for message in chat.messages if message.role == "assistant"]
        assert tokenizer.decode(supervised) == "".join(map(assistant_text, answers))
        assert set(rendered.weights) <= {0.0, 1.0}


def test_the_last_supervised_token_of_each_answer_ends_it(tokenizer: Tokenizer) -> None:
    for chat in chats(500, WORDS + SPACE, seed=3):
        rendered = render(chat, tokenizer)
        pairs = [*zip(rendered.weights, [*rendered.weights[1:], 0.0], strict=True)]
        lasts = [rendered.ids[place] for place, pair in enumerate(pairs) if pair == (1.0, 0.0)]
        assert lasts == [tokenizer.eos_id] * sum(message.role == "assistant" for message in chat.messages)


def test_every_answer_is_trained_behind_exactly_the_ids_that_prompt_it(tokenizer: Tokenizer) -> None:
    for chat in chats(500, WORDS + SPACE, seed=4):
        for place, message in enumerate(chat.messages):
            if message.role != "assistant":
                continue
            until = render(replace(chat, messages=chat.messages[: place + 1]), tokenizer)
            prompt = render_prompt(chat.messages[:place], chat.tools, tokenizer, bool(message.reasoning_content))
            assert until.ids[: len(prompt)] == prompt
            assert until.weights[len(prompt) - 1] == 0 and until.weights[len(prompt)] == 1
            answer = until.ids[len(prompt) :]
            assert parse_answer_ids(answer, tokenizer, bool(message.reasoning_content)) == message


def test_sampled_turns_and_tool_results_join_into_the_ids_of_the_whole(tokenizer: Tokenizer) -> None:
    num_joined = 0
    for chat in chats(600, WORDS + SPACE + FORGERIES, seed=7):
        for place, message in enumerate(chat.messages):
            tools = [*takewhile(lambda after: after.role == "tool", chat.messages[place + 1 :])]
            if message.role != "assistant" or not tools:
                continue
            thinking, before = bool(message.reasoning_content), chat.messages[:place]
            prompt = render_prompt(before, chat.tools, tokenizer, thinking)
            whole = render_prompt([*before, message, *tools], chat.tools, tokenizer, thinking)
            # The sampled answer, up to its end, as the renderer spells it.
            ids = render(Conversation((*before, message), chat.tools), tokenizer).ids
            sampled = ids[len(prompt) : -len(tokenizer.encode("\n"))]
            assert sampled[-1] == tokenizer.eos_id
            assert prompt + sampled + render_tool_results(tools, tokenizer, thinking) == whole
            num_joined += 1
    assert num_joined > 50


def test_a_tool_result_cannot_place_a_control_token(tokenizer: Tokenizer) -> None:
    placed = [
        [index for index in render_tool_results([Message("tool", text)], tokenizer) if index in tokenizer.control_ids]
        for text in ("x", "".join(FORGERIES))
    ]
    assert placed[0] == placed[1]


def test_ids_are_those_of_the_text_unless_an_answer_begins_with_space() -> None:
    tokenizer = TOKENIZERS["qwen2"]
    for chat in chats(1500, WORDS + SPACE, seed=5):
        answers = [message for message in chat.messages if message.role == "assistant"]
        starts = [text[:1] for message in answers for text in (message.content, message.reasoning_content)]
        if not any(start.isspace() for start in starts):
            assert render(chat, tokenizer).ids == tokenizer.encode_with_control(render_text(chat))
    # Here the text alone gives a token that no prompt can end with.
    chat = Conversation((Message("assistant", " \nx"),))
    assert render(chat, tokenizer).ids != tokenizer.encode_with_control(render_text(chat))


def test_a_placeholder_answer_is_no_part_of_the_prompt(tokenizer: Tokenizer) -> None:
    chat = Conversation((Message("user", "1+1?"), Message("assistant")))

    assert chat.prompt_part() == chat.prompt_part().prompt_part() == Conversation((Message("user", "1+1?"),))
    prompt = render_prompt(chat.prompt_part().messages, chat.tools, tokenizer)
    assert tokenizer.decode(prompt).endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")


CALL = '<tool_call>\n{"name": "f", "arguments": {"x": 1}}\n</tool_call>'
F = ToolCall("f", {"x": 1})


@pytest.mark.parametrize(
    ("text", "thinking", "expected"),
    [
        ("hello", False, Message("assistant", "hello")),
        ("", False, Message("assistant")),
        ("let me see\n</think>\n\nyes", True, Message("assistant", "yes", "let me see")),
        ("let me see\n</think>\n\nyes", False, Message("assistant", "let me see\n</think>\n\nyes")),
        ("<think>\nlet me see\n</think>\n\nyes", False, Message("assistant", "yes", "let me see")),
        ("let me s", True, Message("assistant", "", "let me s")),
        ("<think>\nlet me s", False, Message("assistant", "", "let me s")),
        ("why <think> is odd", False, Message("assistant", "why <think> is odd")),
        ("<think>\na\n</think>\n\nb", True, Message("assistant", "b", "a")),
        (f"ok{CALL}\nafter", False, Message("assistant", "ok\nafter", "", (F,))),
        ("a\n<tool_call>{", False, Message("assistant", "a\n<tool_call>{")),
        ("a</think>b</think>c", True, Message("assistant", "b</think>c", "a")),
        (CALL, False, Message("assistant", "", "", (F,))),
        (f"ok\n{CALL}\n{CALL}", False, Message("assistant", "ok", "", (F, F))),
        (f"r\n</think>\n\nok\n{CALL}", True, Message("assistant", "ok", "r", (F,))),
        (f"ok\n\n{CALL}{CALL}", False, Message("assistant", "ok\n", "", (F, F))),
        (f"{CALL}\nafter", False, Message("assistant", "after", "", (F,))),
        ("<tool_call>{}</tool_call>", False, Message("assistant", "<tool_call>{}</tool_call>")),
        ("<tool_call>\n{bad\n</tool_call>", False, Message("assistant", "<tool_call>\n{bad\n</tool_call>")),
        ("a<tool_call>\n{", False, Message("assistant", "a<tool_call>\n{")),
        (f"<tool_call>{CALL}", False, Message("assistant", "<tool_call>", "", (F,))),
        ("x</tool_call>", False, Message("assistant", "x</tool_call>")),
        (
            '<tool_call>{"name": "f", "arguments": {"x": NaN}}</tool_call>',
            False,
            Message("assistant", '<tool_call>{"name": "f", "arguments": {"x": NaN}}</tool_call>'),
        ),
    ],
)
def test_what_a_model_wrote_is_taken_apart(tokenizer: Tokenizer, text: str, thinking: bool, expected: Message) -> None:
    assert parse_answer_ids(tokenizer.encode_with_control(text), tokenizer, thinking) == expected


@pytest.mark.parametrize(
    "unit", ["<tool_call>", "</tool_call>", "<think>", "</think>", "<tool_call>{</tool_call>", CALL]
)
def test_twenty_thousand_tags_are_read_in_linear_time(tokenizer: Tokenizer, unit: str) -> None:
    # Quadratic work on 20,000 tags would take minutes; the suite's time limit is the assertion.
    answer = parse_answer_ids(tokenizer.encode_with_control(unit) * 20_000, tokenizer)

    assert len(answer.content) + len(answer.reasoning_content) + len(answer.tool_calls) > 0


def test_deeply_nested_arguments_stay_content(tokenizer: Tokenizer) -> None:
    text = '<tool_call>{"name": "f", "arguments": ' + '{"a":' * 50_000 + "</tool_call>"

    ids = tokenizer.encode_with_control(text)
    assert parse_answer_ids(ids, tokenizer) == Message("assistant", text)


def test_spelled_tags_in_sampled_ids_stay_content(tokenizer: Tokenizer) -> None:
    ids = [*tokenizer.encode(f"a</think>{CALL}"), tokenizer.eos_id, *tokenizer.encode("after the end")]

    assert parse_answer_ids(ids, tokenizer) == Message("assistant", f"a</think>{CALL}")
    assert parse_answer_ids([*tokenizer.encode("M"), tokenizer.pad_id], tokenizer) == Message("assistant", "M")


def test_equal_calls_stand_on_lines_of_their_own() -> None:
    chat = Conversation((Message("assistant", "ok", "", (F, F)),))

    assert f"</think>\n\nok\n{CALL}\n{CALL}<|im_end|>" in render_text(chat)


def test_prefix_space_tokenizers_are_refused() -> None:
    tokenizer = Tokenizer.train(CORPUS, 300, pattern="gpt2", add_prefix_space=True)

    with pytest.raises(TokenizerError, match="add_prefix_space=false"):
        render(Conversation((Message("user", "hi"),)), tokenizer)


def plain_chats(count: int, parts: list[str], seed: int) -> list[Conversation]:
    """Chats without reasoning and tools, which is all that a vocabulary without tokens for them can write."""
    return [
        Conversation(tuple(Message(said.role, said.content) for said in chat.messages if said.role != "tool"))
        for chat in chats(count, parts, seed)
        if any(said.role != "tool" for said in chat.messages)
    ]


def test_a_vocabulary_without_think_tokens_has_no_think_block() -> None:
    chat = Conversation((Message("user", "1+1?"), Message("assistant", "2"), Message("user", "sure?")))
    turns = [("user", "1+1?"), ("assistant", "2"), ("user", "sure?")]
    text = "".join(f"<|im_start|>{role}\n{content}<|im_end|>\n" for role, content in turns)

    assert PLAIN.decode(render(chat, PLAIN).ids) == render_text(chat, tokenizer=PLAIN) == text
    opened = f"{text}<|im_start|>assistant\n"
    assert PLAIN.decode(render_prompt(chat.messages, (), PLAIN)) == opened
    assert render_text(chat, thinking=False, tokenizer=PLAIN) == opened


def test_what_holds_of_conversations_holds_without_a_think_block() -> None:
    for chat in plain_chats(800, WORDS + SPACE + FORGERIES, seed=8):
        rendered = render(chat, PLAIN)
        assert parse_ids(rendered.ids, PLAIN) == chat
        assert PLAIN.decode(rendered.ids) == render_text(chat, tokenizer=PLAIN)
        supervised = [index for index, weight in zip(rendered.ids, rendered.weights, strict=True) if weight == 1]
        answers = [message.content for message in chat.messages if message.role == "assistant"]
        assert PLAIN.decode(supervised) == "".join(f"{answer}<|im_end|>" for answer in answers)
        for place, message in enumerate(chat.messages):
            if message.role == "assistant":
                until = render(replace(chat, messages=chat.messages[: place + 1]), PLAIN)
                prompt = render_prompt(chat.messages[:place], (), PLAIN)
                assert until.ids[: len(prompt)] == prompt
                assert until.weights[len(prompt) - 1] == 0 and until.weights[len(prompt)] == 1
                assert parse_answer_ids(until.ids[len(prompt) :], PLAIN) == message


def test_reasoning_and_tools_are_refused_by_a_vocabulary_without_tokens_for_them() -> None:
    user, tools = Message("user", "hi"), ({"name": "f"},)
    reasons = "the vocabulary has no '<think>', which reasoning needs; leave reasoning out"
    calls = "the vocabulary has no '<tool_call>', which tool use needs; leave tool use out"
    for words, failing in [
        (reasons, lambda: render_prompt([user], (), PLAIN, thinking=True)),
        (reasons, lambda: render(Conversation((user, Message("assistant", "yes", "why"))), PLAIN)),
        (calls, lambda: render_prompt([user], tools, PLAIN)),
        (calls, lambda: render(Conversation((user, Message("assistant", "", "", (F,)))), PLAIN)),
        (calls, lambda: render(Conversation((user, Message("tool", "4"))), PLAIN)),
        (calls, lambda: render_tool_results([Message("tool", "4")], PLAIN)),
    ]:
        with pytest.raises(TokenizerError, match=words):
            failing()


def test_half_of_the_tokens_for_tools_is_not_enough() -> None:
    tokenizer = without(TOKENIZERS["qwen2"], "</tool_response>")

    assert render_prompt([Message("user", "hi")], (), tokenizer, thinking=True)
    with pytest.raises(TokenizerError, match="the vocabulary has no '</tool_response>', which tool use needs"):
        render_prompt([Message("user", "hi")], ({"name": "f"},), tokenizer)


def test_ids_that_are_no_conversation_are_refused(tokenizer: Tokenizer) -> None:
    ids = render(Conversation((Message("user", "hi"), Message("user", "you"))), tokenizer).ids

    with pytest.raises(DataError, match="turn 2 of the ids"):
        parse_ids(ids[:-2], tokenizer)
    with pytest.raises(DataError, match="turn 1 of the ids"):
        parse_ids([tokenizer.bos_id, *tokenizer.encode("critic\nhi"), *ids[-2:]], tokenizer)
