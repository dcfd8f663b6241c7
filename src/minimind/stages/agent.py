"""`minimind agent`: a model learns to use tools, from dialogues in which it calls them and reads what they answer."""

from minimind.config import option
from minimind.errors import ConfigError
from minimind.rl.environment import ToolEnvironment
from minimind.stages.grpo import ClipConfig, clipped_policy
from minimind.stages.shared.policy import PolicyConfig, RolloutConfig, fit_policy
from minimind.tools.builtin import TOOLS
from minimind.tools.sandbox import python_tool

__all__ = ["AgentConfig", "run"]


class AgentConfig(PolicyConfig):
    """Dialogues with real tools; only what the model says itself is learnt, the ends of its turns included."""

    rollout: RolloutConfig = RolloutConfig(rewards=["number", "tools=0.2"])
    tools: list[str] = option(
        ["calculate_math"], f"Tools that run, of those a prompt offers: {', '.join(TOOLS)}.", kind="data"
    )
    python: bool = option(
        False, "Run run_python, too, where a prompt offers it, in a sandbox; needs bubblewrap.", kind="data"
    )
    max_turns: int = option(3, "Answers in a dialogue, those that only call tools included.", ge=1)
    call_timeout_seconds: float = option(5.0, "A call that takes longer is answered with an error.", gt=0)
    grpo: ClipConfig = option(ClipConfig(), "How dialogues change the policy.")


def run(config: AgentConfig) -> None:
    """Train into `config.run`, or go on where it was interrupted."""
    unknown = [name for name in config.tools if name not in TOOLS]
    if unknown:
        raise ConfigError(f"tools has {unknown[0]!r}; expected some of {', '.join(TOOLS)}")
    tools = {name: TOOLS[name] for name in config.tools}
    if config.python:
        tools["run_python"] = python_tool()
    fit_policy(
        "agent",
        config,
        lambda tokenizer: clipped_policy(config.grpo, config, tokenizer),
        environment=ToolEnvironment(tools, timeout_seconds=config.call_timeout_seconds),
        max_turns=config.max_turns,
    )
