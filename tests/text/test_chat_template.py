"""The exported Jinja template renders the text that this package encodes, whatever engine runs it."""

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pytest
from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from minimind.errors import TokenizerError
from minimind.text.chat_template import THINK_MARKS, TOOL_MARKS, chat_template, is_ours, marked_template
from minimind.text.conversation import Conversation, Message, ToolCall, render, render_prompt, render_text
from minimind.text.tokenizer import RESERVED, Tokenizer

PARTS = [
    *RESERVED[:3],
    "</think>",
    "<think>",
    "<tool_call>",
    "\n",
    "\n\n",
    " ",
    "你好",
    "'",
    '"',
    "\\n",
    "{{ x }}",
    "{% if %}",
    "<b>&",
]


def fail(message: str) -> NoReturn:
    raise TemplateError(message)


def to_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def environment(**settings: bool) -> ImmutableSandboxedEnvironment:
    """What engines run chat templates in: a sandbox whose `tojson` leaves HTML characters alone."""
    jinja = ImmutableSandboxedEnvironment(**settings)
    jinja.filters["tojson"] = to_json
    jinja.globals["raise_exception"] = fail
    return jinja


TEMPLATE = environment(trim_blocks=True, lstrip_blocks=True).from_string(chat_template())


def random_chat(seed: int) -> Conversation:
    generator = random.Random(seed)

    def text() -> str:
        return "".join(generator.choices(PARTS, k=generator.randrange(5)))

    def message() -> Message:
        role = generator.choice(["system", "user", "assistant", "assistant", "tool", "tool"])
        if role != "assistant":
            return Message(role, text())
        calls = tuple(ToolCall("f" + text(), {text(): [text(), 1.5, None]}) for _ in range(generator.choice([0, 1, 2])))
        return Message(role, text(), text(), calls)

    tools = tuple({"name": text()} for _ in range(generator.choice([0, 2])))
    return Conversation(tuple(message() for _ in range(generator.randrange(1, 6))), tools)


@pytest.mark.parametrize("thinking", [None, False, True])
def test_template_renders_what_we_encode(thinking: bool | None) -> None:
    for seed in range(400):
        chat = random_chat(seed)
        text = TEMPLATE.render(**chat.to_dict(), add_generation_prompt=thinking is not None, enable_thinking=thinking)
        assert text == render_text(chat, thinking=thinking)


def test_template_renders_the_same_in_an_environment_without_trimming() -> None:
    plain = environment().from_string(chat_template())
    for seed in range(100):
        chat = random_chat(seed)
        assert plain.render(**chat.to_dict()) == render_text(chat)


def test_template_renders_the_published_prompts(shared: Path) -> None:
    lines = (shared / "reference" / "minimind_rendered.jsonl").read_text(encoding="utf-8").splitlines()
    for row in map(json.loads, lines):
        if row["name"] == "unknown role is dropped":
            with pytest.raises(TemplateError, match="unknown role critic"):
                TEMPLATE.render(**row)
        else:
            assert TEMPLATE.render(**row) == row["text"]


def test_template_reads_what_openai_clients_send() -> None:
    row = {
        "messages": [
            {"role": "developer", "content": [{"type": "text", "text": "s"}]},
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"function": {"name": "f", "arguments": '{"x": 1}'}}],
            },
            {"role": "tool", "content": "t", "tool_call_id": "1"},
            {"role": "assistant", "content": " <think>r</think>\na"},
            {"role": "assistant", "content": "a", "reasoning": "r"},
        ],
        "tools": [{"type": "function", "function": {"name": "f"}}],
    }

    assert TEMPLATE.render(**row) == render_text(Conversation.parse(row, "row:1"))


ARGUMENTS = [
    *({}, {"x": 1}, {"s": "你 <b>&'\"\\n", "f": [1.5, None, True, {"a": {}}]}, None),
    *(
        "",
        " \n",
        "null",
        "{}",
        "{ }",
        '{"x": 1}',
        '{"x":1}',
        ' {"x":1}\n',
        '{\n  "x": [1,2]\n}',
        '{"s": "\\u4f60", "s":1e5}',
    ),
]
BROKEN = ['{"x": ', "no JSON", "[1,2]", [1, 2], '""', "3", 4, False, "é", ["é"]]


def with_call(arguments: Any) -> dict[str, Any]:
    call = {"type": "function", "function": {"name": "f", "arguments": arguments}}
    answer = {"role": "assistant", "content": "a", "reasoning_content": "", "tool_calls": [call]}
    return {"messages": [{"role": "user", "content": "q"}, answer]}


@pytest.mark.parametrize("given", [*ARGUMENTS, *BROKEN])
def test_arguments_are_read_as_we_read_them_however_they_are_spelled(given: Any) -> None:
    row = with_call(given)
    chat = Conversation.parse(row, "row:1", is_past=given in BROKEN)

    assert TEMPLATE.render(**row) == render_text(chat) == TEMPLATE.render(**chat.to_dict())


def test_arguments_given_without_a_key_are_none() -> None:
    row = with_call(None)
    del row["messages"][1]["tool_calls"][0]["function"]["arguments"]

    assert TEMPLATE.render(**row) == render_text(Conversation.parse(row, "row:1"))


def test_a_tool_result_that_is_an_object_is_json() -> None:
    for result in ({}, {"温度": 21, "b": [None, "<b>&'"]}, "text", [{"type": "text", "text": "part"}]):
        row = {"messages": [{"role": "user", "content": "q"}, {"role": "tool", "content": result}]}
        assert TEMPLATE.render(**row) == render_text(Conversation.parse(row, "row:1"))


@pytest.mark.parametrize(
    ("content", "is_reasoning"),
    [
        *(("<think>r</think>a", True), ("r</think>a", True), ("r\n</think>\n\na", True), ("r </think>\na", True)),
        *((" \n<think>\nr\n</think> a </think>b", True), ("</think>a", True), ("<think>`</think>`", True)),
        *(("write </think> last", False), ("`</think>` ends it", False), ('say "</think>"', False)),
        *(("'</think>'", False), ("first <think>, then</think>\n", False), ("it is </think>", False)),
    ],
)
def test_a_closing_tag_that_is_only_mentioned_splits_no_answer(content: str, is_reasoning: bool) -> None:
    row = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": content}]}
    chat = Conversation.parse(row, "row:1")

    assert TEMPLATE.render(**row) == render_text(chat)
    assert (chat.messages[1].content != content) == is_reasoning


def test_thinking_has_two_names_and_is_off_by_default() -> None:
    messages = [{"role": "user", "content": "q"}]
    off, on = (
        render_text(Conversation.parse({"messages": messages}, "row:1"), thinking=value) for value in (False, True)
    )

    prompts = [
        TEMPLATE.render(messages=messages, add_generation_prompt=True, **switch)
        for switch in ({}, {"enable_thinking": True}, {"open_thinking": True}, {"enable_thinking": False})
    ]

    assert prompts == [off, on, on, off]


def without(*names: str) -> Tokenizer:
    """A vocabulary from elsewhere, which lacks some control tokens."""
    known = Tokenizer.train([], 292)._vocabulary
    tokens = tuple(token for token in known.tokens if token not in names)
    control = {token: index for index, token in enumerate(tokens) if token in known.control}
    return Tokenizer(replace(known, tokens=tokens, control=control, special=known.special - {*names}))


@pytest.mark.parametrize("missing", [(), THINK_MARKS, TOOL_MARKS, (*THINK_MARKS, *TOOL_MARKS)])
@pytest.mark.parametrize("thinking", [None, False, True])
def test_a_template_renders_or_raises_as_we_do_with_any_vocabulary(
    missing: tuple[str, ...], thinking: bool | None
) -> None:
    tokenizer = without(*missing)
    template = environment(trim_blocks=True, lstrip_blocks=True).from_string(chat_template(tokenizer.control_names))
    num_rendered = num_refused = 0
    for seed in range(300):
        chat = random_chat(seed)
        row = chat.to_dict() | {"add_generation_prompt": thinking is not None, "enable_thinking": thinking}
        try:
            if thinking is None:
                ids = render(chat, tokenizer).ids
            else:
                ids = render_prompt(chat.messages, chat.tools, tokenizer, thinking)
        except TokenizerError:
            num_refused += 1
            with pytest.raises(TemplateError, match="the vocabulary has no"):
                template.render(**row)
        else:
            num_rendered += 1
            text = template.render(**row)
            assert text == tokenizer.decode(ids) == render_text(chat, thinking=thinking, tokenizer=tokenizer)
    if thinking and THINK_MARKS[0] in missing:
        assert num_refused == 300
    else:
        assert num_rendered > 10 and bool(num_refused) == bool(missing)


def test_the_template_of_a_full_vocabulary_says_nothing_of_what_others_lack() -> None:
    assert chat_template() == chat_template(RESERVED)
    assert "vocabulary" not in chat_template() and "vocabulary" in chat_template(RESERVED[:3])


def test_images_are_refused_by_the_template() -> None:
    with pytest.raises(TemplateError, match="only text parts"):
        TEMPLATE.render(messages=[{"role": "user", "content": [{"type": "image_url"}]}])


def test_template_has_no_statement_that_engines_do_not_know() -> None:
    assert "generation %}" not in chat_template()


def test_our_templates_are_known_again() -> None:
    for control in ((), THINK_MARKS, TOOL_MARKS, RESERVED):
        assert is_ours(chat_template(control)) and is_ours(marked_template(control))
    assert not is_ours(chat_template() + " ")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tokenizer, Any]:
    """A vocabulary, and transformers' reading of the folder that a checkpoint has."""
    transformers = pytest.importorskip("transformers")
    tokenizer, folder = Tokenizer.train(["hello world"], 300), tmp_path_factory.mktemp("exported")
    tokenizer.save(folder)
    (folder / "chat_template.jinja").write_text(marked_template(), encoding="utf-8")
    return tokenizer, transformers.AutoTokenizer.from_pretrained(folder)


def test_transformers_gives_our_ids_for_every_spelling_of_arguments(exported: tuple[Tokenizer, Any]) -> None:
    tokenizer, theirs = exported
    for given in ARGUMENTS:
        row = with_call(given)
        found = theirs.apply_chat_template(row["messages"], return_dict=True)
        assert found["input_ids"] == render(Conversation.parse(row, "row:1"), tokenizer).ids


def test_transformers_finds_the_tokens_that_weigh(exported: tuple[Tokenizer, Any]) -> None:
    tokenizer, theirs = exported
    call = ToolCall("f", {"x": [1, "é"]})
    answers = [
        *(Message("assistant", "world"), Message("assistant", "world", "so it is"), Message("assistant", "")),
        *(Message("assistant", "", "r", (call, call)), Message("assistant", "a", "", (call,))),
        Message("assistant", "not learnt", "r", weight=0),
    ]
    for first in answers:
        for last in answers:
            messages = (Message("system", "s"), Message("user", "q"), first, Message("tool", "t"), last)
            row = Conversation(messages, ({"name": "f"},)).to_dict()
            rendered = render(Conversation(messages, ({"name": "f"},)), tokenizer)
            found = theirs.apply_chat_template(
                row["messages"], tools=row["tools"], return_dict=True, return_assistant_tokens_mask=True
            )
            assert found["input_ids"] == rendered.ids
            assert found["assistant_masks"] == rendered.weights


def test_transformers_applies_the_template(exported: tuple[Tokenizer, Any]) -> None:
    _, theirs = exported
    chat = Conversation((Message("user", "hello"), Message("assistant", "world", "think")), ({"name": "<f> & 'g'"},))
    row = chat.to_dict()
    text = theirs.apply_chat_template(
        row["messages"], tools=row["tools"], tokenize=False, add_generation_prompt=True, enable_thinking=True
    )

    assert text == render_text(chat, thinking=True)
