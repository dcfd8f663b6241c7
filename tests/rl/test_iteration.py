"""What a checkpoint keeps of a set of rollouts: all of it while it is needed, for any number of ranks."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from minimind.errors import CheckpointError
from minimind.rl.experience import Experience
from minimind.rl.iteration import STATE_FILE, Iteration, iteration_to_bytes, merge_iterations, read_iteration

GROUP = 2


def places_of(rank: int, ranks: int) -> Callable[[int], Sequence[int]]:
    """Four places in each iteration."""
    return lambda number: range(4 * number, 4 * number + 4)[rank::ranks]


def rows(places: Sequence[int]) -> list[Experience]:
    return [
        Experience(place, member, (1, 40 + place), (0.0, 1.0), {"reward": (0.1, 1.0)})
        for place in places
        for member in range(GROUP)
    ]


def iteration(rank: int = 0, ranks: int = 1, **changes: int | bool) -> Iteration:
    found = Iteration(3, start=9, updates=3, rows=rows(places_of(rank, ranks)(3)), last_step=9)
    for name, value in changes.items():
        setattr(found, name, value)
    return found


def write(folder: Path, contents: Sequence[bytes]) -> Path:
    path = folder / STATE_FILE
    path.write_bytes(merge_iterations(contents))
    return path


def test_an_iteration_covers_its_updates_unless_it_was_ended() -> None:
    assert [step for step in range(20) if iteration().covers(step)] == [9, 10, 11]
    assert not any(iteration(is_over=True).covers(step) for step in range(20))
    assert [iteration(last_step=step).is_spent for step in (9, 10, 11)] == [False, False, True]
    assert iteration(is_over=True).is_spent


def test_it_reads_back_equal(tmp_path: Path) -> None:
    path = write(tmp_path, [iteration_to_bytes(iteration(last_step=10))])
    assert read_iteration(path, places_of(0, 1), GROUP) == iteration(last_step=10)


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_any_number_of_ranks_can_take_up_what_two_left(tmp_path: Path, ranks: int) -> None:
    path = write(tmp_path, [iteration_to_bytes(iteration(rank, 2)) for rank in range(2)])
    for rank in range(ranks):
        assert read_iteration(path, places_of(rank, ranks), GROUP) == iteration(rank, ranks)


def test_of_a_spent_iteration_only_its_number_is_kept(tmp_path: Path) -> None:
    for spent in (iteration(last_step=11), iteration(is_over=True)):
        path = write(tmp_path, [iteration_to_bytes(spent)])
        found = read_iteration(path, places_of(0, 1), GROUP)
        assert found.number == 3 and not found.rows and not found.covers(found.last_step + 1)


def test_rollouts_that_are_missing_or_no_rollouts_at_all_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, [iteration_to_bytes(iteration(0, 2))])
    with pytest.raises(CheckpointError, match="holds 0 rollouts of this process, expected 4"):
        read_iteration(path, places_of(1, 2), GROUP)
    for content in ("[]", "{", json.dumps({"number": 3}), json.dumps({"number": 3, "rows": [{"place": 12}]})):
        path.write_text(content)
        with pytest.raises(CheckpointError, match=r"holds no rollouts.*earlier checkpoint"):
            read_iteration(path, places_of(0, 1), GROUP)
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_iteration(tmp_path / "none.json", places_of(0, 1), GROUP)
