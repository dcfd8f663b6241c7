"""`minimind ppo`: a model learns from its own answers, each token compared with what a critic expected."""

from minimind.config import Config, option
from minimind.objectives.actor_critic import ClippedActorCritic
from minimind.rl.credit import Critic
from minimind.stages.shared.policy import PolicyConfig, RolloutConfig, fit_policy

__all__ = ["CriticConfig", "PpoConfig", "run"]


class CriticConfig(Config):
    """How policy and critic learn; see objectives/actor_critic.py."""

    clip: float = option(0.2, "How far a token's probability may move in a set of answers.", ge=0, le=1)
    value_clip: float = option(0.2, "How far the critic's expectation may move likewise.", ge=0)
    value_coefficient: float = option(0.5, "Weight of the critic's error.", ge=0)
    gamma: float = option(1.0, "What a reward one token later is worth.", gt=0, le=1)
    gae_lambda: float = option(0.95, "1 trusts the rewards alone, 0 the critic alone.", ge=0, le=1)
    kl_coefficient: float = option(0.0, "Weight of the distance from the model to start from.", ge=0)
    kl_limit: float = option(
        0.0, "Leave the update out and sample anew once the policy has moved this far; 0 never.", ge=0
    )


class PpoConfig(PolicyConfig):
    """A critic on the policy's own states learns what to expect; what turns out better becomes likelier."""

    rollout: RolloutConfig = RolloutConfig(prompts=64, group=1, updates=2)
    ppo: CriticConfig = option(CriticConfig(), "How policy and critic learn.")


def run(config: PpoConfig) -> None:
    """Train into `config.run`, or go on where it was interrupted."""
    settings = config.ppo
    fit_policy(
        "ppo",
        config,
        lambda tokenizer: ClippedActorCritic(
            settings.clip,
            settings.value_clip,
            value_coefficient=settings.value_coefficient,
            kl_coefficient=settings.kl_coefficient,
            temperature=config.rollout.temperature,
            num_ids=tokenizer.vocab_size,
            router_coefficient=config.train.router_coefficient,
        ),
        kl_limit=settings.kl_limit,
        critic=lambda values: Critic(values=values, gamma=settings.gamma, lam=settings.gae_lambda),
    )
