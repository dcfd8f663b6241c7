"""The estimate is the share of choices that hold a right answer, and it is unbiased."""

import math
import random
from itertools import combinations
from statistics import mean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimind.errors import ConfigError
from minimind.evals.pass_at_k import pass_at_k


@given(st.integers(1, 9), st.data())
def test_it_is_the_share_of_all_choices_that_hold_a_right_answer(num_samples: int, data: st.DataObject) -> None:
    num_right, k = data.draw(st.integers(0, num_samples)), data.draw(st.integers(1, num_samples))
    answers = [place < num_right for place in range(num_samples)]

    choices = [any(choice) for choice in combinations(answers, k)]

    assert pass_at_k(num_samples, num_right, k) == pytest.approx(mean(choices), abs=1e-12)


def test_it_equals_the_product_of_the_paper() -> None:
    for num_samples, num_right, k in ((200, 3, 100), (200, 150, 10), (16, 1, 8), (16, 10, 8)):
        product = math.prod(1 - k / left for left in range(num_samples - num_right + 1, num_samples + 1))
        expected = 1 - product if num_samples - num_right >= k else 1.0
        assert pass_at_k(num_samples, num_right, k) == pytest.approx(expected, abs=1e-12)


def test_it_is_unbiased_where_the_plain_formula_is_not() -> None:
    generator, chance, k = random.Random(0), 0.2, 4
    draws = [sum(generator.random() < chance for _ in range(8)) for _ in range(20_000)]
    truth = 1 - (1 - chance) ** k

    assert mean(pass_at_k(8, right, k) for right in draws) == pytest.approx(truth, abs=0.01)
    assert abs(mean(1 - (1 - right / 8) ** k for right in draws) - truth) > 0.03


def test_more_answers_than_samples_cannot_be_chosen() -> None:
    with pytest.raises(ConfigError, match="pass@8 cannot be estimated from 4 samples"):
        pass_at_k(4, 1, 8)
