"""Preparing: every row is somewhere, the same input gives the same bytes, and a failure leaves nothing behind."""

import json
import os
import random
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from minimind.data.options import CleanConfig, DedupConfig, PrepareOptions
from minimind.data.prepare import BAD_ROWS, prepare
from minimind.data.shard_index import read_index
from minimind.data.shards import ShardSet
from minimind.errors import DataError
from minimind.storage.verify import verify_folder
from minimind.text.tokenizer import Tokenizer

WriteRows = Callable[..., Path]


def texts(count: int) -> list[dict[str, str]]:
    generator = random.Random(0)
    words = ["the", "cat", "sat", "on", "mat", "looked", "at", "sun", "今天", "天气", "很好"]
    return [{"text": " ".join(generator.choices(words, k=12)) + f" {number}"} for number in range(count)]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def is_clean(folder: Path, *expected: str) -> bool:
    """Is there nothing but what is expected, no half-written folder either?"""
    return sorted(path.name for path in folder.iterdir()) == sorted(expected)


def test_real_text_becomes_what_a_plain_loop_makes_of_it(shared: Path, tmp_path: Path, tokenizer: Tokenizer) -> None:
    source = shared / "data" / "pretrain_valid.jsonl"
    report = prepare([source], tokenizer, tmp_path / "out", PrepareOptions(valid_fraction=0, workers=1))
    rows = [json.loads(line)["text"] for line in source.read_text(encoding="utf-8").splitlines()]
    shards = ShardSet.open(tmp_path / "out" / "train", tokenizer)
    assert shards.kind == "text" and len(shards) == len(rows) == report.train.documents
    for (ids, weights), text in zip(shards, rows, strict=True):
        assert ids.tolist() == [tokenizer.bos_id, *tokenizer.encode(text), tokenizer.eos_id]
        assert weights[0] == 0 and (weights[1:] == 1).all()
    assert shards.num_bytes == sum(len(text.encode()) for text in rows)
    assert not (tmp_path / "out" / "valid").exists()


def test_real_conversations_are_all_there_and_the_books_balance(
    shared: Path, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    sources = [shared / "data" / name for name in ("sft_valid.jsonl", "tool_valid.jsonl")]
    options = PrepareOptions(valid_fraction=0.1, clean=CleanConfig(min_characters=40), dedup=DedupConfig(near=True))
    report = prepare(sources, tokenizer, tmp_path / "out", options)
    train, valid = (ShardSet.open(tmp_path / "out" / name, tokenizer) for name in ("train", "valid"))
    assert report.read.documents == report.lines == 354 + 170
    assert report.dropped.keys() >= {"too_short", "near_duplicate"}
    dropped = sum(counts.tokens for counts in report.dropped.values())
    assert report.read.tokens == train.num_tokens + valid.num_tokens + dropped
    assert report.train.weighted == train.num_weighted == sum(int(weights.sum()) for _, weights in train)
    sizes = np.array([len(token) for token in tokenizer.token_bytes])
    assert train.num_bytes == sum(int(sizes[ids[weights == 1]].sum()) for ids, weights in train)


def test_the_same_input_gives_the_same_bytes_whatever_the_number_of_workers(
    write_rows: WriteRows, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    rows = texts(300)
    for number in range(6):
        write_rows(f"data/{number}.jsonl", rows[50 * number : 50 * number + 60])
    results = []
    for name, workers in (("a", 1), ("b", 2), ("c", 1)):
        options = PrepareOptions(valid_fraction=0.1, dedup=DedupConfig(near=True), workers=workers)
        prepare([tmp_path / "data"], tokenizer, tmp_path / name, options)
        results.append(contents(tmp_path / name))
    assert results[0] == results[1] == results[2]
    assert "train/00000.ids.bin" in results[0]


def test_order_is_that_of_the_rows(write_rows: WriteRows, tmp_path: Path, tokenizer: Tokenizer) -> None:
    path = write_rows("x.jsonl", texts(100))
    prepare([path], tokenizer, tmp_path / "out", PrepareOptions(valid_fraction=0.2))
    for name in ("train", "valid"):
        found = [tokenizer.decode(ids[1:-1]) for ids, _ in ShardSet.open(tmp_path / "out" / name, tokenizer)]
        assert found and found == [row["text"] for row in texts(100) if row["text"] in found]


def test_bad_rows_within_the_limit_are_listed_beside_the_shards(tmp_path: Path, tokenizer: Tokenizer) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"text": "the cat"}\n\xff\n\n{"text": 4}\n{"text": "sat"}\n{"text": "on')
    report = prepare([path], tokenizer, tmp_path / "out", PrepareOptions(valid_fraction=0, max_bad_rows=3))
    assert (report.lines, report.train.documents, report.bad_rows, report.blank_lines) == (6, 2, 3, 1)
    assert (tmp_path / "out" / BAD_ROWS).read_text().splitlines() == [
        f"{path}:2: not UTF-8: byte 0xff at byte 1",
        f"{path}:4: column 'text' is a int; expected text",
        f"{path}:6: not JSON: Unterminated string starting at at column 10; the file ends within this line",
    ]
    with pytest.raises(DataError, match=rf"^{path}:6: .* \(bad row 3, max_bad_rows allows 2; raise it"):
        prepare([path], tokenizer, tmp_path / "other", PrepareOptions(max_bad_rows=2))
    assert is_clean(tmp_path, "x.jsonl", "out")


def test_a_validation_source_is_used_whole_and_its_leaks_are_counted(
    write_rows: WriteRows, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    rows = texts(60)
    train, valid = write_rows("train.jsonl", rows[:50]), write_rows("valid.jsonl", rows[45:])
    report = prepare([train], tokenizer, tmp_path / "out", PrepareOptions(valid=[str(valid)]))
    assert (report.train.documents, report.valid.documents, report.leaks) == (50, 15, 5)
    options = PrepareOptions(valid=[str(valid)], dedup=DedupConfig())
    report = prepare([train], tokenizer, tmp_path / "out", options)
    assert (report.train.documents, report.valid.documents, report.leaks) == (45, 15, 0)
    assert report.dropped["in_validation"].documents == 5


def test_adding_data_moves_no_document_to_the_other_side(
    write_rows: WriteRows, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    sides = []
    for name, rows in (("few", texts(100)[20:80]), ("many", texts(200))):
        prepare([write_rows(f"{name}.jsonl", rows)], tokenizer, tmp_path / name, PrepareOptions(valid_fraction=0.3))
        sides.append({tokenizer.decode(ids) for ids, _ in ShardSet.open(tmp_path / name / "valid", tokenizer)})
    assert sides[0] and sides[0] == sides[1] & {f"<|im_start|>{row['text']}<|im_end|>" for row in texts(100)[20:80]}


def test_what_was_prepared_is_replaced_and_anything_else_is_not(
    write_rows: WriteRows, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    path, out = write_rows("x.jsonl", texts(10)), tmp_path / "out"
    options = PrepareOptions(valid_fraction=0)
    prepare([path], tokenizer, out, options)
    prepare([write_rows("y.jsonl", texts(20))], tokenizer, out, options)
    assert len(ShardSet.open(out / "train", tokenizer)) == 20
    verify_folder(out)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(DataError, match="exists"):
        prepare([path], tokenizer, tmp_path / "mine", options)
    write_rows("out/x.jsonl", texts(10))
    with pytest.raises(DataError, match=r"would be replaced, but .*/out/x.jsonl is read from it"):
        prepare([out], tokenizer, out, options)
    assert (tmp_path / "mine" / "thesis.txt").exists() and (out / "x.jsonl").exists()


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([{"text": " "}], {}, "no document is left to train on: 1 documents read, 0 bad rows; empty 1"),
        ([{"body": "x"}], {}, "x.jsonl:1: has no column 'text' and no conversation, but 'body'; name the column"),
        ([{"text": "a"}, {"messages": []}], {}, "x.jsonl:2: holds a conversation where a text is expected"),
        ([{"text": "a b"}], {"clean": CleanConfig()}, "no document is left to train on: .*too_short 1"),
        ([], {}, "x.jsonl: has no rows"),
        ([{"chosen": [], "rejected": []}], {}, r"x.jsonl:1: has preference pairs \(chosen, rejected\)"),
    ],
)
def test_nothing_left_is_an_error_that_says_where_it_went(
    write_rows: WriteRows, tmp_path: Path, tokenizer: Tokenizer, rows: list, options: dict, message: str
) -> None:
    with pytest.raises(DataError, match=message) as error:
        prepare([write_rows("x.jsonl", rows)], tokenizer, tmp_path / "out", PrepareOptions(**options))
    assert "\n" not in str(error.value) and is_clean(tmp_path, "x.jsonl")


def test_a_corpus_too_small_for_the_fraction_has_no_validation(
    write_rows: WriteRows, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    report = prepare([write_rows("x.jsonl", [{"text": "one"}])], tokenizer, tmp_path / "out")
    assert report.valid.documents == 0 and not (tmp_path / "out" / "valid").exists()


def test_a_source_larger_than_the_disk_is_refused_before_it_is_read(tmp_path: Path, tokenizer: Tokenizer) -> None:
    with (tmp_path / "x.jsonl").open("wb") as file:
        file.truncate(15 << 40)
    with pytest.raises(DataError, match=rf"^{tmp_path}/out: needs [\d,]+ MB and the disk has [\d,]+ MB free"):
        prepare([tmp_path / "x.jsonl"], tokenizer, tmp_path / "out")
    assert is_clean(tmp_path, "x.jsonl")


def test_a_disk_that_fills_up_leaves_nothing_and_names_path_need_and_free(
    write_rows: WriteRows, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    path = write_rows("x.jsonl", texts(2000))
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        # A file may not grow over 20 kB: writing then fails as on a full disk.
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
        with pytest.raises(DataError) as error:
            prepare([path], tokenizer, tmp_path / "out", PrepareOptions(workers=1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert str(error.value).startswith(
        f"{tmp_path}/out: cannot be written: File too large; it needs about 0 MB and the"
    )
    assert is_clean(tmp_path, "x.jsonl")


PROGRAM = """
import sys
from minimind.data.prepare import prepare
from minimind.text.tokenizer import Tokenizer

if __name__ == "__main__":
    prepare(["-"], Tokenizer.load(sys.argv[1]), sys.argv[2], observe=lambda at: print(at.documents, flush=True))
"""


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
def test_ctrl_c_leaves_nothing_behind(tmp_path: Path, tokenizer: Tokenizer) -> None:
    tokenizer.save(tmp_path / "tokenizer")
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [sys.executable, str(tmp_path / "program.py"), str(tmp_path / "tokenizer"), str(tmp_path / "out")]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True) as process:
        assert process.stdin and process.stdout and process.stderr
        row = json.dumps({"text": "the cat sat " * 200}).encode() + b"\n"
        process.stdin.write(row * 3200)
        process.stdin.flush()
        assert int(process.stdout.readline()) > 0
        assert not is_clean(tmp_path, "tokenizer", "program.py")
        # As a terminal does: to the workers too.
        os.killpg(process.pid, signal.SIGINT)
        error = process.stderr.read().decode()
    assert process.returncode == -signal.SIGINT and error.count("Traceback") == 1, error
    assert is_clean(tmp_path, "tokenizer", "program.py")


def test_the_index_tells_how_the_data_was_made(write_rows: WriteRows, tmp_path: Path, tokenizer: Tokenizer) -> None:
    path = write_rows("x.jsonl", texts(50))
    prepare([path], tokenizer, tmp_path / "out", PrepareOptions(valid_fraction=0.5, workers=1))
    train, valid = (read_index(tmp_path / "out" / name) for name in ("train", "valid"))
    assert train.report == valid.report
    assert train.report["sources"] == [{"name": str(path), "bytes": path.stat().st_size}]
    assert train.report["options"]["valid_fraction"] == 0.5 and "workers" not in train.report["options"]


def test_progress_ends_at_the_total(write_rows: WriteRows, tmp_path: Path, tokenizer: Tokenizer) -> None:
    seen = []
    train, valid = write_rows("x.jsonl", texts(50)), write_rows("y.jsonl", texts(9))
    prepare([train], tokenizer, tmp_path / "out", PrepareOptions(valid=[str(valid)]), observe=seen.append)
    assert seen[-1].position == seen[-1].total == train.stat().st_size + valid.stat().st_size
    assert seen[-1].documents == 59 and [at.position for at in seen] == sorted(at.position for at in seen)
