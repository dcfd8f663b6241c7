"""Prompts hold what the data says, and a row that cannot be used is named with its line."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from minimind.data.prompts import Prompt, read_prompts
from minimind.errors import ConfigError, DataError
from minimind.text.conversation import Message

ASKED = [{"role": "user", "content": "1+1?"}, {"role": "assistant", "content": ""}]


def written(folder: Path, *rows: Mapping[str, Any] | str) -> Path:
    path = folder / "prompts.jsonl"
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def test_the_placeholder_is_dropped_and_the_place_kept(tmp_path: Path) -> None:
    path = written(tmp_path, {"conversations": ASKED, "gt": ["2"]})

    assert read_prompts([path]) == [Prompt((Message("user", "1+1?"),), (), ("2",), False, f"{path}:1")]


@pytest.mark.parametrize(
    ("gt", "expected"),
    [("2", ("2",)), (2, ("2",)), (2.5, ("2.5",)), ([2, "3 "], ("2", "3")), ([], ()), (None, ())],
)
def test_gt_may_be_a_number_a_text_or_a_list_of_them(tmp_path: Path, gt: Any, expected: tuple[str, ...]) -> None:
    [prompt] = read_prompts([written(tmp_path, {"messages": ASKED, "gt": gt})])

    assert prompt.gt == expected


def no_gt(prompt: Prompt) -> str:
    return "" if prompt.gt else "has no gt"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"messages": ASKED}, "has no gt"),
        ({"messages": ASKED, "gt": []}, "has no gt"),
        ({"messages": ASKED, "gt": True}, "gt holds 'True'; expected text or numbers"),
        ({"messages": ASKED, "gt": [None]}, "gt holds 'None'"),
        ({"messages": ASKED, "gt": [" "]}, "gt holds ' '"),
        ({"messages": ASKED, "gt": {"x": 1}}, "gt holds"),
        ({"messages": ASKED[1:], "gt": "2"}, "ends with no message before the answer"),
        ({"messages": [{"role": "system", "content": "x"}], "gt": "2"}, "ends with system before the answer"),
        ({"text": "1+1?", "gt": "2"}, "the row has no list 'messages'"),
        ({"messages": [{"role": "critic", "content": "x"}], "gt": "2"}, "message 1 has role 'critic'"),
        ("{", "not JSON"),
    ],
)
def test_a_row_that_cannot_be_used_is_named_or_counted(tmp_path: Path, row: Any, reason: str) -> None:
    good = {"messages": ASKED, "gt": "2"}
    path = written(tmp_path, good, row, good)

    with pytest.raises(DataError) as error:
        read_prompts([path], problem=no_gt)
    assert str(error.value).startswith(f"{path}:2: {reason}")
    assert "max_bad_rows allows 0" in str(error.value)

    bad = []
    prompts = read_prompts([path], problem=no_gt, max_bad_rows=1, observe=bad.append)
    assert [prompt.where for prompt in prompts] == [f"{path}:1", f"{path}:3"]
    assert [row.line for row in bad] == [2]


def test_no_prompt_left_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="all 2 rows are bad, so no prompt is left"):
        read_prompts([written(tmp_path, "{", "[")], max_bad_rows=5)


def test_who_is_asked_to_think_depends_on_seed_and_place_alone(tmp_path: Path) -> None:
    path = written(tmp_path, *[{"messages": ASKED}] * 400)

    def thinking(share: float, seed: int, source: Path = path) -> list[bool]:
        return [prompt.thinking for prompt in read_prompts([source], thinking_share=share, seed=seed)]

    assert 90 < sum(thinking(0.3, 0)) < 150
    assert thinking(0.3, 0) == thinking(0.3, 0) != thinking(0.3, 1)
    # A larger share only adds to a smaller one, and more rows change nothing before them.
    assert all(more or not less for less, more in zip(thinking(0.3, 0), thinking(0.6, 0), strict=True))
    (tmp_path / "few").mkdir()
    assert thinking(0.3, 0, written(tmp_path / "few", *[{"messages": ASKED}] * 50)) == thinking(0.3, 0)[:50]
    assert sum(thinking(0.0, 0)) == 0 and sum(thinking(1.0, 0)) == 400


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_a_share_is_from_0_to_1(tmp_path: Path, share: float) -> None:
    with pytest.raises(ConfigError, match="thinking_share is"):
        read_prompts([written(tmp_path, {"messages": ASKED})], thinking_share=share)


def test_real_prompts_are_all_read(shared: Path) -> None:
    data = shared / "data"
    prompts = read_prompts([data / "agent_rl_math_valid.jsonl", data / "rl_math_valid.jsonl"], problem=no_gt)

    assert len(prompts) == 150 + 300
    assert all(prompt.messages[-1].role == "user" and len(prompt.gt) == 1 for prompt in prompts)
    assert [tool["function"]["name"] for tool in prompts[0].tools] == ["calculate_math"] and not prompts[-1].tools
    with pytest.raises(DataError, match=r"rlaif_train.jsonl:1: has no gt"):
        read_prompts([data / "rlaif_train.jsonl"], problem=no_gt)
    assert len(read_prompts([data / "rlaif_train.jsonl"])) == 3000


@pytest.mark.parametrize(
    ("row", "gt"),
    [
        ({"question": "2 apples and 3?", "answer": "2+3=5\n#### 5"}, ("5",)),
        ({"problem": "p", "solution": r"So it is \boxed{\frac{1}{2}}."}, (r"\frac{1}{2}",)),
        ({"prompt": ASKED, "reward_model": {"style": "rule", "ground_truth": "72"}, "data_source": "x"}, ("72",)),
        ({"prompt": ASKED, "ground_truth": ["1", "2"]}, ("1", "2")),
        ({"prompt": ASKED, "solution": "7"}, ("7",)),
        ({"prompt": "2+2?", "answer": 4}, ("4",)),
        ({"messages": ASKED, "gt": None}, ()),
        ({"instruction": "q", "output": "a"}, ()),
        ({"prompt": ASKED}, ()),
    ],
)
def test_what_is_right_is_read_as_public_sets_have_it(tmp_path: Path, row: dict[str, Any], gt: tuple[str, ...]) -> None:
    [prompt] = read_prompts([written(tmp_path, row)])
    assert prompt.gt == gt and prompt.messages[-1].role == "user"


def test_columns_of_prompts_are_read_by_the_names_they_are_given(tmp_path: Path) -> None:
    path = written(tmp_path, {"frage": "2+2?", "loesung": 4, "messages": ASKED})
    [prompt] = read_prompts([path], columns={"prompt": "frage", "gt": "loesung"})
    assert (prompt.messages, prompt.gt) == ((Message("user", "2+2?"),), ("4",))
