"""`minimind ppo`: a model learns from its own answers, each token compared with what a critic expected."""

from pydantic import Field

from minimind.config import Config
from minimind.objectives.actor_critic import ClippedActorCritic
from minimind.rl.credit import Critic
from minimind.stages.shared.policy import PolicyConfig, RolloutConfig, fit_policy

__all__ = ["CriticConfig", "PpoConfig", "run"]


class CriticConfig(Config):
    """How policy and critic learn; see objectives/actor_critic.py."""

    clip: float = Field(
        default=0.2, ge=0, le=1, description="How far a token's probability may move in a set of answers."
    )
    value_clip: float = Field(default=0.2, ge=0, description="How far the critic's expectation may move likewise.")
    value_coefficient: float = Field(default=0.5, ge=0, description="Weight of the critic's error.")
    gamma: float = Field(default=1.0, gt=0, le=1, description="What a reward one token later is worth.")
    gae_lambda: float = Field(default=0.95, ge=0, le=1, description="1 trusts the rewards alone, 0 the critic alone.")
    kl_coefficient: float = Field(default=0.0, ge=0, description="Weight of the distance from the model to start from.")
    kl_limit: float = Field(
        default=0.0,
        ge=0,
        description="Leave the update out and sample anew once the policy has moved this far; 0 never.",
    )


class PpoConfig(PolicyConfig):
    """A critic on the policy's own states learns what to expect; what turns out better becomes likelier."""

    rollout: RolloutConfig = Field(
        default=RolloutConfig(prompts=64, group=1, updates=2), description="How answers are sampled and scored."
    )
    ppo: CriticConfig = Field(default=CriticConfig(), description="How policy and critic learn.")


def run(config: PpoConfig) -> None:
    """Train into `config.run`, or go on where it was interrupted."""
    settings = config.ppo
    fit_policy(
        "ppo",
        config,
        kind="ppo",
        objective=lambda tokenizer: ClippedActorCritic(
            settings.clip,
            settings.value_clip,
            value_coefficient=settings.value_coefficient,
            kl_coefficient=settings.kl_coefficient,
            temperature=config.rollout.temperature,
            num_ids=tokenizer.vocab_size,
            router_coefficient=config.train.router_coefficient,
        ),
        kl_coefficient=settings.kl_coefficient,
        kl_limit=settings.kl_limit,
        critic=lambda values: Critic(values=values, gamma=settings.gamma, lam=settings.gae_lambda),
    )
