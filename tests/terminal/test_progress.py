"""Progress is a bar on a terminal, plain whole lines elsewhere, and silence on other ranks."""

import pytest

from minimind.terminal import progress
from minimind.terminal.progress import ReadingProgress, TrainingProgress

VALIDATED = {"loss": 2.5, "tokens_per_second": 12345.6, "valid_loss": 2.4567, "bits_per_byte": 1.2345}


def lines_of(capsys: pytest.CaptureFixture[str]) -> list[str]:
    captured = capsys.readouterr()
    assert captured.out == "", "standard output belongs to results"
    return captured.err.splitlines()


def test_a_validation_is_a_line_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    with TrainingProgress("pretrain", 100, 0) as shown:
        shown.update(40, VALIDATED)
    (line,) = lines_of(capsys)
    assert line.startswith("pretrain step 40/100  loss 2.500  12,346 tokens/s  valid_loss 2.457  bits_per_byte 1.234")
    assert line.endswith(" left")


def test_a_log_without_terminal_gets_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock stands still but for one jump: of 20 steps the first, the one after the jump and the last are told."""
    seconds = 1000.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: seconds)
    with TrainingProgress("sft", 20, 0) as shown:
        for step in range(1, 21):
            seconds += progress.PLAIN_SECONDS + 1 if step == 10 else 0
            shown.update(step, {"loss": 3.0})
    first, second, last = lines_of(capsys)
    assert first.startswith("sft step 1/20  loss 3.000") and second == "sft step 10/20  loss 3.000  16 s left"
    assert last == "sft step 20/20  loss 3.000  0 s left"


def test_a_resumed_run_estimates_from_what_it_did_itself(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = 1000.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: seconds)
    with TrainingProgress("sft", 1000, 900) as shown:
        seconds += 100
        shown.update(910, VALIDATED)
    assert lines_of(capsys)[0].endswith("15 min 00 s left"), "10 steps took 100 s, 90 are left"


def test_nothing_is_divided_by_zero_at_the_first_step(capsys: pytest.CaptureFixture[str]) -> None:
    with TrainingProgress("sft", 10, 0) as shown:
        shown.update(0, {"valid_loss": 5.0, "bits_per_byte": 3.0})
    assert lines_of(capsys) == ["sft step 0/10  valid_loss 5.000  bits_per_byte 3.000"]


def test_other_ranks_are_silent(capsys: pytest.CaptureFixture[str]) -> None:
    with TrainingProgress("sft", 10, 0, is_shown=False) as shown:
        shown.update(1, VALIDATED)
        shown.note("hello")
    assert lines_of(capsys) == []


def test_a_note_is_one_line_however_long_and_its_brackets_are_text(capsys: pytest.CaptureFixture[str]) -> None:
    text = "model [bold]12[/bold] " + "of many words " * 30
    with TrainingProgress("sft", 10, 0) as shown:
        shown.note(text)
    assert lines_of(capsys) == [text]


def test_reading_tells_speed_and_time_left_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = 1000.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: seconds)
    with ReadingProgress("prepare") as shown:
        shown.update(0, 40_000_000, "0 documents")
        seconds += 20
        shown.update(10_000_000, 40_000_000, "7 documents")
        shown.update(11_000_000, 40_000_000, "8 documents")
        seconds += 20
        shown.update(20_000_000, None, "9 documents")
    assert lines_of(capsys) == [
        "prepare: 7 documents, 0.5 MB/s, 1 min 00 s left",
        "prepare: 9 documents, 0.5 MB/s",
    ]
