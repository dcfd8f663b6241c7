"""The next id: against a slow second implementation, and against the probabilities it should have."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minimind.errors import ConfigError
from minimind.generation.sampling import USUAL_CANDIDATES, Sampling, draw, penalise

PLAIN = {"temperature": 1.0, "top_p": 1.0}


def reference(logits: list[float], sampling: Sampling) -> dict[int, float]:
    """Id -> probability in plain Python, one filter after the other."""
    peak = max(logits)
    kept = {token: math.exp((score - peak) / sampling.temperature) for token, score in enumerate(logits)}
    order = sorted(kept, key=lambda token: -kept[token])[: sampling.top_k or None]
    total, before, nucleus = sum(kept[token] for token in order), 0.0, []
    for token in order:
        if sampling.top_p == 1 or before < sampling.top_p:
            nucleus.append(token)
        before += kept[token] / total
    final = [token for token in nucleus if kept[token] >= sampling.min_p * kept[order[0]]]
    total = sum(kept[token] for token in final)
    return {token: kept[token] / total for token in final}


@given(
    seed=st.integers(0, 10**6),
    size=st.sampled_from([3, 20, 2 * USUAL_CANDIDATES]),
    spread=st.sampled_from([0.01, 1.0, 5.0]),
    temperature=st.sampled_from([0.2, 1.0, 3.0]),
    top_k=st.sampled_from([0, 1, 2, 10, 1000]),
    top_p=st.sampled_from([0.01, 0.5, 0.9, 0.999, 1.0]),
    min_p=st.sampled_from([0.0, 0.05, 0.9, 1.0]),
)
def test_the_distribution_is_that_of_a_slow_second_implementation(
    seed: int, size: int, spread: float, temperature: float, top_k: int, top_p: float, min_p: float
) -> None:
    sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    logits = torch.randn(size, generator=torch.Generator().manual_seed(seed)) * spread
    expected = reference(logits.tolist(), sampling)
    uniforms = [(n + 0.5) / 500 for n in range(500)]
    ids, logprobs = draw(logits.expand(500, -1), sampling, uniforms)
    counts = torch.bincount(ids, minlength=size)
    for token, logprob in zip(ids.tolist(), logprobs.tolist(), strict=True):
        # A token at the very edge of top_p or min_p may fall on either side by rounding.
        assert math.exp(logprob) == pytest.approx(expected.get(token, -1), rel=1e-3, abs=1e-4)
    # The numbers are evenly spread, so each id is met as often as its probability says, to within one place of 500.
    assert all(abs(counts[token].item() - 500 * p) <= 1.01 for token, p in expected.items())


def test_temperature_0_takes_the_best_with_certainty() -> None:
    logits = torch.tensor([[0.0, 3.0, 1.0], [5.0, 1.0, 2.0]])
    ids, logprobs = draw(logits, Sampling(temperature=0), [0.99, 0.99])
    assert ids.tolist() == [1, 0] and logprobs.tolist() == [0, 0]


@pytest.mark.parametrize("temperature", [1e-320, 1e-4, 100.0])
def test_any_temperature_gives_a_finite_distribution(temperature: float) -> None:
    ids, logprobs = draw(torch.tensor([[10.0, 1e38, -1e38]]), Sampling(temperature=temperature, top_p=1), [0.5])
    assert ids.item() == 1 and math.isfinite(logprobs.item())


@pytest.mark.parametrize("sampling", [Sampling(**PLAIN), Sampling(temperature=1.0, top_p=0.999)])
def test_an_id_without_probability_is_never_drawn(sampling: Sampling) -> None:
    logits = torch.full((3, 9), -torch.inf)
    logits[:, 4] = 0
    ids, logprobs = draw(logits, sampling, [0.0, 0.5, 1 - 2**-53])
    assert ids.tolist() == [4, 4, 4] and logprobs.tolist() == [0, 0, 0]


@given(st.floats(0.1, 10), st.lists(st.floats(-9, 9, width=32), min_size=4, max_size=4))
def test_a_penalty_above_1_lowers_the_scores_of_ids_that_occurred_and_no_others(
    penalty: float, scores: list[float]
) -> None:
    logits, seen = torch.tensor([scores]), torch.tensor([[True, False, True, False]])
    found = penalise(logits, seen, penalty)
    assert torch.equal(found[:, 1::2], logits[:, 1::2])
    higher = found[:, ::2] > logits[:, ::2]
    assert not higher.any() if penalty >= 1 else not (found[:, ::2] < logits[:, ::2]).any()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("top_k", -1),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("min_p", 2.0),
        ("repetition_penalty", 0.0),
        ("repetition_penalty", 5e-324),
        ("max_tokens", 0),
        ("stop", ("",)),
        ("stop", ("x",) * 17),
        ("stop", ("x" * 257,)),
    ],
)
def test_a_setting_out_of_bounds_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"^{name} is .*; expected"):
        Sampling(**{name: value})
