"""Standard errors are those of the textbook, and pairing takes out what both models share."""

import math

import pytest

from minimind.evals.measured import Measured, fingerprint_of


def test_a_share_has_the_error_of_a_binomial_sample() -> None:
    share = Measured.share([True] * 30 + [False] * 70, "x")
    assert share.value == pytest.approx(0.3)
    assert share.standard_error == pytest.approx(math.sqrt(0.3 * 0.7 / 99))
    assert Measured.share([True], "x").standard_error is None


def test_a_ratio_that_is_equal_everywhere_has_no_error() -> None:
    measured = Measured([2.0, 4.0, 10.0], [1.0, 2.0, 5.0], "x")
    assert measured.value == 2 and measured.standard_error == pytest.approx(0)


def test_pairing_finds_a_difference_that_separate_samples_hide() -> None:
    hard = [float(number) for number in range(1, 101)]
    old, sizes = Measured(hard, [10.0] * 100, "same"), [10.0] * 100
    new = Measured([amount - 1 for amount in hard], sizes, "same")
    paired = new.minus(old)
    assert paired.is_paired and paired.value == pytest.approx(-0.1) and paired.exceeds_noise
    apart = Measured(new.amounts, sizes, "other").minus(old)
    assert not apart.is_paired and apart.exceeds_noise is False
    assert apart.standard_error == pytest.approx(math.hypot(new.standard_error or 0, old.standard_error or 0))


def test_a_model_compared_with_itself_is_within_noise() -> None:
    measured = Measured.share([True, False, True], "x")
    assert measured.minus(measured).exceeds_noise is False


def test_it_is_written_and_read_back() -> None:
    measured = Measured([1.25, 3.0], [2.0, 4.0], fingerprint_of(["a", "b"]))
    assert Measured.from_json(measured.to_json()) == measured
    with pytest.raises(ValueError, match="one length"):
        Measured.from_json({"amounts": [1], "sizes": [], "items": ""})


def test_a_fingerprint_tells_order_and_boundaries() -> None:
    marks = {fingerprint_of(texts) for texts in (["ab", "c"], ["a", "bc"], ["c", "ab"], ["abc"])}
    assert len(marks) == 4 and fingerprint_of(["ab", "c"]) in marks
