"""A loss that ran away is told once; noise, a loss near 0 and what is not finite are not."""

import math

from minimind.training.rising_loss import RisingLoss


def test_a_hundredfold_of_the_lowest_loss_is_told_once() -> None:
    watch = RisingLoss()
    assert [bool(watch.seen(loss)) for loss in (7.0, 2.0, 150.0, 201.0, 999.0)] == [False, False, False, True, False]


def test_it_says_what_the_loss_was_and_what_to_do() -> None:
    watch = RisingLoss()
    watch.seen(2.0)
    told = watch.seen(4000.0)
    assert told.startswith("the loss is 4,000, more than a hundred times the 2 it was") and "train.muon_lr" in told


def test_a_loss_near_zero_may_be_many_times_itself() -> None:
    watch = RisingLoss()
    assert [watch.seen(loss) for loss in (1e-5, 0.5, -0.2, 0.3, math.nan, 0.4)] == [""] * 6
