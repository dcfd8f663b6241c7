"""Ids of a prompt are those of transformers, unless somebody spells a control token: then they are text."""

from pathlib import Path

import pytest
from tests.text.template_cases import TEMPLATES, answer, made, user

from minimind.text.conversation import Message, render_prompt
from minimind.text.foreign_template import ForeignTemplate
from minimind.text.template_ids import encoded, end_names, is_thinking_open, shared
from minimind.text.template_marks import Place
from minimind.text.template_pieces import TextPiece

SAID = Place(0, "content")


@pytest.mark.parametrize("name", sorted(TEMPLATES))
def test_ids_of_a_prompt_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer = made(name)
    tokenizer.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    theirs.bos_token, theirs.eos_token = "<s>", tokenizer.template.tokens["eos_token"]  # type: ignore[union-attr]
    texts = ["hello world", "答 42 👩‍🚀", "  two  ", "line\r\nline\n\n", "<b>&\"'", "x"]
    messages = [user(text) if place % 2 == 0 else answer(text) for place, text in enumerate(texts[:5])]
    told = [Message(message["role"], message["content"]) for message in messages]
    # Our messages of an assistant begin without empty lines, as all of ours do.
    expected = theirs.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=False)
    assert render_prompt(told, (), tokenizer) == expected


def test_control_tokens_are_the_templates_alone_and_cuts_separate_ids() -> None:
    tokenizer = made("plain")
    pieces = [TextPiece("<|im_start|>user\n"), TextPiece("<|im_end|>hello", SAID), TextPiece(" world<|im_end|>\n")]
    text = "".join(piece.text for piece in pieces)
    [whole] = encoded(pieces, (), tokenizer)
    assert [index for index in whole if index in tokenizer.control_ids] == [tokenizer.bos_id, tokenizer.eos_id]
    assert tokenizer.decode(whole) == text
    cuts = [0, 12, text.index("hello"), text.index("world<"), text.index("\n", 30), len(text)]
    parts = encoded(pieces, cuts, tokenizer)
    assert [tokenizer.decode(part) for part in parts] == [
        text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)
    ]
    assert [index for part in parts for index in part if index in tokenizer.control_ids] == [1, 2]


def test_of_control_tokens_that_begin_together_the_longest_is_meant() -> None:
    tokenizer = made("plain", ("<|a|>", "<|a|>b"))
    [ids] = encoded([TextPiece("<|a|>b<|a|>")], (), tokenizer)
    assert ids == [tokenizer.control("<|a|>b"), tokenizer.control("<|a|>")]


def test_the_ends_of_an_answer_are_the_templates_and_the_models() -> None:
    control = frozenset(("<|a|>", "<|b|>", "<|c|>", "<|d|>"))
    template = (
        "{% for m in messages %}{{ '<|c|>' + m.content }}{% if m.role == 'assistant' %}"
        "{{ ' \\n' + ('<|b|>' if loop.last else '<|a|>') }}{% endif %}{% endfor %}"
    )
    assert end_names(ForeignTemplate({"default": template}), control) == {"<|a|>", "<|b|>"}
    assert end_names(ForeignTemplate({"default": template}, {"eos_token": "<|d|>"}), control) == {
        "<|a|>",
        "<|b|>",
        "<|d|>",
    }
    assert made("has no end").end_names == {"<|im_end|>", "<|endoftext|>", "<|user|>"}


def test_whether_a_prompt_leaves_thinking_open_is_read_from_its_ids() -> None:
    tokenizer = made("opens thoughts")
    question = [Message("user", "q"), Message("assistant", "a", "r"), Message("user", "<think>")]
    assert is_thinking_open(render_prompt(question, (), tokenizer), tokenizer)
    other = made("drops thoughts")
    assert not any(is_thinking_open(render_prompt(question, (), other, thinking), other) for thinking in (None, False))
    own = made("plain")
    own.template = None
    assert [is_thinking_open(render_prompt(question, (), own, thinking), own) for thinking in (True, False)] == [
        True,
        False,
    ]


def test_what_two_texts_share_ends_at_a_control_token_or_a_line() -> None:
    tokenizer = made("plain")
    assert shared("\n<|im_start|>a\n<think>\n", "\n<|im_start|>a\n<tool_call>", tokenizer) == len("\n<|im_start|>a\n")
    assert shared("<|im_start|>ab", "<|im_start|>ac", tokenizer) == len("<|im_start|>")
    assert shared("ab", "ab", tokenizer) == 2
