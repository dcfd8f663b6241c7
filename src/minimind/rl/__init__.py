"""Reinforcement learning: prompts in, rollouts scored by rewards out.

    prompts -> rollouts (policy and environment take turns) -> scores -> credit -> rows -> RolloutBatch

`sampler.py` rolls out, `environment.py` answers tool calls, `rollouts.py` says what a reward is shown, `rewards.py`
scores it without ever inventing a score, and `credit.py` tells how good each answer was. The losses are in
`objectives/policy.py`; `rollout_source.py` brings it all together and is read last.
"""
