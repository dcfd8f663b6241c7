"""What the stages share that learn from rollouts: prompts, sampling, rewards, reference, validation by pass rate."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from minimind.config import REQUIRED, Config, option
from minimind.data.columns import ColumnNames, columns_by_name
from minimind.data.prompts import Prompt, fingerprint_of, read_prompts
from minimind.errors import ConfigError, DataError
from minimind.evals.pass_at_k import pass_at_k
from minimind.generation.sampling import Sampling
from minimind.interfaces import Batch
from minimind.model import Transformer
from minimind.objectives.actor_critic import ActorCritic, ClippedActorCritic, values
from minimind.objectives.logprobs import batch_logprobs
from minimind.objectives.policy import ClippedPolicy, PolicyLoss
from minimind.rl.backends import InProcess, RolloutBackend, ServerBackend
from minimind.rl.credit import Critic, RolloutModels, TargetFigures
from minimind.rl.environment import ToolEnvironment
from minimind.rl.figures import measure_pass
from minimind.rl.rewards import Rewards, parse_rewards
from minimind.rl.rollout_source import RolloutSource
from minimind.rl.rollouts import RolloutSettings
from minimind.rl.sampler import RolloutSampler
from minimind.rl.traces import TraceWriter
from minimind.stages.shared.training_options import TrainingOptions
from minimind.storage.adapters import fingerprint
from minimind.storage.checkpoint import load_model
from minimind.terminal.notes import note
from minimind.terminal.tables import show_bad_row
from minimind.text.conversation import render_prompt
from minimind.text.tokenizer import Tokenizer
from minimind.training.epoch_source import EpochSource
from minimind.training.fit import fit
from minimind.training.job import Placement, TrainingJob, Validation
from minimind.training.settings import UpdateConfig
from minimind.training.trained_model import TrainedModel
from minimind.training.trainer import Trainer

__all__ = ["PolicyConfig", "PromptConfig", "RolloutConfig", "ServerConfig", "fit_policy"]


class PromptConfig(Config):
    """What is asked."""

    source: list[str] = option(
        REQUIRED, "Rows of conversations, the last answer left out, with gt.", kind="data", min_length=1
    )
    valid: list[str] = option([], "Prompts to measure the pass rate on.", kind="data")
    max_valid: int = option(200, "Measure on at most so many.", kind="data", ge=1)
    valid_samples: int = option(8, "Answers to each; k of pass@k.", kind="data", ge=1)
    context: int = option(1024, "Tokens of a prompt and its answers.", kind="data", ge=2)
    thinking_share: float = option(0.0, "Share of prompts that ask for thinking.", ge=0, le=1)
    columns: ColumnNames = option(
        [], "Of rows in no known shape: which column is which, such as prompt=question gt=solution.", kind="data"
    )
    max_bad_rows: int = option(0, "How many broken rows may be skipped.", kind="data", ge=0)


class RolloutConfig(Config):
    """How answers are sampled and scored."""

    prompts: int = option(16, "Prompts of a step, over all ranks.", ge=1)
    group: int = option(8, "Answers to each prompt.", ge=1)
    updates: int = option(1, "Optimiser updates on each set of answers.", ge=1)
    max_tokens: int = option(256, "The longest answer.", ge=1)
    temperature: float = option(1.0, "Of sampling, and of the probabilities that are learnt.", gt=0)
    rewards: list[str] = option(
        ["number"],
        "number, format, length, repetition, tools, exact, module:function or https://..., each with "
        "=WEIGHT where that is not 1. The first one's full mark is a pass.",
        min_length=1,
    )
    reward_timeout_seconds: float = option(10.0, "An answer whose reward takes longer is dropped and counted.", gt=0)
    drop_unfinished: bool = option(False, "Drop answers that were cut, in place of scoring them.")
    batch_size: int = option(64, "Answers sampled at once.", kind="free", ge=1)
    trace_every: int = option(1, "Sets of answers between those kept.", kind="free", ge=1)


class ServerConfig(Config):
    """Who samples, where that is not this process: vLLM or SGLang, fed with model folders."""

    url: str = option(REQUIRED, "Of the server, such as http://localhost:8000.", kind="free")
    name: str = option("policy", "What the server calls the model.", kind="free")
    kind: Literal["vllm", "sglang"] = option("vllm", "Which of them it is.", kind="free")


class PolicyConfig(TrainingOptions):
    """What all stages that sample from the policy have."""

    model: Path = option(REQUIRED, "The model to start from.")
    data: PromptConfig = option(REQUIRED, "What is asked.")
    rollout: RolloutConfig = option(RolloutConfig(), "How answers are sampled and scored.")
    server: ServerConfig | None = option(None, "Who samples, where that is not this process.")
    train: UpdateConfig = UpdateConfig(
        optimizer="adamw",
        lr=1e-4,
        embedding_lr=1e-4,
        beta1=0.9,
        beta2=0.99,
        warmup_steps=5,
        cooldown=0.0,
        # A set of answers is long: 128 of them took 6.4 GB at a width of 256 in one batch, and 2.9 in four.
        accumulate=4,
        # Equal rewards must not move a policy, a mixture's either.
        router_coefficient=0.0,
        compile="off",
        log_every=1,
        valid_every=20,
        checkpoint_every=20,
    )


@dataclass(frozen=True)
class _Parts:
    """A stage's policy, and what it is asked and scored by; `inputs` as in `TrainingJob`."""

    config: PolicyConfig
    trained: TrainedModel
    actor_critic: ActorCritic | None
    inputs: Mapping[str, str]
    prompts: Sequence[Prompt]
    valid: Sequence[Prompt]
    rewards: Rewards
    environment: ToolEnvironment | None
    max_turns: int

    def in_process(self, placement: Placement) -> InProcess:
        batch_size, context = self.config.rollout.batch_size, self.config.data.context
        return InProcess(self.trained.model, self.trained.tokenizer, batch_size, placement.precision, context)

    def sampler(self, backend: RolloutBackend, seed: int) -> RolloutSampler:
        rollout = self.config.rollout
        return RolloutSampler(
            backend=backend,
            tokenizer=self.trained.tokenizer,
            # Nothing but the temperature: what is sampled from is what is learnt.
            sampling=Sampling(temperature=rollout.temperature, top_p=1.0, max_tokens=rollout.max_tokens),
            context=self.config.data.context,
            environment=self.environment,
            max_turns=self.max_turns,
            seed=seed,
        )

    def settings(self, loss: PolicyLoss, kl_limit: float) -> RolloutSettings:
        rollout, train = self.config.rollout, self.config.train
        return RolloutSettings(
            loss=loss,
            prompts_per_step=rollout.prompts,
            group=rollout.group,
            max_tokens=rollout.max_tokens * self.max_turns,
            updates=rollout.updates,
            accumulate=train.accumulate,
            seed=train.seed,
            drop_unfinished=rollout.drop_unfinished,
            kl_limit=kl_limit,
        )

    def logprobs(self, model: Transformer, placement: Placement) -> TargetFigures:
        """What `model` says of targets, as they were sampled: at that temperature, among the tokenizer's ids."""
        temperature, num_ids = self.config.rollout.temperature, self.trained.tokenizer.vocab_size
        model.to(placement.world.device)
        return _in_precision(partial(batch_logprobs, model, temperature=temperature, num_ids=num_ids), placement)


def fit_policy(
    name: str,
    config: PolicyConfig,
    objective: Callable[[Tokenizer], ClippedPolicy | ClippedActorCritic],
    *,
    kl_limit: float = 0.0,
    critic: Callable[[TargetFigures], Critic] | None = None,
    environment: ToolEnvironment | None = None,
    max_turns: int = 1,
) -> None:
    """Train `config.model` on its own answers into `config.run`, or go on where it was interrupted.

    objective: made for the tokenizer, whose ids are what is sampled among
    kl_limit:  see `RolloutSettings`
    critic:    made from what gives the critic's values; None trains without one
    Errors:    as `fit`
    """
    parts = _open(config, critic is not None, environment, max_turns)
    learn = objective(parts.trained.tokenizer)

    fit(
        TrainingJob(
            name=name,
            folder=config.run,
            config=config,
            train=config.train,
            context=config.data.context,
            trained=parts.trained,
            module=parts.actor_critic,
            objective=learn,
            source=partial(_source, parts, learn, kl_limit, critic),
            validation=partial(_pass_rates, parts) if parts.valid else None,
            sample=lambda: _samples(parts),
            inputs=parts.inputs,
        )
    )


def _source(
    parts: _Parts,
    objective: ClippedPolicy | ClippedActorCritic,
    kl_limit: float,
    critic: Callable[[TargetFigures], Critic] | None,
    placement: Placement,
) -> EpochSource:
    config, actor_critic = parts.config, parts.actor_critic
    models = RolloutModels(
        policy=parts.logprobs(parts.trained.model, placement),
        # Loaded anew: the model in training may have moved on already.
        reference=parts.logprobs(load_model(config.model)[0], placement) if objective.kl_coefficient else None,
        critic=critic(_in_precision(partial(values, actor_critic), placement)) if critic and actor_critic else None,
    )
    return RolloutSource(
        parts.sampler(_backend(parts, placement), config.train.seed),
        parts.prompts,
        parts.rewards,
        models,
        parts.settings(objective.loss, kl_limit),
        world=placement.world,
        traces=TraceWriter(config.run / f"rollouts-rank{placement.world.rank}.jsonl", config.rollout.trace_every),
    )


def _open(config: PolicyConfig, has_critic: bool, environment: ToolEnvironment | None, max_turns: int) -> _Parts:
    """Errors: ConfigError, DataError and CheckpointError for whatever would only show after hours of sampling"""
    data, rollout = config.data, config.rollout
    if not has_critic and rollout.group < 2:
        raise ConfigError("rollout.group is 1; expected 2 or more, because an answer is compared with the others")
    if config.lora is not None and config.lora.dropout:
        raise ConfigError(
            f"lora.dropout is {config.lora.dropout}; expected 0, because what is learnt must be what was sampled"
        )
    model, tokenizer = load_model(config.model)
    began = fingerprint(model)
    trained = TrainedModel.begin(model, tokenizer, base=config.model, lora=config.lora, seed=config.train.seed)
    actor_critic = ActorCritic(model) if has_critic else None
    if actor_critic is not None:
        trained = replace(trained, head=actor_critic.value_head)
    rewards = parse_rewards(rollout.rewards, timeout_seconds=rollout.reward_timeout_seconds)
    options = {
        "thinking_share": data.thinking_share,
        "seed": config.train.seed,
        "problem": rewards.problem,
        "columns": columns_by_name(data.columns),
        "max_bad_rows": data.max_bad_rows,
        "observe": show_bad_row,
    }
    prompts = _fitting(read_prompts(data.source, **options), "data.source", data.context, tokenizer)
    valid = read_prompts(data.valid, **options)[: data.max_valid] if data.valid else []
    valid = _fitting(valid, "data.valid", data.context, tokenizer) if valid else []
    if environment is not None:
        environment.check([*prompts, *valid])
    inputs = {"data.source": fingerprint_of(prompts), "model": began}
    return _Parts(config, trained, actor_critic, inputs, prompts, valid, rewards, environment, max_turns)


def _fitting(prompts: list[Prompt], option: str, context: int, tokenizer: Tokenizer) -> list[Prompt]:
    """The prompts that leave room for an answer; how many do not is said. Errors: DataError where none does"""
    kept = [
        prompt
        for prompt in prompts
        if len(render_prompt(prompt.messages, prompt.tools, tokenizer, prompt.thinking)) < context
    ]
    if not kept:
        raise DataError(f"{option}: no prompt leaves room for an answer in a context of {context}; raise data.context")
    if len(kept) < len(prompts):
        number = len(prompts) - len(kept)
        note(f"left out of {option}: {number:,} prompts that fill the context of {context}")
    return kept


def _backend(parts: _Parts, placement: Placement) -> RolloutBackend:
    config, trained = parts.config, parts.trained
    if config.server is None:
        return parts.in_process(placement)
    return ServerBackend(
        config.server.url,
        config.server.name,
        trained.tokenizer,
        folder=config.run / f"served-rank{placement.world.rank}",
        save=trained.save_merged,
        context=config.data.context,
        server=config.server.kind,
    )


def _in_precision(figures: Callable[[Batch], Tensor], placement: Placement) -> TargetFigures:
    """The figures of a batch's targets in the run's precision, without gradient, back on the CPU."""

    def compute(batch: Batch) -> Tensor:
        with torch.no_grad(), placement.precision():
            return figures(batch.to(placement.world.device)).cpu()

    return compute


def _pass_rates(parts: _Parts, placement: Placement) -> Validation:
    """pass@1 and pass@k on the held-out prompts, the same random numbers each time."""
    samples, world = parts.config.data.valid_samples, placement.world
    sampler = parts.sampler(parts.in_process(placement), seed=0)
    places = range(len(parts.valid))[world.rank :: world.size]

    def validate(trainer: Trainer) -> Mapping[str, float]:
        mine = [parts.valid[place] for place in places]
        right, scores = measure_pass(sampler, mine, places, parts.rewards, samples=samples)
        ks = sorted({1, samples})
        passes = [sum(pass_at_k(samples, count, k) for count in right) for k in ks]
        num_prompts, num_scores, score, *sums = world.sum([len(right), len(scores), math.fsum(scores), *passes])
        figures = {f"valid_pass_at_{k}": total / num_prompts for k, total in zip(ks, sums, strict=True)}
        return figures | ({"valid_reward": score / num_scores} if num_scores else {})

    return validate


def _samples(parts: _Parts) -> list[tuple[str, str]]:
    """The first held-out prompts, answered once."""
    prompts = (parts.valid or parts.prompts)[:2]
    backend = InProcess(parts.trained.model, parts.trained.tokenizer, context=parts.config.data.context)
    rollouts = parts.sampler(backend, seed=0)(prompts, range(len(prompts)), 1)
    return [(_shown(rollout.outcome.prompt.messages), _shown(rollout.outcome.messages)) for rollout in rollouts]


def _shown(messages: Sequence[Any]) -> str:
    """Messages as a person reads them."""
    parts = []
    for message in messages:
        parts += [f"({message.reasoning_content.strip()})"] if message.reasoning_content else []
        parts += [message.content] if message.content else []
        parts += [call.to_json() for call in message.tool_calls]
    return "\n".join(parts)
