"""`minimind grpo`: a model learns from its own answers, each compared with the others to the same prompt."""

from typing import Literal

from minimind.config import Config, option
from minimind.objectives.policy import LOSSES, ClippedPolicy
from minimind.stages.shared.policy import PolicyConfig, fit_policy
from minimind.text.tokenizer import Tokenizer

__all__ = ["ClipConfig", "GrpoConfig", "clipped_policy", "run"]


class ClipConfig(Config):
    """How answers change the policy; see objectives/policy.py."""

    loss: Literal["grpo", "dr_grpo", "dapo", "cispo"] = option(
        "grpo", "What a token counts, and how its ratio is bounded."
    )
    clip_low: float = option(0.2, "How far a token's probability may fall in a set of answers.", ge=0, le=1)
    clip_high: float = option(0.2, "How far it may rise; above clip_low lets unlikely tokens grow.", ge=0)
    kl_coefficient: float = option(0.0, "Weight of the distance from the model to start from.", ge=0)


class GrpoConfig(PolicyConfig):
    """Groups of answers to one prompt: the better than average become likelier, the others less so."""

    grpo: ClipConfig = option(ClipConfig(), "How answers change the policy.")


def run(config: GrpoConfig) -> None:
    """Train into `config.run`, or go on where it was interrupted."""
    fit_policy(
        "grpo",
        config,
        lambda tokenizer: clipped_policy(config.grpo, config, tokenizer),
    )


def clipped_policy(clip: ClipConfig, config: PolicyConfig, tokenizer: Tokenizer) -> ClippedPolicy:
    """The objective that the options spell out."""
    return ClippedPolicy(
        LOSSES[clip.loss],
        clip_low=clip.clip_low,
        clip_high=clip.clip_high,
        kl_coefficient=clip.kl_coefficient,
        temperature=config.rollout.temperature,
        num_ids=tokenizer.vocab_size,
        router_coefficient=config.train.router_coefficient,
    )
