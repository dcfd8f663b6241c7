"""Compiling is weighed against what it costs, can be taken back, and changes neither names nor results."""

import random
from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest
import torch
from tests.tiny import fresh_model
from torch._dynamo.exc import TorchDynamoException
from torch._dynamo.utils import counters

from minimind.errors import ConfigError
from minimind.model import Transformer
from minimind.training import compilation
from minimind.training.compilation import compile_as_chosen, compile_blocks, compile_if_faster

# Loading and running its compiler, torch warns of its own parts.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def model() -> Transformer:
    return fresh_model()


def is_compiled(model: Transformer) -> bool:
    return all(block._compiled_call_impl is not None for block in model.layers)


def passes_of(model: Transformer, *, eager: float, compiled: float, cost: float = 0.0) -> Callable[[], None]:
    """A pass that takes some seconds by a clock of its own, the first one after compiling `cost` more."""
    was_compiled = False

    def run_once() -> None:
        nonlocal was_compiled
        seconds = compiled if is_compiled(model) else eager
        clock[0] += seconds + (cost if is_compiled(model) and not was_compiled else 0)
        was_compiled = is_compiled(model)

    return run_once


clock = [0.0]


@pytest.fixture(autouse=True)
def _clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(compilation.time, "monotonic", lambda: clock[0])
    yield


def test_a_short_run_is_never_compiled(model: Transformer) -> None:
    assert not compile_if_faster(model, passes_of(model, eager=1.0, compiled=0.01), steps=899)
    assert not is_compiled(model)


@pytest.mark.parametrize(
    ("steps", "compiled", "cost", "expected"),
    [
        (5000, 0.5, 60.0, True),
        (5000, 0.97, 0.0, False),
        (5000, 1.5, 0.0, False),
        (1000, 0.9, 60.0, True),
        (1000, 0.9, 120.0, False),
    ],
)
def test_a_long_run_is_compiled_where_it_then_ends_sooner(
    model: Transformer, steps: int, compiled: float, cost: float, expected: bool
) -> None:
    passes = passes_of(model, eager=1.0, compiled=compiled, cost=cost)
    assert compile_if_faster(model, passes, steps) == expected
    assert is_compiled(model) == expected


def test_where_nothing_can_be_compiled_the_run_goes_on_without(model: Transformer) -> None:
    """A laptop without a C++ compiler: `auto` must not end the run that it wanted to speed up."""

    def run_once() -> None:
        clock[0] += 1.0
        if is_compiled(model):
            raise TorchDynamoException("no compiler")

    assert not compile_if_faster(model, run_once, steps=5000)
    assert not is_compiled(model)


def test_asked_for_where_nothing_can_be_compiled_the_run_ends_with_a_reason(model: Transformer) -> None:
    def fail(error: Exception) -> Callable[[], None]:
        def run_once() -> None:
            raise error

        return run_once

    reason = "InvalidCxxCompiler: none found"
    with pytest.raises(ConfigError, match=f"train.compile is on, and .*: {reason}; install a C"):
        compile_as_chosen("on", model, fail(TorchDynamoException(f"{reason}\nand a page more")), steps=10)
    with pytest.raises(torch.OutOfMemoryError):
        compile_as_chosen("on", model, fail(torch.OutOfMemoryError("no memory")), steps=10)


def test_compiled_blocks_keep_the_names_of_their_weights(model: Transformer) -> None:
    names = list(model.state_dict())
    compile_blocks(model)
    assert is_compiled(model) and list(model.state_dict()) == names
    assert [name for name, _ in model.named_parameters()] == names


@pytest.mark.slow
@pytest.mark.parametrize("lengths", [None, (9, 15, 24)])
def test_a_compiled_model_computes_the_same(model: Transformer, lengths: tuple[int, ...] | None) -> None:
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    tokens = torch.randint(0, 300, (2, 24), generator=torch.Generator().manual_seed(0))

    def loss_and_gradients() -> list[torch.Tensor]:
        loss = model.logits(model.hidden_states(tokens, lengths).states).logsumexp(-1).sum()
        return [loss.detach(), *torch.autograd.grad(loss, list(model.parameters()))]

    expected = loss_and_gradients()
    compile_blocks(model)
    for ours, theirs in zip(loss_and_gradients(), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5 * float(theirs.abs().max()))


def test_graphs_do_not_grow_with_the_documents_of_a_batch() -> None:
    torch._dynamo.reset()
    model = fresh_model()
    for block in model.layers:
        block.compile(backend="eager")
    counted = []
    for size, cuts in [(64, number % 7 + 1) for number in range(20)] + [(24, 3)]:
        ends = sorted(random.Random(cuts + size).sample(range(1, size), cuts))
        lengths = tuple(end - start for start, end in pairwise([0, *ends, size]))
        model.hidden_states(torch.zeros(1, size, dtype=torch.int64), lengths).states.sum().backward()
        counted.append(counters["stats"]["unique_graphs"])
    # The last, short step is compiled once more, for any length.
    assert len(set(counted[:-1])) == 1 and counted[-1] <= 2 * counted[0]
