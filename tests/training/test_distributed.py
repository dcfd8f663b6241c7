"""Two processes add what they have, exactly, and neither waits for ever for one that hangs.

This file is also the program of each process: `python test_distributed.py` with the environment of torchrun.
"""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from minimind.training import distributed
from minimind.training.distributed import World, join, leave

SHAPES = [(3, 5), (7,), (2, 2, 2), (11,), (1,)]
TIMEOUT_SECONDS = 3.0


def parameters(rank: int) -> list[nn.Parameter]:
    """Values and gradients that differ between ranks; the last one has a gradient on rank 0 alone."""
    found = []
    for number, shape in enumerate(SHAPES):
        generator = torch.Generator().manual_seed(10 * rank + number)
        parameter = nn.Parameter(torch.randn(shape, generator=generator))
        if rank == 0 or number < len(SHAPES) - 1:
            parameter.grad = torch.randn(shape, generator=generator)
        found.append(parameter)
    return found


def work() -> dict[str, Any]:
    """What one process does; its answers are compared with what follows from both."""
    world = join("cpu", timeout_seconds=TIMEOUT_SECONDS)
    answers: dict[str, Any] = {"rank": world.rank, "size": world.size, "is_main": world.is_main}
    answers["sum"] = world.sum([2.0**40 + world.rank, 0.5, float("nan") if world.rank else 1.0])
    for name, elements in (("one bucket", 1 << 20), ("many buckets", 8), ("a bucket each", 1)):
        distributed.BUCKET_ELEMENTS = elements
        mine = parameters(world.rank)
        world.sum_gradients(mine)
        answers[name] = [parameter.grad.tolist() for parameter in mine if parameter.grad is not None]
    mine = parameters(world.rank)
    world.copy_from_main(mine)
    answers["copied"] = [parameter.tolist() for parameter in mine]
    world.wait()
    if world.rank == 1:
        time.sleep(TIMEOUT_SECONDS + 2)
        return answers
    start = time.monotonic()
    try:
        world.sum([1.0])
    except RuntimeError as error:
        answers |= {"waited": time.monotonic() - start, "error": str(error)}
    return answers


@pytest.fixture(scope="module")
def answers() -> Iterator[list[dict[str, Any]]]:
    """Of rank 0 and of rank 1."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    source = str(Path(distributed.__file__).parents[2])
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "PYTHONPATH": source}
    processes = [
        subprocess.Popen(
            [sys.executable, __file__],
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    # On a busy machine one may be ready seconds before the other, and the short timeout is meant for later.
    for process in processes:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    outputs = [process.communicate(timeout=60)[0] for process in processes]
    yield [json.loads(output.splitlines()[-1]) for output in outputs]


def test_processes_know_their_place(answers: list[dict[str, Any]]) -> None:
    assert [(a["rank"], a["size"], a["is_main"]) for a in answers] == [(0, 2, True), (1, 2, False)]


def test_figures_are_added_exactly_and_a_nan_reaches_all(answers: list[dict[str, Any]]) -> None:
    for answer in answers:
        assert answer["sum"][:2] == [2.0**41 + 1, 1.0] and answer["sum"][2] != answer["sum"][2]


@pytest.mark.parametrize("buckets", ["one bucket", "many buckets", "a bucket each"])
def test_gradients_are_added_and_one_that_is_missing_counts_as_zero(
    answers: list[dict[str, Any]], buckets: str
) -> None:
    for number, (one, other) in enumerate(zip(parameters(0), parameters(1), strict=True)):
        assert one.grad is not None
        expected = one.grad if other.grad is None else one.grad + other.grad
        for answer in answers:
            assert torch.equal(torch.tensor(answer[buckets][number]), expected)


def test_all_ranks_start_from_the_weights_of_the_first(answers: list[dict[str, Any]]) -> None:
    expected = [parameter.tolist() for parameter in parameters(0)]
    assert [answer["copied"] for answer in answers] == [expected, expected]


def test_a_rank_that_hangs_is_waited_for_no_longer_than_the_timeout(answers: list[dict[str, Any]]) -> None:
    assert answers[0]["waited"] < TIMEOUT_SECONDS + 1 and "error" in answers[0]


def test_a_single_process_is_a_world_of_its_own() -> None:
    world = join("cpu")
    assert world == World() and world.is_main
    (parameter, *_) = mine = parameters(0)
    before = parameter.grad
    world.sum_gradients(mine)
    world.copy_from_main(mine)
    world.wait()
    leave()
    assert parameter.grad is before and world.sum([0.1, 3]) == [0.1, 3.0]


if __name__ == "__main__":
    print("ready", flush=True)
    sys.stdin.readline()
    print(json.dumps(work()), flush=True)
    # A group whose timeout ran out cannot be left in good order.
    os._exit(0)
