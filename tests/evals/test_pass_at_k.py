"""The estimate is the share of choices that hold a right answer, and its error is that of a mean."""

import json
import math
import random
from itertools import combinations
from statistics import mean, stdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimind.errors import ConfigError
from minimind.evals.pass_at_k import PassAtK, estimate, pass_at_k, pass_table


@given(st.integers(1, 9), st.data())
def test_it_is_the_share_of_all_choices_that_hold_a_right_answer(num_samples: int, data: st.DataObject) -> None:
    num_right, k = data.draw(st.integers(0, num_samples)), data.draw(st.integers(1, num_samples))
    answers = [place < num_right for place in range(num_samples)]

    choices = [any(choice) for choice in combinations(answers, k)]

    assert estimate(num_samples, num_right, k) == pytest.approx(mean(choices), abs=1e-12)


def test_it_equals_the_product_of_the_paper() -> None:
    for num_samples, num_right, k in ((200, 3, 100), (200, 150, 10), (16, 1, 8), (16, 10, 8)):
        product = math.prod(1 - k / left for left in range(num_samples - num_right + 1, num_samples + 1))
        expected = 1 - product if num_samples - num_right >= k else 1.0
        assert estimate(num_samples, num_right, k) == pytest.approx(expected, abs=1e-12)


def test_it_is_unbiased_where_the_plain_formula_is_not() -> None:
    generator, chance, k = random.Random(0), 0.2, 4
    draws = [sum(generator.random() < chance for _ in range(8)) for _ in range(20_000)]
    truth = 1 - (1 - chance) ** k

    assert mean(estimate(8, right, k) for right in draws) == pytest.approx(truth, abs=0.01)
    assert abs(mean(1 - (1 - right / 8) ** k for right in draws) - truth) > 0.03


def test_pass_at_one_is_the_share_of_right_answers_and_its_error_that_of_the_mean() -> None:
    num_right = [0, 4, 2, 1, 4]
    [first, fourth] = pass_at_k(num_right, 4, [1, 4])
    shares = [right / 4 for right in num_right]

    assert first.share == pytest.approx(mean(shares))
    assert first.standard_error == pytest.approx(stdev(shares) / math.sqrt(5))
    assert fourth.share == pytest.approx(4 / 5)


def test_a_single_prompt_has_no_error_and_a_table_is_json() -> None:
    [result] = pass_at_k([2], 4, [2])

    assert result == PassAtK(2, pytest.approx(5 / 6), None)
    assert json.loads(json.dumps(pass_table("before", [result])))["rows"] == [["pass@2", result.share, None]]


def test_more_answers_than_samples_cannot_be_chosen() -> None:
    with pytest.raises(ConfigError, match="pass@8 cannot be estimated from 4 samples"):
        pass_at_k([1], 4, [8])
    with pytest.raises(ConfigError, match="at least one prompt"):
        pass_at_k([], 4, [1])
