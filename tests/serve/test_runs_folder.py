"""A folder of runs is read as far as it can be, and nothing outside of it ever."""

import json
import os
from pathlib import Path

import pytest
from tests.serve import tiny_server
from tests.serve.browser import lines, losses, write_run

from minimind.serve import runs_folder
from minimind.serve.runs_folder import RunsFolder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "runs" / "a" / "pretrain", losses(1, 3))


@pytest.fixture
def folder(run: Path) -> RunsFolder:
    return RunsFolder(run.parents[1])


def steps(folder: RunsFolder, start: int = 0, file: str = "") -> list[int]:
    return [row["step"] for row in folder.rows("a/pretrain", "metrics", start, file)["rows"]]


def test_runs_are_listed_with_stage_and_state(run: Path, folder: RunsFolder) -> None:
    write_run(run.parent / "sft", [], stage="sft", is_finished=True)
    (run.parents[1] / "data").mkdir()
    first, second = folder.runs()
    assert (first["name"], first["stage"], first["finished"]) == ("a/pretrain", "pretrain", False)
    assert 0 <= first["age"] < 60
    assert (second["name"], second["stage"], second["finished"]) == ("a/sft", "sft", True)


def test_without_a_folder_there_is_nothing() -> None:
    nothing = RunsFolder(None)
    assert (nothing.runs(), nothing.tokenizers(), nothing.find("a")) == ([], {}, None)
    assert nothing.rows("a", "metrics", 0, "")["rows"] == []


def test_only_what_is_new_is_read(run: Path, folder: RunsFolder) -> None:
    first = folder.rows("a/pretrain", "metrics", 0, "")
    assert [row["step"] for row in first["rows"]] == [1, 2, 3]
    assert steps(folder, first["next"], first["file"]) == []
    with open(run / "metrics.jsonl", "a") as file:
        file.write(lines(losses(4, 5)))
    assert steps(folder, first["next"], first["file"]) == [4, 5]


def test_a_half_written_line_is_left_until_it_is_whole(run: Path, folder: RunsFolder) -> None:
    first = folder.rows("a/pretrain", "metrics", 0, "")
    line = lines(losses(4, 4))
    for part, found in ((line[:20], []), (line[20:-1], []), ("\n", [4])):
        with open(run / "metrics.jsonl", "a") as file:
            file.write(part)
        assert steps(folder, first["next"], first["file"]) == found


def test_a_file_written_anew_is_read_from_its_beginning(run: Path, folder: RunsFolder) -> None:
    first = folder.rows("a/pretrain", "metrics", 0, "")
    (run / "other").write_text(lines(losses(1, 9)))
    os.replace(run / "other", run / "metrics.jsonl")
    again = folder.rows("a/pretrain", "metrics", first["next"], first["file"])
    assert (again["start"], len(again["rows"])) == (0, 9)
    os.truncate(run / "metrics.jsonl", 0)
    assert folder.rows("a/pretrain", "metrics", again["next"], again["file"])["start"] == 0


def test_a_long_file_comes_in_parts(run: Path, folder: RunsFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs_folder, "MAX_BYTES", 400)
    (run / "metrics.jsonl").write_text(lines(losses(1, 50)))
    found, place = [], {"next": 0, "file": "", "more": True}
    while place["more"]:
        place = folder.rows("a/pretrain", "metrics", place["next"], place["file"])
        assert len(json.dumps(place["rows"])) < 500
        found += [row["step"] for row in place["rows"]]
    assert found == list(range(1, 51))


def test_a_line_too_long_is_passed_over(run: Path, folder: RunsFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs_folder, "MAX_BYTES", 400)
    (run / "metrics.jsonl").write_text("9" * 1000 + "\n" + lines(losses(7, 7)))
    found, broken, place = [], 0, {"next": 0, "file": "", "more": True}
    while place["more"]:
        place = folder.rows("a/pretrain", "metrics", place["next"], place["file"])
        found += [row["step"] for row in place["rows"]]
        broken += place["broken"]
    assert found == [7] and broken > 0


@pytest.mark.parametrize(
    "line",
    [
        b"not json",
        b"\xff\xfe\x00",
        b"[1, 2]",
        b'"text"',
        b'{"loss": 1}',
        b'{"step": -1}',
        b'{"step": true}',
        b'{"step": 1.5}',
        b'{"step": 1e300}',
        b'{"step": ' + b"9" * 5000 + b"}",
        b"[" * 100_000,
    ],
    ids=lambda line: line[:20].decode("latin-1"),
)
def test_a_broken_line_costs_itself_alone(run: Path, folder: RunsFolder, line: bytes) -> None:
    good = lines(losses(1, 1)).encode()
    (run / "metrics.jsonl").write_bytes(good + line + b"\n" + good.replace(b'"step": 1', b'"step": 2'))
    found = folder.rows("a/pretrain", "metrics", 0, "")
    assert ([row["step"] for row in found["rows"]], found["broken"]) == ([1, 2], 1)


def test_what_is_no_finite_number_is_left_out(run: Path, folder: RunsFolder) -> None:
    odd = '"a": NaN, "b": Infinity, "c": 1e999, "d": null, "e": "x", "f": true, "g": [1], "\\ud800": 1'
    row = f'{{"step": 1, {odd}, "h": 2.5}}'
    (run / "metrics.jsonl").write_text(row + "\n" + json.dumps({"step": 2} | {f"m{n}": n for n in range(500)}) + "\n")
    first, second = folder.rows("a/pretrain", "metrics", 0, "")["rows"]
    assert first == {"step": 1, "h": 2.5}
    assert len(second) == runs_folder.MAX_FIELDS
    json.dumps([first, second], allow_nan=False).encode()


def test_samples_are_cut_and_can_be_sent(run: Path, folder: RunsFolder) -> None:
    rows = [{"step": 1, "prompt": "p" * 9000, "text": "\ud800"}, {"step": 2, "prompt": 3, "text": None}]
    (run / "samples.jsonl").write_text(lines(rows))
    first, second = folder.rows("a/pretrain", "samples", 0, "")["rows"]
    assert (len(first["prompt"]), first["text"]) == (runs_folder.MAX_TEXT, "?")
    assert second == {"step": 2, "prompt": "", "text": ""}


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"\xff", b'{"stage": 3}', b'{"stage": "\\ud800"}'])
def test_a_damaged_run_is_listed(run: Path, folder: RunsFolder, damage: bytes) -> None:
    (run / "environment.json").write_bytes(damage)
    (run / "metrics.jsonl").unlink()
    (found,) = folder.runs()
    assert (found["name"], found["age"]) == ("a/pretrain", None)
    assert found["stage"] in ("", "?")
    assert folder.rows("a/pretrain", "metrics", 0, "")["rows"] == []


def test_a_pipe_is_not_waited_for(run: Path, folder: RunsFolder) -> None:
    for name in ("metrics.jsonl", "environment.json"):
        (run / name).unlink()
        os.mkfifo(run / name)
    assert folder.rows("a/pretrain", "metrics", 0, "")["rows"] == []
    assert folder.runs()[0]["stage"] == ""


@pytest.mark.parametrize(
    "name", ["../secret", "a/../../secret", "/etc", "a/pretrain/../../../secret", "link", "a/link", "nul\0", "a" * 5000]
)
def test_no_name_leads_out_of_the_folder(run: Path, folder: RunsFolder, tmp_path: Path, name: str) -> None:
    secret = write_run(tmp_path / "secret", losses(1, 3))
    tiny_server.TOKENIZER.save(secret)
    (run.parents[1] / "link").symlink_to(secret)
    (run.parent / "link").symlink_to(secret)
    assert folder.find(name) is None
    assert folder.rows(name, "metrics", 0, "")["rows"] == []
    assert [known["name"] for known in folder.runs()] == ["a/pretrain"]
    assert folder.tokenizers() == {}


def test_a_file_that_is_a_link_out_of_the_folder_is_not_read(run: Path, folder: RunsFolder, tmp_path: Path) -> None:
    secret = write_run(tmp_path / "secret", losses(1, 3), stage="secret")
    for name in ("metrics.jsonl", "environment.json"):
        (run / name).unlink()
        (run / name).symlink_to(secret / name)
    assert folder.rows("a/pretrain", "metrics", 0, "")["rows"] == []
    assert folder.runs()[0] | {"age": None} == {"name": "a/pretrain", "stage": "", "finished": False, "age": None}


def test_of_a_runs_checkpoints_the_latest_gives_the_tokenizer(run: Path, folder: RunsFolder) -> None:
    for place in ("checkpoints/step-000010", "checkpoints/step-000020", "checkpoints/step-000030.tmp.1"):
        tiny_server.TOKENIZER.save(run / place)
    tiny_server.TOKENIZER.save(run.parent / "tokenizer")
    found = {name: path.relative_to(folder.find("") or run).as_posix() for name, path in folder.tokenizers().items()}
    assert found == {"a/pretrain": "a/pretrain/checkpoints/step-000020", "a/tokenizer": "a/tokenizer"}
