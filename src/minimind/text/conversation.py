"""Conversations -> ids with weights, and back.

A prompt is composed of ids: control tokens are placed here by name, and whatever anybody said goes through
`Tokenizer.encode`, which cannot produce them. So no text can forge a role, and weights need no search for headers:
each piece is born with its weight. It is the message's (1, unless its data says otherwise) exactly on what the
assistant has to produce itself, the closing `<|im_end|>` included, and 0 on everything a prompt contains, the opening
of the think block included.
A vocabulary from elsewhere that has no token `<think>` has no think block: answers are rendered without one. Reasoning
is then an error: dropping it, or spelling its tags as plain text, would change the conversation.
`messages.py` says what a conversation is, `chat_template.py` holds the same format as text. All this is the format of
models that are made here; one from elsewhere keeps its own chat template, which `template_turns.py` follows.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby, takewhile
from typing import Any, NamedTuple

from minimind.errors import DataError, TokenizerError
from minimind.text.answers import AnswerReader, AnswerStart, Delta, join
from minimind.text.chat_template import CALL_EXAMPLE, THINK_MARKS, TOOL_MARKS, TOOLS_CLOSE, TOOLS_OPEN
from minimind.text.messages import Conversation, Message, ToolCall
from minimind.text.template_turns import Rendered, TemplatedChat, told_in
from minimind.text.tokenizer import Tokenizer

__all__ = [
    "Conversation",
    "Message",
    "Rendered",
    "ToolCall",
    "parse_answer_ids",
    "parse_ids",
    "render",
    "render_last_answer",
    "render_prompt",
    "render_rows",
    "render_text",
    "render_tool_results",
    "weighted_text",
]


class _Piece(NamedTuple):
    """A stretch of text that is encoded by itself, or the name of a control token."""

    text: str
    weight: float = 0.0
    is_control: bool = False


def render(conversation: Conversation, tokenizer: Tokenizer) -> Rendered:
    """The whole conversation, with weight 1 on the assistant's own tokens.

    Up to each answer the ids are those of `render_prompt`, token for token: with an open think block if the answer has
    reasoning, with an empty one if it has none. A foreign template that rewrites history has only the answers weigh
    that it shows as serving would: `render_rows` has them all.

    Errors:  TokenizerError naming the control token that reasoning or tools need and the vocabulary lacks
    """
    return render_rows(conversation, tokenizer)[-1]


def render_rows(conversation: Conversation, tokenizer: Tokenizer) -> list[Rendered]:
    """What is learnt of a conversation: each answer once, behind the prompt that serving gives it. Nearly always one.

    Errors:  as `render`; DataError with the words of a foreign template that refuses the conversation
    """
    if tokenizer.template is not None:
        return _foreign(conversation.messages, conversation.tools, tokenizer).rows()
    ids: list[int] = []
    weights: list[float] = []
    pieces = _conversation(conversation.messages, conversation.tools, _has_think_block(tokenizer))
    for piece, piece_ids in _encoded(pieces, tokenizer):
        ids += piece_ids
        weights += [piece.weight] * len(piece_ids)
    return [Rendered(ids, weights)]


def render_last_answer(conversation: Conversation, tokenizer: Tokenizer) -> Rendered:
    """The last message, an answer, with weight on it alone, up to its end and behind its prompt."""
    if tokenizer.template is not None:
        return _foreign(conversation.messages, conversation.tools, tokenizer).last_answer()
    *prompt, answer = conversation.messages
    [rendered] = render_rows(replace(conversation, messages=(*prompt, replace(answer, weight=1))), tokenizer)
    start = len(render_prompt(prompt, conversation.tools, tokenizer, bool(answer.reasoning_content)))
    end = max(place for place, weight in enumerate(rendered.weights) if weight) + 1
    return Rendered(rendered.ids[:end], [0.0] * start + rendered.weights[start:end])


def render_prompt(
    messages: Sequence[Message],
    tools: Sequence[Mapping[str, Any]],
    tokenizer: Tokenizer,
    thinking: bool | None = None,
) -> list[int]:
    """All messages, then the opening of an answer.

    thinking: leave the think block open, or closed and empty; None is closed, or a foreign template's own default
    """
    if tokenizer.template is not None:
        return _foreign(messages, tools, tokenizer).prompt(thinking)
    has_block = _has_think_block(tokenizer)
    pieces = [*_conversation(messages, tools, has_block), *_opening(bool(thinking), has_block)]
    return [index for _, piece_ids in _encoded(pieces, tokenizer) for index in piece_ids]


def render_tool_results(results: Sequence[Message], tokenizer: Tokenizer, thinking: bool = False) -> list[int]:
    """What follows a sampled answer's `<|im_end|>` when it called tools: their results and the next answer's opening.

    `render_prompt(before) + sampled + render_tool_results(results)` equals `render_prompt(before, answer, results)`
    when the sampled ids are the ones that rendering gives; when they are others, they stay as they were sampled.
    """
    assert results and all(message.role == "tool" for message in results), [message.role for message in results]
    if tokenizer.template is not None:
        calls = tuple(ToolCall("f", {}) for _ in results)
        before = (Message("user", "q"), Message("assistant", tool_calls=calls))
        return _foreign([*before, *results], (), tokenizer).following(1, thinking)
    pieces = [_Piece("\n"), *_tool_responses(results), *_opening(thinking, _has_think_block(tokenizer))]
    return [index for _, piece_ids in _encoded(pieces, tokenizer) for index in piece_ids]


def render_text(conversation: Conversation, *, thinking: bool | None = None, tokenizer: Tokenizer | None = None) -> str:
    """The text that `render` encodes; with `thinking` True or False, the text that `render_prompt` encodes.

    tokenizer:  whose vocabulary says whether answers have a think block; they have one unless given

    For reading and comparing. Encoding it with `encode_with_control` would let messages forge control tokens.
    """
    if tokenizer is not None and tokenizer.template is not None:
        chat = _foreign(conversation.messages, conversation.tools, tokenizer)
        return chat.text(thinking, is_prompt=thinking is not None)
    has_block = tokenizer is None or _has_think_block(tokenizer)
    pieces = [*_conversation(conversation.messages, conversation.tools, has_block)]
    return "".join(piece.text for piece in pieces + ([] if thinking is None else _opening(thinking, has_block)))


def weighted_text(conversation: Conversation) -> list[tuple[str, float]]:
    """`render_text` cut where the weight changes, for people to see what is learnt."""
    pieces = [*_conversation(conversation.messages, conversation.tools, has_block=True)]
    runs = groupby((piece for piece in pieces if piece.text), key=lambda piece: piece.weight)
    return [("".join(piece.text for piece in run), weight) for weight, run in runs]


def _foreign(messages: Sequence[Message], tools: Sequence[Mapping[str, Any]], tokenizer: Tokenizer) -> TemplatedChat:
    assert tokenizer.template is not None
    silent = frozenset(number for number, message in enumerate(messages) if not message.weight)
    return TemplatedChat(*told_in(tokenizer.template, messages, tools), tokenizer.template, tokenizer, silent)


def _has_think_block(tokenizer: Tokenizer) -> bool:
    return tokenizer.control_names.issuperset(THINK_MARKS)


def _encoded(pieces: Iterable[_Piece], tokenizer: Tokenizer) -> Iterator[tuple[_Piece, list[int]]]:
    if tokenizer.add_prefix_space:
        raise TokenizerError(
            "add_prefix_space puts a space before every piece of a conversation; "
            "conversations need a tokenizer with add_prefix_space=false"
        )
    for piece in pieces:
        yield piece, [_control_id(piece.text, tokenizer)] if piece.is_control else tokenizer.encode(piece.text)


def _control_id(name: str, tokenizer: Tokenizer) -> int:
    for names, what in ((THINK_MARKS, "reasoning"), (TOOL_MARKS, "tool use")):
        missing = [other for other in names if name in names and other not in tokenizer.control_names]
        if missing:
            raise TokenizerError(
                f"the vocabulary has no {missing[0]!r}, which {what} needs; "
                f"leave {what} out, or take a model whose vocabulary has it"
            )
    return tokenizer.control(name)


def _control(name: str, weight: float = 0.0) -> _Piece:
    return _Piece(name, weight, is_control=True)


def _turn(*pieces: _Piece, weight: float = 0.0) -> list[_Piece]:
    """A turn: its end has the weight of whoever speaks, the newline after it is the format's."""
    return [_control("<|im_start|>"), *pieces, _control("<|im_end|>", weight), _Piece("\n")]


def _conversation(messages: Sequence[Message], tools: Sequence[Mapping[str, Any]], has_block: bool) -> Iterator[_Piece]:
    first = messages[0] if messages and messages[0].role == "system" else None
    if tools:
        yield from _system_with_tools(first, tools)
        messages = messages[1:] if first else messages
    for is_tool, neighbours in groupby(messages, key=lambda message: message.role == "tool"):
        if is_tool:
            yield from _tool_responses(neighbours)
            continue
        for message in neighbours:
            if message.role == "assistant":
                yield from _turn(*_answer(message, has_block), weight=float(message.weight))
            else:
                yield from _turn(_Piece(f"{message.role}\n{message.content}"))


def _system_with_tools(system: Message | None, tools: Sequence[Mapping[str, Any]]) -> list[_Piece]:
    lines = "".join("\n" + json.dumps(tool, ensure_ascii=False) for tool in tools)
    words = f"{system.content}\n\n" if system else ""
    return _turn(
        _Piece(f"system\n{words}{TOOLS_OPEN}{lines}{TOOLS_CLOSE}"),
        _control("<tool_call>"),
        _control("</tool_call>"),
        _Piece(" XML tags:\n"),
        _control("<tool_call>"),
        _Piece(CALL_EXAMPLE),
        _control("</tool_call>"),
    )


def _tool_responses(messages: Iterable[Message]) -> list[_Piece]:
    pieces = [_Piece("user\n")]
    for message in messages:
        pieces += [
            _control("<tool_response>"),
            _Piece(f"\n{message.content}\n"),
            _control("</tool_response>"),
            _Piece("\n"),
        ]
    return _turn(*pieces[:-1])


def _opening(thinking: bool, has_block: bool) -> list[_Piece]:
    """What a prompt writes of an answer. The weight is 0, for the model never has to produce it."""
    pieces = [_control("<|im_start|>"), _Piece("assistant\n")]
    if thinking:
        # Also where there is no block: `_encoded` then says which token is missing.
        return [*pieces, _control("<think>"), _Piece("\n")]
    return pieces + [_control("<think>"), _Piece("\n\n"), _control("</think>"), _Piece("\n\n")] * has_block


def _answer(message: Message, has_block: bool) -> Iterator[_Piece]:
    """An assistant's turn: the opening, cut where the prompt ends, and then all that the model has to produce."""
    weight = float(message.weight)
    yield from _opening(bool(message.reasoning_content), has_block)[1:]
    if message.reasoning_content:
        yield _Piece(f"{message.reasoning_content}\n", weight)
        yield _control("</think>", weight)
        yield _Piece("\n\n", weight)
    yield _Piece(message.content + ("\n" if message.content and message.tool_calls else ""), weight)
    for place, call in enumerate(message.tool_calls):
        yield _Piece("\n" if place else "", weight)
        yield _control("<tool_call>", weight)
        yield _Piece(f"\n{call.to_json()}\n", weight)
        yield _control("</tool_call>", weight)


def parse_answer_ids(ids: Sequence[int], tokenizer: Tokenizer, thinking: bool = False) -> Message:
    """Read what a model wrote after a prompt, up to the first id that ends a text, in linear time.

    thinking: the prompt left the think block open, so that text without `</think>` is reasoning cut short.
    A tool call that is not valid JSON, or was never closed, stays in the content as it was written; so does a mark in
    the wrong place. Marks that are only spelled out are text.
    """
    said = list(takewhile(lambda index: index not in tokenizer.end_ids, ids))
    return _read_answer(_pieces(said, tokenizer), AnswerStart.of(tokenizer, thinking=thinking))


def parse_ids(ids: Sequence[int], tokenizer: Tokenizer) -> Conversation:
    """Read a rendered conversation back: `parse_ids(render(c, t).ids, t) == c`."""
    messages: list[Message] = []
    tools: tuple[Mapping[str, Any], ...] = ()
    for pieces in _turns(_pieces(ids, tokenizer)):
        role, _, content = pieces[0].text.partition("\n")
        if role == "assistant":
            # Without a think block the answer stands in one piece with the role.
            messages.append(_read_answer([_Piece(content), *pieces[1:]], AnswerStart.of(tokenizer)))
        elif role == "user" and len(pieces) > 1:
            messages += [Message("tool", piece.text[1:-1]) for piece in pieces[2::4]]
        elif role == "system" and len(pieces) > 1:
            words, tools = _read_tools(content)
            messages += [Message("system", words[:-2])] if words else []
        else:
            messages.append(Message(role, content))
    return Conversation(tuple(messages), tools)


def _read_tools(content: str) -> tuple[str, tuple[Mapping[str, Any], ...]]:
    # No JSON line holds a raw newline, so the last occurrence is the renderer's, whatever the system prompt quotes.
    words, _, rest = content.rpartition(TOOLS_OPEN)
    return words, tuple(json.loads(line) for line in rest.removesuffix(TOOLS_CLOSE).split("\n")[1:])


def _pieces(ids: Sequence[int], tokenizer: Tokenizer) -> list[_Piece]:
    """Control tokens and the texts between them."""
    pieces = []
    for is_control, run in groupby(ids, key=lambda index: index in tokenizer.control_ids):
        if is_control:
            pieces += [_control(tokenizer.decode([index])) for index in run]
        else:
            pieces.append(_Piece(tokenizer.decode(run)))
    return pieces


def _turns(pieces: Sequence[_Piece]) -> Iterator[Sequence[_Piece]]:
    starts = [place for place, piece in enumerate(pieces) if piece == _control("<|im_start|>")]
    for start, stop in zip(starts, [*starts[1:], len(pieces)], strict=True):
        turn = pieces[start + 1 : stop]
        is_closed = len(turn) > 2 and turn[-2:] == [_control("<|im_end|>"), _Piece("\n")]
        if not is_closed or turn[0].text.partition("\n")[0] not in ("system", "user", "assistant"):
            raise DataError(f"turn {starts.index(start) + 1} of the ids is not `role\\n...<|im_end|>\\n`")
        yield turn[:-2]


def _read_answer(pieces: Iterable[_Piece], start: AnswerStart) -> Message:
    reader, names = AnswerReader(start), set(start.marks.values())
    deltas: list[Delta] = []
    for piece in pieces:
        is_mark = piece.is_control and piece.text in names
        deltas += reader.push("", piece.text) if is_mark else reader.push(piece.text)
    return join([*deltas, *reader.finish()])
