"""Advantages equal their formulas written out as loops, and leave out what was dropped or not sampled."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from minimind.rl.advantages import gae, token_rewards, whiten

NAN = torch.nan


def test_the_reward_is_on_the_last_sampled_token() -> None:
    weights = torch.tensor([[0.0, 1.0, 0.0, 1.0, 0.0], [1.0, 1.0, 1.0, 0.0, 0.0]])
    rewards = torch.tensor([5.0, -1.0])
    assert token_rewards(rewards, weights).tolist() == [[0, 0, 0, 5, 0], [0, 0, -1, 0, 0]]


def by_hand(rewards: list[float], values: list[float], gamma: float, lam: float) -> list[float]:
    """The definition as a double sum: A_i = Σ_k (γλ)^k δ_{i+k}."""
    following = [*values[1:], 0.0][: len(values)]
    errors = [r + gamma * after - v for r, v, after in zip(rewards, values, following, strict=True)]
    return [math.fsum((gamma * lam) ** (k - i) * errors[k] for k in range(i, len(errors))) for i in range(len(errors))]


@given(
    st.lists(st.tuples(st.booleans(), st.floats(-2, 2), st.floats(-2, 2)), min_size=1, max_size=12),
    st.sampled_from([0.9, 1.0]),
    st.sampled_from([0.0, 0.95, 1.0]),
)
def test_the_chain_goes_from_sampled_token_to_sampled_token(
    tokens: list[tuple[bool, float, float]], gamma: float, lam: float
) -> None:
    """With tools' tokens between them, the sampled ones have the estimates they have alone."""
    weights, rewards, values = (torch.tensor([column], dtype=torch.float64) for column in zip(*tokens, strict=True))
    advantages, returns = gae(rewards, values, weights, gamma, lam)
    places = [place for place, (is_sampled, _, _) in enumerate(tokens) if is_sampled]
    chain = [tokens[place] for place in places]
    expected = by_hand([r for _, r, _ in chain], [v for _, _, v in chain], gamma, lam)
    assert advantages[0, places].tolist() == pytest.approx(expected, abs=1e-9)
    assert returns[0, places].tolist() == pytest.approx([a + v for a, (_, _, v) in zip(expected, chain, strict=True)])
    elsewhere = [place for place in range(len(tokens)) if place not in places]
    assert not advantages[0, elsewhere].any() and not returns[0, elsewhere].any()


def test_values_of_tool_tokens_and_padding_count_for_nothing() -> None:
    weights = torch.tensor([[1.0, 0.0, 1.0, 0.0]])
    rewards, values = torch.tensor([[0.0, 0.0, 1.0, 0.0]]), torch.tensor([[0.2, 9.0, 0.4, 9.0]])
    advantages, returns = gae(rewards, values, weights, gamma=1.0, lam=1.0)
    assert advantages[0].tolist() == pytest.approx([0.8, 0, 0.6, 0])
    assert returns[0].tolist() == pytest.approx([1, 0, 1, 0])


def halves(tensor: Tensor) -> list[Tensor]:
    return [tensor[:1], tensor[1:, :3]]


def test_whitening_gives_mean_0_and_variance_1_however_the_tokens_are_cut() -> None:
    generator = torch.Generator().manual_seed(0)
    advantages = torch.rand(3, 4, generator=generator) * 5 + 2
    weights = torch.tensor([[1.0, 0.0, 0.5, 1.0], [0.0, 1.0, 1.0, 0.0], [1.0, 1.0, 0.0, 0.0]])
    whole = whiten([advantages], [weights])[0]
    chosen = whole[weights != 0]
    assert float(chosen.mean()) == pytest.approx(0, abs=1e-6)
    assert float(chosen.var(correction=0)) == pytest.approx(1, abs=1e-4)
    assert not whole[weights == 0].any()
    for part, cut in zip(halves(whole), whiten(halves(advantages), halves(weights)), strict=True):
        torch.testing.assert_close(cut, part)


def test_whitening_over_ranks_uses_the_sums_of_all() -> None:
    advantages, weights = torch.tensor([[1.0, 2.0], [3.0, 6.0]]), torch.ones(2, 2)
    whole = whiten([advantages], [weights])[0]
    other = advantages[1].double()
    mine = whiten(
        [advantages[:1]],
        [weights[:1]],
        lambda sums: [a + b for a, b in zip(sums, [other.sum(), other.square().sum(), 2.0], strict=True)],
    )
    torch.testing.assert_close(mine[0], whole[:1])


def test_nothing_to_whiten_is_no_error() -> None:
    assert whiten([torch.zeros(1, 2)], [torch.zeros(1, 2)])[0].tolist() == [[0, 0]]
