"""A request says nothing of how it is answered, and a full queue is something its sender can mend."""

import dataclasses

import pytest

from minimind.errors import UserError
from minimind.generation.request import Event, QueueFull, Request, misfit
from minimind.generation.sampling import Sampling


def test_a_request_cannot_change_while_it_is_answered() -> None:
    request = Request(prompt=[1, 2], sampling=Sampling(max_tokens=3))
    with pytest.raises(dataclasses.FrozenInstanceError):
        request.stream = 4  # type: ignore[misc]


def test_a_full_queue_is_an_error_of_its_own_that_a_user_can_mend() -> None:
    assert issubclass(QueueFull, UserError)
    assert Event(3).finish_reason is None


@pytest.mark.parametrize(("size", "answer", "fits"), [(9, 1, True), (10, 1, False), (10, 0, True), (6, 5, False)])
def test_a_prompt_fits_where_its_answer_does(size: int, answer: int, fits: bool) -> None:
    problem = misfit(size, 10, answer)
    assert (problem == "") is fits
    assert fits or f"the prompt has {size} tokens and the context 10, of which the answer needs at least" in problem
