"""`minimind plan RECIPE.toml`: what a run will take, before it is started.

Operations and sizes are computed, times are measured by a short probe on this machine (`probe.py`). To check a
prediction: run the recipe, and compare the training time with `seconds` in the last row of its metrics.jsonl. Other
work on the machine, then or now, sets the two apart.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from minimind.config import REQUIRED, Config, find_recipe, option
from minimind.terminal.notes import note, say

if TYPE_CHECKING:
    from minimind.report.plan import Cost, Memory
    from minimind.stages.plan.planned import PlannedRun
    from minimind.stages.plan.probe import Measures

__all__ = ["PlanConfig", "run"]

# Other work for each core: above it a probe says more about that work than about the run.
BUSY_LOAD = 0.2


class PlanConfig(Config):
    """Parameters, operations, memory, steps, predicted time, disk and cost of a recipe, and what would fit.

    Options of the recipe may follow, as in --train.accumulate 8. Nothing is prepared or written; the probe trains a
    few steps of a model that is thrown away.
    """

    positional: ClassVar[str] = "recipe"
    rest: ClassVar[str] = "overrides"

    recipe: Path = option(REQUIRED, "A recipe for pretrain or sft, such as a run's own recipe.toml.")
    verb: str | None = option(None, "The stage it is for, where its name does not say so.")
    tokens: int | None = option(None, "Tokens of the training data, where they are not prepared yet.", ge=1)
    probe_seconds: float = option(5.0, "Time steps for about so long; at least 3 are.", ge=0)
    memory_gb: float | None = option(None, "Say what to change to fit into so many GB.", gt=0)
    hours: float | None = option(None, "Say what to change to end within so many hours.", gt=0)
    price_per_hour: float | None = option(None, "What an hour of this machine costs.", gt=0)
    overrides: dict[str, list[str]] = option({}, "Any option of the recipe; it wins over it.")


def run(config: PlanConfig) -> None:
    """Read, probe, print."""
    from minimind.report.plan import Memory
    from minimind.stages.plan.planned import read_planned_run, verb_of
    from minimind.stages.plan.probe import probe

    recipe = find_recipe(config.recipe)
    planned = read_planned_run(recipe, verb_of(recipe, config.verb), config.overrides, tokens=config.tokens)
    planned.notes.extend(_busy())
    if planned.config.train.compile == "auto":
        planned.notes.append("timed without torch.compile; the run tries it, and takes it where it pays for itself")
    note(f"{recipe}: {planned.verb}; probing this machine, which takes a few steps ...")
    found = probe(
        planned.trained.model,
        planned.source,
        planned.validation,
        planned.sample,
        planned.config.train,
        total_steps=planned.steps,
        seconds=config.probe_seconds,
    )
    memory = Memory.of(
        planned.shape,
        trained=found.trained,
        state=found.state,
        activation_bytes=found.activation_bytes,
        largest_group=found.largest_group,
        dtype_bytes=found.dtype.itemsize,
    )
    cost = _cost(planned, found)
    _show(config, planned, found, memory, cost)
    _advise(config, planned, memory, cost)


def _busy() -> list[str]:
    """A note where this machine has other work, before the probe adds its own."""
    load, cores = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0, os.cpu_count() or 1
    if load / cores <= BUSY_LOAD:
        return []
    return [
        f"this machine has other work (load {load:.1f} on {cores} cores), so the times are not those of the run alone"
    ]


def _checkpoint_bytes(planned: "PlannedRun", found: "Measures") -> int:
    """Weights, or those of an adapter, and what the optimisers keep, in float32."""
    total = sum(parameter.numel() for parameter in planned.trained.model.parameters())
    return 4 * ((total if planned.trained.base is None else found.trained) + found.state)


def _cost(planned: "PlannedRun", found: "Measures") -> "Cost":
    """The loop's own cadences: `training/fit.py`."""
    from minimind.report.plan import Cost

    train, steps = planned.config.train, planned.steps
    validations = -(-steps // train.valid_every)
    times = {
        "training steps": steps,
        "validations": validations + 1,
        "samples": validations,
        "checkpoints": -(-steps // train.checkpoint_every),
    }
    each = (
        found.step_seconds,
        found.valid_seconds,
        found.sample_seconds,
        found.seconds_per_byte * _checkpoint_bytes(planned, found),
    )
    return Cost(times=times, seconds_each=dict(zip(times, each, strict=True)))


def _show(config: PlanConfig, planned: "PlannedRun", found: "Measures", memory: "Memory", cost: "Cost") -> None:
    from minimind.report.parameters import count_parameters
    from minimind.report.plan import operations_per_token
    from minimind.terminal.figures import duration
    from minimind.terminal.tables import show_facts, show_table

    shape, counted = planned.shape, count_parameters(planned.shape.model)
    parts = [[name, number, f"{number / counted.total:.1%}"] for name, number in counted.parts.items()]
    show_table("Parameters", ["part", "parameters", "share"], [*parts, ["all", counted.total, "100.0%"]])
    sizes = {name: getattr(memory, name) for name in ("weights", "gradients", "optimizer", "activations", "logits")}
    sizes |= {"update (in place of activations)": memory.update, "peak, with the program itself": memory.total}
    show_table("Memory", ["part", "MB"], [[name, f"{size / 1e6:,.0f}"] for name, size in sizes.items()])
    times = [[name, cost.times[name], round(each, 3), duration(cost.seconds[name])] for name, each in _each(cost)]
    show_table("Time", ["", "times", "seconds each", "in all"], times)
    operations, tokens = operations_per_token(shape), planned.steps * shape.tokens
    checkpoint = _checkpoint_bytes(planned, found)
    kept = min(planned.config.train.keep_checkpoints, cost.times["checkpoints"]) + 1
    facts = {
        "tokens": f"{tokens:,} in {planned.steps:,} steps of {shape.tokens:,} ({shape.micro_tokens:,} at once)",
        "tokens per parameter": f"{tokens / counted.total:.1f}",
        "operations": f"{operations / 1e6:,.0f} million a token, {operations * tokens:.3g} in all",
        "rate": f"{shape.tokens / found.step_seconds:,.0f} tokens/s, "
        f"{operations * shape.tokens / found.step_seconds / 1e9:,.0f} billion operations/s, from {found.num_steps} "
        f"steps in {str(found.dtype).removeprefix('torch.')}{', compiled' * found.is_compiled}",
        "training time": f"{duration(cost.total)} ({cost.total:,.0f} s)",
        "disk": f"{kept * checkpoint / 1e6:,.0f} MB for {kept} checkpoints, one of them being written; "
        f"{planned.data_bytes / 1e6:,.0f} MB of prepared data",
    }
    if config.price_per_hour is not None:
        facts["cost"] = f"{cost.total / 3600 * config.price_per_hour:,.2f} at {config.price_per_hour:g} an hour"
    say()
    show_facts(facts)
    for remark in planned.notes:
        say(f"note: {remark}")


def _each(cost: "Cost") -> list[tuple[str, float]]:
    return [(name, cost.seconds_each[name]) for name in cost.times]


def _advise(config: PlanConfig, planned: "PlannedRun", memory: "Memory", cost: "Cost") -> None:
    from minimind.report.plan import advice_for_hours, advice_for_memory

    if config.memory_gb is not None:
        is_recomputed = planned.config.train.recompute
        lines = advice_for_memory(planned.shape, memory, config.memory_gb * 1e9, recompute=is_recomputed)
        _list(f"To fit into {config.memory_gb:g} GB", lines)
    if config.hours is not None:
        lines = advice_for_hours(planned.steps, cost, config.hours, planned.shape.tokens)
        _list(f"To end within {config.hours:g} h, one of", lines)


def _list(title: str, lines: list[str]) -> None:
    say(f"\n{title}")
    for line in lines:
        say(f"  {line}")
