"""Rows as the world writes them: what is learnt of each is what its convention says, and the books balance."""

import csv
import io
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from minimind.data.options import PrepareOptions
from minimind.data.pairs import read_pairs
from minimind.data.prepare import BAD_ROWS, prepare
from minimind.data.prompts import read_prompts
from minimind.data.shards import ShardSet
from minimind.errors import DataError
from minimind.text.tokenizer import Tokenizer

END = "<|im_end|>"
Made = tuple[dict[str, Any], list[str] | None]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(["How warm is it? It is 20 degrees, my friend. 今天天气很好 " * 9], 320)


def learnt(folder: Path, tokenizer: Tokenizer) -> list[str]:
    """The text with weight of each document."""
    shards = ShardSet.open(folder / "train", tokenizer)
    return [tokenizer.decode(ids[weights == 1].tolist()) for ids, weights in shards]


def turn(generator: random.Random, question: str, answer: str) -> list[dict[str, Any]]:
    role, said, asks, answers = generator.choice(
        [
            ("role", "content", "user", "assistant"),
            ("from", "value", "human", "gpt"),
            ("role", "content", "User", "model"),
        ]
    )
    return [{role: asks, said: question}, {role: answers, said: answer}]


def flagged(generator: random.Random, question: str, answer: str) -> Made:
    name, value = generator.choice(
        [("weight", 0), ("train", False), ("loss", False), ("mask", True), ("training", "no")]
    )
    bad, good = turn(generator, question, "BAD"), turn(generator, question, answer)
    bad[1][name] = value
    return {"messages": [*bad, *good]}, [answer]


def legacy(generator: random.Random, question: str, answer: str) -> Made:
    arguments = {"x": None, "q": answer}
    call = {"name": "f", "arguments": json.dumps(arguments, ensure_ascii=False)}
    said = json.dumps({"name": "f", "arguments": arguments}, ensure_ascii=False)
    calling = {"role": "assistant", "content": generator.choice([None, ""]), "function_call": call}
    messages = [{"role": "user", "content": question}, calling, {"role": "function", "name": "f", "content": "20"}]
    return {"messages": messages, "functions": [{"name": "f", "parameters": {}}]}, [
        f"<tool_call>\n{said}\n</tool_call>"
    ]


MAKERS: list[Callable[[random.Random, str, str], Made]] = [
    lambda g, q, a: ({g.choice(["messages", "conversations"]): turn(g, q, a)}, [a]),
    lambda g, q, a: ({"messages": turn(g, q, a), "prompt": q, "prompt_id": "x"}, [a]),
    lambda g, q, a: ({"messages": [*turn(g, q, ""), *turn(g, q, a)]}, [a]),
    lambda g, q, a: ({"messages": json.dumps(turn(g, q, a))}, [a]),
    lambda g, q, a: ({"instruction": q, "input": g.choice(["", "x"]), "output": a}, [a]),
    lambda g, q, a: ({"instruction": q, "context": "x", "response": a, "category": "x"}, [a]),
    lambda g, q, a: ({"prompt": turn(g, q, "no")[:1], "completion": [{"role": "assistant", "content": a}]}, [a]),
    lambda g, q, a: ({"prompt": [*turn(g, q, "no"), *turn(g, q, "no")[:1]], "completion": a}, [a]),
    lambda g, q, a: ({"query": q, "response": a, "history": [[q, "earlier"]]}, ["earlier", a]),
    lambda g, q, a: ({"question": q, "answer": a}, [a]),
    lambda g, q, a: ({"system_prompt": "Be kind", "question": q, "response": a}, [a]),
    lambda g, q, a: ({"conversation": [{"input": q, "output": a}]}, [a]),
    flagged,
    legacy,
    # What is not to be learnt, or is not read here, has a name.
    lambda g, q, a: ({"messages": turn(g, q, a), "train": False}, None),
    lambda g, q, a: ({"messages": turn(g, q, " ")}, None),
    lambda g, q, a: ({"prompt": q, "completion": a, "label": g.choice([True, False])}, None),
    lambda g, q, a: ({"system": "s", "question": q, "chosen": a, "rejected": "no"}, None),
    lambda g, q, a: ({"messages": [{"role": "critic", "content": a}]}, None),
    lambda g, q, a: ({"messages": [*turn(g, q, a)[:1], {"role": "assistant", "content": a, "weight": 0.5}]}, None),
    lambda g, q, a: ({"content": a}, None),
    lambda g, q, a: ({"input_ids": [1, 2]}, None),
]


def made(generator: random.Random, count: int) -> Iterator[Made]:
    for number in range(count):
        question, answer = (
            f"How warm is it? {number}",
            generator.choice(["It is {}.", "今天 {}", "{}\nmy friend"]).format(number),
        )
        row, expected = generator.choice(MAKERS)(generator, question, answer)
        for name in generator.sample(["text", "messages", "output", "rejected", "tools", "weight"], 3):
            row.setdefault(name, None)
        for name in generator.sample(["id", "source", "my_mask", "Loss", "画"], generator.randrange(3)):
            row.setdefault(name, generator.choice([1, "x", [0], {"a": None}]))
        yield row, expected


def test_a_thousand_rows_of_all_shapes_are_learnt_or_named(tmp_path: Path, tokenizer: Tokenizer) -> None:
    generator = random.Random(13)
    rows = list(made(generator, 1000))
    # The first row says what the file holds.
    rows.insert(0, ({"messages": turn(generator, "q", "a")}, ["a"]))
    lines = [json.dumps(row, ensure_ascii=generator.random() < 0.5) for row, _ in rows]
    (tmp_path / "x.jsonl").write_text("\ufeff" + "\r\n".join(lines) + "\n", encoding="utf-8")
    (tmp_path / "y.json").write_text(json.dumps([row for row, _ in rows], indent=1), encoding="utf-8")
    found = []
    for name in ("x.jsonl", "y.json"):
        options = PrepareOptions(valid_fraction=0, max_bad_rows=1000, workers=1)
        report = prepare([tmp_path / name], tokenizer, tmp_path / f"{name}.out", options)
        assert report.lines == report.read.documents + report.bad_rows + report.blank_lines == 1001
        assert report.read.documents == report.train.documents + sum(c.documents for c in report.dropped.values())
        assert report.dropped.keys() == {"no_answer", "not_to_be_learnt"}
        assert {"my_mask", "Loss", "画"} <= {*report.may_matter} and "id" in report.unread
        log = (tmp_path / f"{name}.out" / BAD_ROWS).read_text(encoding="utf-8").splitlines()
        assert len(log) == report.bad_rows and "Traceback" not in "".join(log)
        found.append(learnt(tmp_path / f"{name}.out", tokenizer))
    expected = ["".join(answer + END for answer in answers) for _, answers in rows if answers]
    assert found[0] == found[1] == expected


@pytest.mark.parametrize(("ending", "separator"), [("csv", ","), ("csv", ";"), ("tsv", "\t")])
def test_a_table_is_learnt_as_its_lines_would_be(
    tmp_path: Path, tokenizer: Tokenizer, ending: str, separator: str
) -> None:
    generator, memory = random.Random(ending), io.StringIO()
    rows = [{"question": f'a "{n}", {separator}\nline', "answer": f"今天 {n}"} for n in range(50)]
    writer = csv.DictWriter(memory, ["question", "answer"], delimiter=separator)
    writer.writeheader()
    writer.writerows(generator.sample(rows, 50))
    (tmp_path / f"x.{ending}").write_text(memory.getvalue(), encoding="utf-8-sig", newline="")
    prepare([tmp_path / f"x.{ending}"], tokenizer, tmp_path / "out", PrepareOptions(valid_fraction=0))
    assert sorted(learnt(tmp_path / "out", tokenizer)) == sorted(row["answer"] + END for row in rows)


LEARNT = {
    **{name: ["It is 20 degrees."] for name in ("weight0", "train_false", "loss_false", "mask_true")},
    **{name: ["Rome"] for name in ("prompt_completion", "prompt_completion_chat", "query_response")},
    **{name: ["Hi"] for name in ("array", "array_oneline", "instruction_response")},
    "null_union": ["Good day", "Hello"],
    "null_alpaca": ["Hello", "Hello"],
    "question_answer": ["2+3=5\n#### 5"],
    "openorca": ["Hello"],
    "ultrachat": ["Yo"],
    "array.json": ["Hi"],
    "table.tsv": ["b"],
    "union.parquet": ["Good day", "Hello"],
    "union_alpaca.parquet": ["Hello", "Hi"],
}


@pytest.fixture
def cases(shared: Path) -> Path:
    if not (shared / "cases").is_dir():
        pytest.skip("no folder of cases")
    return shared / "cases"


@pytest.mark.parametrize("name", LEARNT)
def test_a_case_is_learnt_as_its_convention_says(cases: Path, tmp_path: Path, tokenizer: Tokenizer, name: str) -> None:
    source = cases / (name if "." in name else f"{name}.jsonl")
    prepare([source], tokenizer, tmp_path / "out", PrepareOptions(valid_fraction=0))
    assert learnt(tmp_path / "out", tokenizer) == [answer + END for answer in LEARNT[name]]


def test_cases_of_calls_are_one_call_with_the_arguments_that_were_written(
    cases: Path, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    for name in ("legacy_functions.jsonl", "legacy_functions_null.jsonl", "tools_struct.parquet"):
        prepare([cases / name], tokenizer, tmp_path / name, PrepareOptions(valid_fraction=0))
        first, *_ = learnt(tmp_path / name, tokenizer)
        assert first.count("<tool_call>") == 1 and '"arguments": {"city": "Rome"}' in first


def test_cases_that_are_no_text_or_no_rows_are_refused_by_what_they_are(
    cases: Path, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    for name, words in (("page.txt", "page of HTML"), ("bom_twice.jsonl", "byte order mark"), ("kto.jsonl", "KTO")):
        with pytest.raises(DataError, match=words):
            prepare([cases / name], tokenizer, tmp_path / "out", PrepareOptions(valid_fraction=0))


def test_cases_of_pairs_hold_what_was_asked(cases: Path, tokenizer: Tokenizer) -> None:
    for name, asked in (("orca_dpo.jsonl", "What is 0?"), ("dpo_hh.jsonl", "Why?")):
        side = read_pairs([cases / name], tokenizer, context=512).rows[0]
        assert asked in tokenizer.decode(side.ids.tolist())
        assert asked not in tokenizer.decode(side.ids[side.weights == 1].tolist())


def test_a_case_of_mixed_files_is_read_whole(cases: Path, tmp_path: Path, tokenizer: Tokenizer) -> None:
    report = prepare([cases / "mixed_folder"], tokenizer, tmp_path / "out", PrepareOptions(valid_fraction=0))
    assert report.train.documents == 82 and len(report.sources) == 6 and report.unread_files == {}


def test_a_case_of_a_question_has_what_is_right(cases: Path) -> None:
    assert read_prompts([cases / "question_answer.jsonl"])[0].gt == ("5",)
