"""Reinforcement learning: prompts in, rollouts scored by rewards out.

    prompts -> rollouts (policy and environment take turns) -> outcomes -> rewards -> advantages -> RolloutBatch

`prompts.py` reads the questions, `environment.py` answers tool calls, `outcomes.py` says what a reward is shown, and
`rewards.py` scores it without ever inventing a score. Nothing here knows the loss or the trainer.
"""
