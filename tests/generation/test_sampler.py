"""Rows of any settings are chosen together as each would be alone."""

import random

import pytest
import torch

from minimind.generation.request import Request
from minimind.generation.sampler import Sampler, choose, score
from minimind.generation.sampling import Sampling, draw

LOGITS = torch.randn(6, 50, generator=torch.Generator().manual_seed(0)) * 3
KINDS = [
    Sampling(temperature=0),
    Sampling(temperature=0, top_p=0.3),
    Sampling(temperature=1.0, seed=1),
    Sampling(temperature=1.0, seed=2),
    Sampling(temperature=1.0, top_k=3),
    Sampling(temperature=2.0, top_p=0.5, min_p=0.1),
]


def chosen(logits: torch.Tensor, samplers: list[Sampler]) -> list[int | None]:
    return [None if one is None else one.id for one in choose(logits, samplers)]


def test_rows_of_different_settings_are_drawn_as_alone() -> None:
    requests = [Request(prompt=[1], sampling=sampling, stream=5) for sampling in KINDS]
    expected = [
        draw(row[None], request.sampling, [random.Random(f"{request.sampling.seed} 5").random()])[0].item()
        for row, request in zip(LOGITS, requests, strict=True)
    ]
    assert chosen(LOGITS, [Sampler(request) for request in requests]) == expected


def test_settings_that_draw_alike_are_equal() -> None:
    samplers = [Sampler(Request(prompt=[1], sampling=sampling)) for sampling in KINDS]
    assert samplers[0].settings == samplers[1].settings
    assert samplers[2].settings == samplers[3].settings != samplers[4].settings


def test_penalties_count_what_was_drawn_and_biases_add_up() -> None:
    request = Request(prompt=[1], logit_bias={3: 2.0, 4: -1.0}, presence_penalty=0.5, frequency_penalty=0.25)
    sampler = Sampler(request)
    for index in (4, 7, 7):
        sampler.note(index)
    change = sampler.adjusted(LOGITS[0]) - LOGITS[0]
    expected = torch.zeros(50)
    expected[[3, 4, 7]] = torch.tensor([2.0, -1.75, -1.0])
    torch.testing.assert_close(change, expected)


def test_a_repetition_penalty_spares_the_end_of_a_text() -> None:
    request = Request(prompt=[1, 2, 3], sampling=Sampling(repetition_penalty=2.0), stop_ids=frozenset([2]))
    change = Sampler(request).adjusted(LOGITS[0]) - LOGITS[0]
    assert change.nonzero()[:, 0].tolist() == [1, 3]


def test_the_logits_of_others_stay_as_they_are() -> None:
    before = LOGITS.clone()
    choose(LOGITS, [Sampler(Request(prompt=[1], logit_bias={5: 100.0})) for _ in range(6)])
    assert torch.equal(before, LOGITS)


def test_scores_are_log_probabilities_likeliest_first() -> None:
    [one] = score(LOGITS[:1], [9], 4)
    logprobs = LOGITS[0].log_softmax(-1)
    assert one.logprob == pytest.approx(logprobs[9].item())
    assert [index for index, _ in one.top] == logprobs.topk(4).indices.tolist()
    assert score(LOGITS[:1], [9], 0)[0].top == []


def test_a_form_that_cannot_be_held_costs_its_own_row_alone() -> None:
    good, bad = Sampler(Request(prompt=[1], logit_bias={7: 100.0})), Sampler(Request(prompt=[1], logit_bias={9: 1.0}))
    bad.adjusted = lambda logits: logits / {}["form"]  # type: ignore[method-assign]
    assert chosen(LOGITS[:3], [good, bad, good]) == [7, None, 7]


@pytest.mark.parametrize("settings", KINDS)
def test_a_barred_id_is_never_drawn_and_other_rows_may_draw_it(settings: Sampling) -> None:
    """Not by the likeliest score, and not by a bias; the scores that are told stay the model's own."""
    logits = torch.zeros(2, 50)
    logits[:, 7] = 1000.0
    barring = Sampler(Request(prompt=[1], sampling=settings, barred=frozenset([7, 9]), logit_bias={7: 100.0}))
    plain = Sampler(Request(prompt=[1], sampling=settings))
    for _ in range(20):
        barred, free = chosen(logits, [barring, plain])
        assert barred not in (7, 9) and free == 7
    assert logits[:, 7].tolist() == [1000.0] * 2
