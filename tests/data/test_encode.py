"""A worker's part: rows to ids and weights, with a reason for each row that gives none."""

from typing import Any

import numpy as np
import pytest
from tests.text.template_cases import made

from minimind.data.chunks import BadRow, RowValues
from minimind.data.encode import EncodedChunk, Encoder, EncodeSettings
from minimind.data.options import CleanConfig
from minimind.errors import TokenizerError
from minimind.text.conversation import Conversation, render
from minimind.text.tokenizer import Tokenizer


def encode(tokenizer: Tokenizer, rows: list[dict[str, Any]], **settings: Any) -> EncodedChunk:
    settings = {"kind": "text", "text_column": "text"} | settings
    return Encoder(tokenizer, EncodeSettings(**settings))(RowValues("f", 7, 1, tuple(rows)))


def chat(*turns: tuple[str, str]) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


def test_a_text_is_its_ids_between_bos_and_eos(tokenizer: Tokenizer) -> None:
    texts = ["the cat", "今天 <|im_end|>", "x"]
    chunk = encode(tokenizer, [{"text": text} for text in texts])
    for document, text in zip(chunk.documents, texts, strict=True):
        assert document.ids.tolist() == [tokenizer.bos_id, *tokenizer.encode(text), tokenizer.eos_id]
        assert (document.weights, document.reason, document.characters) == (None, "", len(text))
        assert document.num_bytes == len(text.encode())
    assert (chunk.num_lines, chunk.position) == (3, 7)


def test_a_conversation_is_what_it_renders_to_and_counts_the_bytes_it_teaches(tokenizer: Tokenizer) -> None:
    row = chat(("user", "where sat the cat"), ("assistant", "on a mat 今天"))
    [document] = encode(tokenizer, [row], kind="conversation").documents
    rendered = render(Conversation.parse(row, "x"), tokenizer)
    assert document.ids.tolist() == rendered.ids
    assert document.weights is not None and document.weights.dtype == np.uint8
    assert document.weights.tolist() == rendered.weights
    assert document.num_bytes == len("on a mat 今天".encode())


@pytest.mark.parametrize(
    "row",
    [
        chat(("user", "hello")),
        chat(("user", "hello"), ("assistant", "")),
        chat(("user", "hello"), ("assistant", " \n")),
        chat(("system", "be brief")),
    ],
)
def test_a_conversation_in_which_nobody_answers_has_a_reason_to_be_dropped(
    tokenizer: Tokenizer, row: dict[str, Any]
) -> None:
    [document] = encode(tokenizer, [row], kind="conversation").documents
    assert document.reason == "no_answer" and len(document.ids) > 0


def test_texts_that_say_nothing_or_are_debris_have_a_reason(tokenizer: Tokenizer) -> None:
    rows = [{"text": text} for text in ("", " \n\t", "\ufffd" * 20, "a good line")]
    chunk = encode(tokenizer, rows, clean=CleanConfig())
    assert [document.reason for document in chunk.documents] == ["empty", "empty", "broken_characters", ""]


@pytest.mark.parametrize(
    ("kind", "row", "reason"),
    [
        ("text", {"text": 5}, "column 'text' is a int; expected text"),
        ("text", {"text": None}, "has no column 'text' and no conversation, but nothing"),
        ("text", {"body": "x"}, "has no column 'text' and no conversation, but 'body'; name the column"),
        ("text", chat(("user", "x")), "holds a conversation where a text is expected; prepare them apart"),
        ("conversation", {"text": "x"}, "holds a text where a conversation is expected; prepare them apart"),
        ("conversation", {"chosen": [], "rejected": []}, "has preference pairs (chosen, rejected)"),
        ("conversation", chat(("robot", "x")), "message 1 has role 'robot'"),
        ("text", {"text": " " * 5_000_001}, "the text has a run of over 5,000,000 white-space characters"),
        ("conversation", chat(("user", " " * 5_000_001)), "the text has a run of over 5,000,000 white-space"),
    ],
)
def test_a_row_of_another_shape_is_bad_and_the_rows_beside_it_are_good(
    tokenizer: Tokenizer, kind: str, row: dict[str, Any], reason: str
) -> None:
    good = {"text": "a b"} if kind == "text" else chat(("user", "a"), ("assistant", "b"))
    chunk = encode(tokenizer, [good, row, good], kind=kind)
    assert len(chunk.documents) == 2
    [bad] = chunk.bad
    assert isinstance(bad, BadRow) and (bad.path, bad.line) == ("f", 2)
    assert bad.reason.startswith(reason)


def test_equal_conversations_have_equal_hashes_however_they_were_written(tokenizer: Tokenizer) -> None:
    sharegpt = {"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "yes"}]}
    alpaca = {"instruction": "hi", "input": "", "output": "yes"}
    rows = [chat(("user", "hi"), ("assistant", "yes")), sharegpt, alpaca, chat(("user", "hi"), ("assistant", "no"))]
    one, two, three, other = (document.hash for document in encode(tokenizer, rows, kind="conversation").documents)
    assert one == two == three != other


def test_a_tokenizer_that_cannot_render_is_refused_before_any_row() -> None:
    spaced = Tokenizer.train(["some words to learn from " * 9], 300, pattern="gpt2", add_prefix_space=True)
    with pytest.raises(TokenizerError, match="add_prefix_space"):
        Encoder(spaced, EncodeSettings("conversation", "text"))


def test_signatures_are_made_when_asked_for(tokenizer: Tokenizer) -> None:
    assert encode(tokenizer, [{"text": "a b c"}]).documents[0].signature is None
    minhash = encode(tokenizer, [{"text": "a b c"}], has_signatures=True).documents[0].signature
    assert minhash is not None and minhash.shape == (128,)


def thinker(number: int) -> dict[str, Any]:
    answer = {"role": "assistant", "content": "yes", "reasoning_content": f"because {number}"}
    return {"messages": [{"role": "user", "content": f"is it {number}?"}, answer]}


def test_a_share_of_conversations_keeps_its_reasoning_and_the_others_are_as_if_they_had_none(
    tokenizer: Tokenizer,
) -> None:
    rows = [thinker(number) for number in range(200)]
    kept = []
    for share in (0.0, 0.3, 0.6, 1.0):
        documents = encode(tokenizer, rows, kind="conversation", thinking_share=share).documents
        found = {n for n, document in enumerate(documents) if "because" in tokenizer.decode(document.ids.tolist())}
        assert abs(len(found) - 200 * share) < 30
        kept.append(found)
        for number in set(range(200)) - found:
            row = thinker(number)
            del row["messages"][1]["reasoning_content"]
            assert documents[number].ids.tolist() == render(Conversation.parse(row, "x"), tokenizer).ids
    # A larger share keeps what a smaller one kept.
    assert kept[0] < kept[1] < kept[2] < kept[3] and len(kept[3]) == 200


def test_answers_that_weigh_nothing_and_keys_that_are_not_read_are_counted(tokenizer: Tokenizer) -> None:
    rows = [chat(("user", "a"), ("assistant", ""), ("user", "b"), ("assistant", "cat")) for _ in range(3)]
    rows[0]["messages"][1]["prefix"] = True
    rows[1] |= {"id": 7, "token_mask": [0, 1], "source": None}
    found = encode(tokenizer, rows, kind="conversation")
    assert found.unlearnt == {"empty answers": 3}
    assert found.unread == {"message.prefix": 1, "id": 1, "token_mask": 1}
    for document in found.documents:
        assert document.weights is not None
        assert tokenizer.decode(document.ids[document.weights == 1].tolist()) == "cat<|im_end|>"


def test_a_row_flagged_off_is_dropped_by_that_name(tokenizer: Tokenizer) -> None:
    good = chat(("user", "a"), ("assistant", "b"))
    found = encode(tokenizer, [good, {**good, "train": False}], kind="conversation")
    assert [document.reason for document in found.documents] == ["", "not_to_be_learnt"]
    texts = encode(tokenizer, [{"text": "the cat"}, {"text": "the cat", "weight": 0}])
    assert [document.reason for document in texts.documents] == ["", "not_to_be_learnt"]


def test_columns_are_read_by_the_names_they_are_given(tokenizer: Tokenizer) -> None:
    columns = {"prompt": "question", "answer": "reply"}
    rows = [{"question": "a", "reply": "b", "messages": "other"}, {"reply": "b"}]
    found = encode(tokenizer, rows, kind="conversation", columns=columns)
    [same] = encode(tokenizer, [chat(("user", "a"), ("assistant", "b"))], kind="conversation").documents
    assert [document.hash for document in found.documents] == [same.hash]
    assert [bad.line for bad in found.bad] == [2]


def test_a_conversation_whose_template_rewrites_history_has_a_row_for_each_answer() -> None:
    tokenizer = made("drops thoughts")
    row = chat(("user", "q"), ("assistant", "<think>\nt\n</think>\n\na"), ("user", "r"), ("assistant", "b"))
    [document] = encode(tokenizer, [row], kind="conversation").documents
    assert [tokenizer.decode(part.ids[part.weights == 1]) for part in document.parts] == [
        "<think>\nt\n</think>\n\na<|im_end|>",
        "<think>\n\n</think>\n\nb<|im_end|>",
    ]
    assert document.left_out == ()
