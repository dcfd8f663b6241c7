"""The books balance, or the program stops."""

import pytest

from minimind.data.counts import Counts, PrepareReport


def test_whatever_is_read_is_somewhere() -> None:
    report = PrepareReport(lines=4, blank_lines=1)
    for place, tokens in (("train", 5), ("valid", 7), ("empty", 2)):
        report.count(place, Counts(1, tokens, tokens - 1, 20))
    report.check()
    assert report.read == Counts(3, 14, 11, 60)
    assert (report.train.tokens, report.valid.tokens, report.dropped["empty"].tokens) == (5, 7, 2)


@pytest.mark.parametrize("change", [{"lines": 3}, {"bad_rows": 1}, {"train": Counts(9, 9, 9, 9)}])
def test_a_row_that_is_nowhere_is_an_error_of_the_program(change: dict[str, object]) -> None:
    report = PrepareReport(lines=1)
    report.count("train", Counts(1, 5, 4, 20))
    for name, value in change.items():
        setattr(report, name, value)
    with pytest.raises(AssertionError):
        report.check()
