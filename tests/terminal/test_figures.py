"""Times, sizes and counts are rounded to what a person reads."""

from minimind.terminal.figures import duration, millions, size


def test_times_are_told_in_the_unit_that_fits() -> None:
    assert [duration(seconds) for seconds in (0.0512, 8.24, 59.4, 59.7, 400, 7500)] == [
        "0.0512 s",
        "8.24 s",
        "59.4 s",
        "1 min 00 s",
        "6 min 40 s",
        "2 h 05 min",
    ]


def test_sizes_and_counts_have_the_digits_one_reads() -> None:
    assert [size(1234), size(410_200_000), size(1.7e9)] == ["1.2 kB", "410.2 MB", "1.70 GB"]
    assert millions(26_900_000) == "26.9M"
