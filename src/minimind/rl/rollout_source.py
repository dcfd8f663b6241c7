"""A Source that samples from the policy: prompts -> rollouts -> scores -> advantages -> batches.

An *iteration* is one set of rollouts. Each of its `updates` steps learns from all of it; then the policy, now another,
is sampled anew. What the policy said of its tokens when they were new is computed once, by the very function,
micro-batches and precision that training uses: so the ratio of new to old policy is exactly 1 at the first step.
Which prompts an iteration takes, and what is drawn for them, depends on the seed and the iteration, not on ranks.
"""

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

from minimind.data.prompts import Prompt
from minimind.errors import TrainingError, UserError
from minimind.interfaces import RolloutBatch
from minimind.rl.credit import RolloutModels, credit
from minimind.rl.experience import (
    STATE_FILE,
    Experience,
    Iteration,
    collate_rollouts,
    cut,
    merge_iterations,
    read_iteration,
)
from minimind.rl.figures import complaints, drop_reason, figure_names, sum_figures
from minimind.rl.rewards import Rewards
from minimind.rl.rollouts import Rollout, RolloutSettings
from minimind.rl.sampler import RolloutSampler
from minimind.rl.traces import TraceWriter
from minimind.terminal.notes import warn
from minimind.training.distributed import World
from minimind.training.epoch_source import EpochSource

__all__ = ["RolloutSource"]

ALONE = World()


class RolloutSource(EpochSource):
    """A source of batches that samples from the policy in training.

    `timings` has the last step's seconds in generation, scoring and logprobs, where it sampled.

    models: the policy, and what it is compared with
    world:  rank r takes every prompt of a step that is r modulo the ranks; all of them have to call `state_files`
    traces: where rollouts are written down; None on ranks that write none
    """

    def __init__(
        self,
        sampler: RolloutSampler,
        prompts: Sequence[Prompt],
        rewards: Rewards,
        models: RolloutModels,
        settings: RolloutSettings,
        *,
        world: World = ALONE,
        traces: TraceWriter | None = None,
    ) -> None:
        drawn = sampler.sampling
        is_plain = drawn.top_p == 1 and not drawn.top_k and not drawn.min_p and drawn.repetition_penalty == 1
        assert is_plain and drawn.temperature > 0, f"log-probabilities are of softmax(logits / T) alone, not of {drawn}"
        assert settings.max_tokens == drawn.max_tokens * sampler.max_turns, (settings, drawn)
        assert (models.critic is None) == (settings.loss.advantages is not None), f"who compares for {settings.loss}?"
        super().__init__(
            len(prompts),
            settings.prompts_per_step,
            seed=settings.seed,
            accumulate=settings.accumulate,
            rank=world.rank,
            ranks=world.size,
            stream=2,
        )
        self.steps_per_epoch *= settings.updates
        self.sampler, self.prompts, self.rewards = sampler, prompts, rewards
        self.models, self.settings, self.world, self.traces = models, settings, world, traces
        self._iteration: Iteration | None = None
        self._batches: list[RolloutBatch] = []
        self._told: set[str] = set()

    def describe(self) -> str:
        settings = self.settings
        return (
            f"{len(self.prompts):,} prompts, {settings.prompts_per_step} a step with {settings.group} "
            f"rollout{'s' if settings.group > 1 else ''} each, "
            f"{settings.updates} update{'s' if settings.updates > 1 else ''} on each set"
        )

    def micro_batches(self, step: int) -> Sequence[RolloutBatch]:
        """Errors: TrainingError when all rollouts of all ranks had to be dropped, and from backend and rewards."""
        self.timings = {}
        if self._iteration is None or not self._iteration.covers(step):
            updates = self.settings.updates
            number = self._iteration.number + 1 if self._iteration else step // updates
            if self._iteration is None and self.traces is not None:
                # What is there was written by a run that ended before its first checkpoint.
                self.traces.rewind(number - 1)
            self._iteration, self._batches = Iteration(number, step, updates, self._sample(number, step)), []
        self._iteration.last_step = step
        self._batches = self._batches or self._collate(self._iteration.rows)
        return self._batches

    def accepts(self, figures: Mapping[str, float]) -> bool:
        """Not where the policy has moved past `kl_limit`: its rollouts are then too old to learn from."""
        limit = self.settings.kl_limit
        self._tell(figures)
        is_too_far = limit > 0 and figures.get("approx_kl", 0.0) > limit
        if is_too_far and self._iteration is not None:
            self._iteration.is_over = True
        return not is_too_far

    def state_files(self) -> Mapping[str, bytes]:
        """The rollouts under way, unless the next step samples anew anyway, and the number of their iteration."""
        if self._iteration is None:
            return {}
        return {STATE_FILE: merge_iterations(self.world.gather(self._iteration.to_bytes()))}

    def load_state(self, folder: Path) -> None:
        self._iteration = read_iteration(folder / STATE_FILE, self.places, self.settings.group)
        self._batches = []
        if self.traces is not None:
            self.traces.rewind(self._iteration.number)

    def places(self, iteration: int) -> list[int]:
        """The places in the run's order of prompts that this rank takes."""
        size = self.settings.prompts_per_step
        return list(range(iteration * size, (iteration + 1) * size))[self.rank :: self.ranks]

    def prompt(self, place: int) -> Prompt:
        """Each prompt comes once per epoch; an iteration may reach into the next epoch."""
        epoch, index = divmod(place, len(self.prompts))
        return self.prompts[self.order(epoch)[index]]

    def _sample(self, number: int, step: int) -> list[Experience]:
        """This rank's rollouts of an iteration, with all that its steps need of them."""
        settings, clock = self.settings, [time.monotonic()]
        places = self.places(number)
        with self._together():
            self.sampler.backend.refresh(step)
            rollouts = self.sampler([self.prompt(place) for place in places], places, settings.group)
            clock.append(time.monotonic())
            rollouts = self.rewards.score(rollouts)
            clock.append(time.monotonic())
        if self.traces is not None:
            self.traces.write(number, rollouts)
        rows = credit(rollouts, self.models, settings, self.world)
        self._require_some(rows, rollouts, step)
        clock.append(time.monotonic())
        seconds = (after - before for before, after in pairwise(clock))
        self.timings = dict(zip(("generation", "scoring", "logprobs"), seconds, strict=True))
        return rows

    def _tell(self, figures: Mapping[str, float]) -> None:
        """Say each complaint about the rollouts once, on one rank. A critic learns from equal rewards too."""
        for name, text in complaints(figures).items():
            is_news = name not in self._told and not (name == "equal_groups" and self.models.critic)
            self._told.add(name)
            if is_news and self.world.is_main and self._iteration is not None:
                warn(f"step {self._iteration.last_step + 1}: {text}")

    @contextmanager
    def _together(self) -> Iterator[None]:
        """An error on one rank is one on all: the others would wait for it for ever."""
        failed: UserError | None = None
        try:
            yield
        except UserError as error:
            failed = error
        if self.world.sum([float(failed is not None)])[0]:
            raise failed or TrainingError("another process could not take its rollouts; its message says why")

    def _require_some(self, rows: Sequence[Experience], rollouts: Sequence[Rollout], step: int) -> None:
        kept, count = self.world.sum([float(sum(bool(row.ids) for row in rows)), float(len(rows))])
        if kept:
            return
        reasons = Counter(drop_reason(rollout, self.settings) for rollout in rollouts)
        detail = next((rollout.score.detail for rollout in rollouts if rollout.score.detail), "")
        raise TrainingError(
            f"step {step + 1}: all {count:.0f} rollouts had to be dropped: "
            f"{', '.join(f'{times} {reason}' for reason, times in reasons.most_common()) or 'none of them here'}"
            f"{f' ({detail})' if detail else ''}; shorten the prompts, raise max_tokens or mend the reward"
        )

    def _collate(self, rows: Sequence[Experience]) -> list[RolloutBatch]:
        """The rows that were kept, in micro-batches; the first carries the figures of all, dropped ones included."""
        means = sum_figures([row.figures for row in rows], figure_names(self.rewards.names))
        parts = cut([row for row in rows if row.ids], self.settings.accumulate)
        return [
            collate_rollouts(part, self.settings, self.models.tensor_names, {} if index else means)
            for index, part in enumerate(parts)
        ]
