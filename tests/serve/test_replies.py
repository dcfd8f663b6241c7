"""Tokens are spelled so that their bytes can be told, and chunks are events."""

import json

from minimind.serve.replies import DONE, Envelope, TextChoice, chunk, usage
from minimind.serve.request import Event, TokenScore
from minimind.tokenizer import Tokenizer


def test_a_chunk_is_one_line_of_json_whatever_the_text() -> None:
    written = chunk({"text": "a\n\nb\u2028你"})
    assert written.startswith(b"data: ") and written.endswith(b"\n\n") and written.count(b"\n") == 2
    assert json.loads(written[6:]) == {"text": "a\n\nb\u2028你"} and DONE == b"data: [DONE]\n\n"


def test_all_chunks_of_a_reply_have_one_id() -> None:
    envelope = Envelope("chat.completion", "m")
    parts = [json.loads(envelope.part([{}])[6:]), json.loads(envelope.part([], usage(1, 2))[6:])]
    assert parts[0]["id"] == parts[1]["id"] == envelope.whole([], usage(1, 2))["id"]
    assert parts[0]["object"] == "chat.completion.chunk" and "usage" not in parts[0]
    assert parts[1]["usage"] == {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}


def test_parts_of_characters_are_spelled_as_bytes(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode_bytes("é".encode())
    choice = TextChoice(tokenizer, 0, echo=None, num_added=0, has_scores=True)
    scores = [TokenScore(index, -1.0, [(index, -1.0)]) for index in ids]
    choice.push([Event(0, index, scores=[score]) for index, score in zip(ids, scores, strict=True)])
    assert choice.whole()["logprobs"]["tokens"] == ["bytes:\\xc3", "bytes:\\xa9"]
