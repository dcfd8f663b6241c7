"""Two processes = one: the same rows give the same losses, gradients and weights, whoever computes which.

This file is also the program of each process: `python test_ranks.py` with the environment of torchrun. A process alone
runs the same program in the test itself.
"""

import hashlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import minimind
from minimind.data.loader import PackedRows
from minimind.errors import TrainingError
from minimind.interfaces import Batch
from minimind.model import ModelConfig, Transformer
from minimind.objectives.next_token import NextToken
from minimind.training.distributed import World, join, leave
from minimind.training.optimizer import make_optimizers
from minimind.training.settings import TrainConfig
from minimind.training.trainer import Trainer

CONTEXT = 16
KINDS: dict[str, dict[str, Any]] = {"dense": {}, "mixture": {"num_experts": 4, "num_experts_per_tok": 2}}
ACCUMULATE = (1, 3)
# Rows of a step: an odd number; fewer than processes; and in the last step of an epoch whatever is left.
ROWS = (5, 1)


class Documents:
    """Every fourth without weight, others with fractions; two of the first six rows are therefore lighter."""

    def __init__(self) -> None:
        random = np.random.default_rng(0)
        self.lengths = random.choice([2, 3, 5, 8, 13, 20, 45], 24)
        self.ids = [random.integers(0, 300, size) for size in self.lengths]
        self.weights = [
            (random.random(size) * (number % 4 > 0)).astype(np.float32) for number, size in enumerate(self.lengths)
        ]

    def __getitem__(self, document: int) -> tuple[np.ndarray, np.ndarray]:
        return self.ids[document], self.weights[document]


class Spoilt:
    """The same source, but what rank 1 gets in step 1 weighs NaN: the others can know it from the sums alone."""

    def __init__(self, source: PackedRows) -> None:
        self.source = source

    def micro_batches(self, step: int) -> Sequence[Batch]:
        batches = self.source.micro_batches(step)
        if step == 1 and self.source.rank == 1:
            batches[0].weights.fill_(torch.nan)
        return batches

    def accepts(self, metrics: Mapping[str, float]) -> bool:
        return True


def make_trainer(world: World, kind: str, *, accumulate: int = 1, rows: int = 5, documents: Any = None) -> Trainer:
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    shape |= {"vocab_size": 300, "head_dim": 8, "intermediate_size": 48, "moe_intermediate_size": 24}
    model = Transformer(ModelConfig(**{**shape, **KINDS[kind]}))
    source = PackedRows(
        documents or Documents(),
        context=CONTEXT,
        batch_tokens=rows * CONTEXT,
        seed=0,
        accumulate=accumulate,
        rank=world.rank,
        ranks=world.size,
    )
    rates: dict[str, Any] = {"muon_lr": 0.02, "lr": 0.01, "embedding_lr": 0.01, "weight_decay": 0.0}
    return Trainer(
        model=model,
        objective=NextToken(0.3),
        source=source,
        # In bfloat16 the iteration would turn a difference in the last bit into one of a percent.
        optimizers=make_optimizers(model, name="muon", betas=(0.8, 0.95), dtype=torch.float32, **rates),
        settings=TrainConfig(warmup_steps=1),
        total_steps=20,
        world=world,
    )


def weights_of(trainer: Trainer) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in trainer.model.parameters()])


def digest(trainer: Trainer) -> str:
    return hashlib.sha256(weights_of(trainer).numpy().tobytes()).hexdigest()


def follow(trainer: Trainer, steps: Iterable[int]) -> dict[str, Any]:
    """Metrics of these steps, and where they lead."""
    names = ("loss", "gradient_norm", "router_balance", "tokens", "skipped", "stop")
    rows = []
    for step in steps:
        trainer.step = step
        update = trainer.update(stop=step == 1 and trainer.world.rank == trainer.world.size - 1)
        found = {**update.figures, **asdict(update), "tokens": trainer.tokens}
        rows.append({name: found[name] for name in names if name in found})
    return {"metrics": rows, "digest": digest(trainer), "weights": weights_of(trainer).tolist()}


def work(world: World) -> dict[str, Any]:
    """Everything this process learns, by the name of the case."""
    answers: dict[str, Any] = {}
    for kind in KINDS:
        for rows in ROWS:
            for accumulate in ACCUMULATE:
                trainer = make_trainer(world, kind, accumulate=accumulate, rows=rows)
                assert isinstance(trainer.source, PackedRows)
                last = trainer.source.steps_per_epoch - 1
                answers[f"{kind} {rows} {accumulate}"] = follow(trainer, [0, 1, 2, 3, last])
    trainer = make_trainer(world, "dense")
    valid = list(trainer.source.micro_batches(0)) + list(trainer.source.micro_batches(1))
    answers["measured"] = trainer.measure(valid)["loss"]
    spoilt = make_trainer(world, "dense")
    assert isinstance(spoilt.source, PackedRows)
    spoilt.source = Spoilt(spoilt.source)
    answers["spoilt"] = [(spoilt.update().skipped, digest(spoilt)) for _ in range(3)]
    answers["empty"] = error_of_a_step_without_weight(world)
    return answers


def error_of_a_step_without_weight(world: World) -> str:
    documents = Documents()
    for weights in documents.weights:
        weights.fill(0)
    try:
        make_trainer(world, "dense", documents=documents).update()
    except TrainingError as error:
        return str(error)
    return ""


@pytest.fixture(scope="module")
def two() -> list[dict[str, Any]]:
    """The answers of rank 0 and of rank 1."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    source = str(Path(str(minimind.__file__)).parents[1])
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "PYTHONPATH": source}
    processes = [
        subprocess.Popen(
            [sys.executable, __file__],
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    return [json.loads(process.communicate(timeout=100)[0].splitlines()[-1]) for process in processes]


@pytest.fixture(scope="module")
def one() -> dict[str, Any]:
    return work(World())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("accumulate", ACCUMULATE)
def test_two_processes_learn_what_one_learns(
    one: dict[str, Any], two: list[dict[str, Any]], kind: str, rows: int, accumulate: int
) -> None:
    alone, together = one[f"{kind} {rows} 1"], two[0][f"{kind} {rows} {accumulate}"]
    for number, (ours, expected) in enumerate(zip(together["metrics"], alone["metrics"], strict=True)):
        # After the first update the weights themselves differ by rounding.
        slack = 1e-6 if number == 0 else 1e-5
        assert ours["loss"] == pytest.approx(expected["loss"], rel=slack)
        assert ours["gradient_norm"] == pytest.approx(expected["gradient_norm"], rel=10 * slack)
        assert ours.get("router_balance", 0) == pytest.approx(expected.get("router_balance", 0), rel=10 * slack)
        assert (ours["tokens"], ours["skipped"]) == (expected["tokens"], 0)
    assert ours["loss"] < together["metrics"][0]["loss"] or rows == 1, "something was learnt"
    torch.testing.assert_close(torch.tensor(together["weights"]), torch.tensor(alone["weights"]), atol=1e-4, rtol=0)


def test_ranks_agree_to_the_last_bit(two: list[dict[str, Any]]) -> None:
    assert two[0] == two[1]


def test_a_stop_that_the_last_rank_asked_for_reaches_all_at_the_same_step(two: list[dict[str, Any]]) -> None:
    for answers in two:
        assert [bool(row["stop"]) for row in answers["dense 5 1"]["metrics"]] == [False, True, False, False, False]


def test_measuring_over_all_ranks_is_measuring_all_rows(one: dict[str, Any], two: list[dict[str, Any]]) -> None:
    assert [answers["measured"] for answers in two] == pytest.approx([one["measured"]] * 2, rel=1e-6)


def test_a_nan_on_one_rank_is_skipped_by_all(two: list[dict[str, Any]]) -> None:
    for answers in two:
        (first, before), (second, after), (third, later) = answers["spoilt"]
        assert (first, second, third) == (0, 1, 0) and before == after != later


def test_a_step_without_weight_ends_every_rank_with_the_same_line(two: list[dict[str, Any]]) -> None:
    assert two[0]["empty"] == two[1]["empty"] and "none of its 78 tokens has weight" in two[0]["empty"]


if __name__ == "__main__":
    print(json.dumps(work(join("cpu"))), flush=True)
    leave()
