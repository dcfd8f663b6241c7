"""An engine counts its work."""

from minimind.generation.counters import STEP_BOUNDS, Counters


def test_a_step_is_counted_under_the_least_bound_that_holds_it() -> None:
    counters = Counters()
    for seconds in (0.001, STEP_BOUNDS[0], 0.003, 7.0):
        counters.note_step(seconds, 10)
    assert counters.steps == {STEP_BOUNDS[0]: 2, STEP_BOUNDS[1]: 1, float("inf"): 1}
    assert counters.num_computed == 40 and counters.step_seconds == 7.0 + 0.001 + STEP_BOUNDS[0] + 0.003


def test_reused_tokens_are_part_of_the_prompt() -> None:
    counters = Counters()
    counters.note_prompt(20, 5)
    counters.note_prompt(3, 0)
    assert (counters.num_prompt, counters.num_reused) == (23, 5)
