"""The benchmarks run, and what they compare is comparable. What they find is not tested: that takes a quiet machine."""

import json
import math
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from minimind.evals.bits_per_byte import bits_per_byte
from minimind.interfaces import Batch
from minimind.model import Transformer
from minimind.text.tokenizer import Tokenizer
from minimind.training.settings import TrainConfig

SCRIPTS = (
    *("padding", "compute_rate", "against_transformers", "time_to_loss", "prepare"),
    *("generation", "serving", "against_llama_cpp", "lm_harness"),
)
TEXTS = [f"The {word} number {n} went home. 第{n}个故事。" * (n % 5 + 1) for n, word in enumerate(["old", "red"] * 12)]

Run = Callable[..., str]


@pytest.fixture
def benchmarks(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of scripts, importable as it is for a script that runs in it."""
    monkeypatch.syspath_prepend(repository / "benchmarks")
    return repository / "benchmarks"


@pytest.fixture
def run(benchmarks: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a script in this process and return what it printed; a new process each would import torch again."""

    def run_script(name: str, *words: object) -> str:
        script = str(benchmarks / f"{name}.py")
        monkeypatch.setattr(sys, "argv", [script, *map(str, words)])
        runpy.run_path(script, run_name="__main__")
        return capsys.readouterr().out

    return run_script


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """texts.jsonl, conversations.jsonl and a tokenizer, all tiny."""
    _write(tmp_path / "texts.jsonl", [{"text": text} for text in TEXTS])
    talk = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": TEXTS[0]}]
    _write(tmp_path / "conversations.jsonl", [{"conversations": talk}] * 6)
    Tokenizer.train(TEXTS, 320).save(tmp_path / "tokenizer")
    return tmp_path


def _write(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _sides(benchmarks: Path) -> ModuleType:
    import sides

    assert Path(str(sides.__file__)).parent == benchmarks
    return sides


@pytest.mark.parametrize("name", [*SCRIPTS, "__main__"])
def test_every_script_explains_itself(name: str, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        run(name, "--help")
    assert "usage" in capsys.readouterr().out


def test_padding_compares_speed_and_memory(run: Run, data: Path) -> None:
    inputs = [f"--{name}={data / name}.jsonl" for name in ("conversations", "texts")]
    sizes = ["--shape=tiny", "--turns=1", "--sft-batch=4", "--pretrain-batch=4", "--dtype=float32", "--context=64"]
    printed = run("padding", *inputs, *sizes, f"--tokenizer={data / 'tokenizer'}")
    assert printed.count("real tokens/s") == 2
    assert "torch" in printed and "threads" in printed
    [memory] = [line.split()[3:] for line in printed.splitlines() if line.startswith("float32, steps alone")]
    packed, padded, ratio = (float(figure.replace(",", "")) for figure in memory)
    assert 0 < packed < padded and ratio == pytest.approx(packed / padded, rel=0.05)


def test_preparation_is_timed_and_weighed_on_every_side(run: Run, data: Path) -> None:
    inputs = [f"--texts={data / 'texts.jsonl'}", f"--tokenizer={data / 'tokenizer'}", "--turns=1", "--times=2"]
    lines = [line.split() for line in run("prepare", *inputs).splitlines()]
    sides = [line for line in lines if line[:1] in (["minimind"], ["minimind,"], ["tokenizers"])]
    assert len(sides) == 6
    assert all(float(figure.replace(",", "")) > 0 for side in sides for figure in (side[-3], side[-1]))


def test_serving_is_timed_in_the_engine_and_over_http(run: Run) -> None:
    printed = run("serving", "--shape=tiny", "--batches", "2", "--prompt=4", "--new=4", "--turns=1")
    [engines, http] = [line.split()[2:] for line in printed.splitlines() if line.startswith("2 requests")]
    assert len(engines) == 6 and len(http) == 3
    assert all(float(figure.replace(",", "")) > 0 for figure in (*engines, *http[:2]))
    assert "MB for a stream of 8 tokens" in printed


def test_time_to_loss_scores_each_mark_and_the_end(run: Run, data: Path) -> None:
    inputs = [f"--texts={data / 'texts.jsonl'}", f"--valid={data / 'texts.jsonl'}", f"--tokenizer={data / 'tokenizer'}"]
    sizes = ["--shape=tiny", "--context=64", "--set=batch_tokens=128", "--set=dtype=float32"]
    printed = run("time_to_loss", *inputs, *sizes, "--seconds=1", "--marks", "0.5")
    scores = [float(line.split()[-1]) for line in printed.splitlines() if line.startswith(("0.5 s", "1 s"))]
    assert len(scores) == 2 and all(0 < score < 8 for score in scores)


def test_a_run_of_given_steps_ignores_the_clock(benchmarks: Path, data: Path) -> None:
    settings = TrainConfig(steps=3, batch_tokens=128, dtype="float32")
    run = _timed_run(benchmarks, data, settings, seconds=0.0)
    while not run.is_over:
        run.step()
    assert run.trainer.step == run.trainer.total_steps == 3


def test_a_timed_run_ends_with_its_time(benchmarks: Path, data: Path) -> None:
    # Without a level part the number of steps stays what it was, here far too many.
    run = _timed_run(benchmarks, data, TrainConfig(batch_tokens=128, cooldown=1.0), seconds=0.5)
    planned, run.trainer.total_steps = run.trainer.total_steps, 1000
    while not run.is_over:
        before = run.seconds
        run.step()
    assert before < 0.5 <= run.seconds
    assert 1 <= planned < 1000
    assert run.tokens > 0


def _timed_run(benchmarks: Path, data: Path, settings: TrainConfig, seconds: float):
    sides, common = _sides(benchmarks), sys.modules["common"]
    tokenizer = Tokenizer.load(data / "tokenizer")
    documents = common.load_texts(data / "texts.jsonl", tokenizer)
    config = common.model_shape("tiny", tokenizer.vocab_size)
    return sides.TimedRun(lambda: sides.trainer(config, documents, settings, dtype=torch.float32, context=64), seconds)


def test_both_sides_learn_the_same_tokens_of_a_conversation(benchmarks: Path, data: Path) -> None:
    sides, common = _sides(benchmarks), sys.modules["common"]
    documents = common.load_conversations(data / "conversations.jsonl", Tokenizer.load(data / "tokenizer"))
    loop = sides.PaddedLoop(torch.nn.Linear(1, 1), documents, width=1000, batch=2, dtype=torch.float32)
    source = sides.PackedRows(documents, context=64, batch_tokens=6400, seed=0)
    [batch] = source.micro_batches(0)
    assert isinstance(batch, Batch)
    learnt = loop.labels[loop.labels != sides.IGNORED]
    assert sorted(learnt.tolist()) == sorted(batch.targets[batch.weights > 0].tolist())
    assert loop.real_per_row * len(documents) == batch.num_tokens


def test_the_scorer_of_both_sides_agrees_with_the_package(benchmarks: Path, data: Path) -> None:
    _sides(benchmarks)
    common, tokenizer = sys.modules["common"], Tokenizer.load(data / "tokenizer")
    model = Transformer(common.model_shape("tiny", tokenizer.vocab_size)).eval()
    rows = [{"text": text} for text in TEXTS]
    found = common.held_out_bits_per_byte(model, tokenizer, rows, max_tokens=40)
    assert found == pytest.approx(bits_per_byte(model, tokenizer, rows, max_tokens=40).bits_per_byte, rel=1e-5)


def test_operations_are_those_that_torch_counts(benchmarks: Path) -> None:
    """Of the matrices; attention's products are counted by hand, since a kernel computes them in one piece."""
    import compute_rate
    from common import model_shape

    config, document = model_shape("tiny", 320), 16
    model = Transformer(config)
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, document, dtype=torch.int64)).sum().backward()
    counted = counter.get_flop_counts()["Global"][torch.ops.aten.mm]
    attention = 12 * config.num_hidden_layers * config.num_attention_heads * config.head_dim * (document + 1) / 2
    assert math.isclose(compute_rate.operations_per_token(config, document), counted / document + attention)


def test_sides_take_turns_and_change_who_is_first(benchmarks: Path) -> None:
    _sides(benchmarks)
    calls: list[str] = []
    seconds = sys.modules["common"].seconds_in_turn({name: lambda name=name: calls.append(name) for name in "ab"}, 2)
    assert "".join(calls) == "ab" + "ab" + "ba"
    assert seconds.keys() == {"a", "b"}
