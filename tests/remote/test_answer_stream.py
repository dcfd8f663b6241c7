"""Server-sent events: however they are cut and ended, the same data; and nothing without bound."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimind.remote.answer_stream import read_choices, read_events

EVENT = b'data: {"choices": [{"delta": {"content": "\xe4\xbd\xa0"}, "finish_reason": %s}]}\n\n'


def events(stream: bytes, **bounds: int) -> list[str]:
    return list(read_events(io.BytesIO(stream).readline, **bounds))


def texts(stream: bytes) -> list[str | None]:
    return [choice.delta.content for choice in read_choices(io.BytesIO(stream).readline)]


@given(st.lists(st.text(st.characters(exclude_characters="\r\n"), min_size=1)), st.sampled_from(["\n", "\r\n"]))
def test_data_comes_out_as_it_went_in(said: list[str], end: str) -> None:
    stream = "".join(f"data: {text}{end}{end}" for text in said)
    assert events(stream.encode()) == said


def test_comments_other_fields_and_empty_events_say_nothing() -> None:
    assert events(b": ping\n\n\n\nevent: x\nid: 7\nretry: 3\ndata:a\n: ping\n\nx\n\n") == ["a"]


def test_lines_of_one_event_are_joined() -> None:
    assert events(b"data: a\ndata:  b\n\n") == ["a\n b"]


def test_an_event_that_is_cut_off_is_none() -> None:
    assert events(b"data: a\n\ndata: b\n") == ["a"] == events(b"data: a\n\ndata: b")


def test_a_line_an_event_and_a_stream_are_bounded() -> None:
    assert events(b"data: 12\n\n" * 3, max_event_bytes=10, max_bytes=30) == ["12"] * 3
    for long in (b"data: 1234567890", b"data: 1\ndata: 2\n\n", b": 12345678\n: 12345678\n"):
        with pytest.raises(ValueError, match="an event has more than 10 bytes"):
            events(long, max_event_bytes=10)
    with pytest.raises(ValueError, match="the stream has more than 25 bytes"):
        events(b"data: 12\n\n" * 3, max_bytes=25)


def test_no_more_is_read_of_a_line_than_is_allowed() -> None:
    asked: list[int] = []

    def endless(size: int) -> bytes:
        asked.append(size)
        return b"x" * size

    with pytest.raises(ValueError, match="an event has more than"):
        list(read_events(endless))
    assert asked == [2**20 + 1]


def test_a_stream_ends_with_done_or_behind_a_finish_reason() -> None:
    assert texts(EVENT % b"null" + b"data: [DONE]\n\nnonsense") == ["你"]
    assert texts(EVENT % b"null" + EVENT % b'"stop"') == ["你", "你"]
    with pytest.raises(ValueError, match="the stream ended before the answer did"):
        texts(EVENT % b"null")


def test_what_an_answer_does_not_need_is_passed_over() -> None:
    usage = b'data: {"choices": [], "usage": {"total_tokens": 9}}\n\ndata: {"id": 7, "choices": null}\n\n'
    assert texts(usage + EVENT % b'"stop"') == ["你"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"nonsense", "Invalid JSON"),
        (b"\xff", "utf-8"),
        (b"[" * 100_000, "Invalid JSON"),
        (b'["a"]', "an event: Input should be"),
        (b'{"choices": {}}', "choices: Input should be"),
        (b'{"choices": [{"delta": null}]}', "choices.0.delta: Input should be"),
        (b'{"choices": [{"delta": {"content": 5}}]}', r"choices.0.delta.content: .*; expected OpenAI's"),
        (b'{"choices": [{"delta": {"content": "\\ud800"}}]}', "Invalid JSON"),
        (b'{"choices": [{"delta": {"tool_calls": [{"index": "x"}]}}]}', "tool_calls.0.index"),
        (b'{"error": {"message": "out of memory"}}', "the server says out of memory"),
        (b'{"error": "overloaded"}', "the server says overloaded"),
    ],
)
def test_what_is_no_answer_is_a_line(data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        texts(b"data: " + data + b"\n\n")
    assert "\n" not in str(error.value)
