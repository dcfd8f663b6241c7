"""The split of values is fixed, fair, and decides what can be drawn."""

from random import Random

from minimind.builtin.skills import Exchange, Skill, is_held_out

NUMBERS = Skill(
    "numbers",
    lambda random, language: (random.randint(0, 99),),
    lambda value, language, random: Exchange(str(value[0]), str(value[0]), ""),
)


def test_about_a_tenth_of_all_values_is_held_out() -> None:
    assert 900 < sum(is_held_out("numbers", (n,)) for n in range(10_000)) < 1100


def test_the_split_never_changes() -> None:
    assert [n for n in range(60) if is_held_out("numbers", (n,))] == HELD_OUT


def test_families_hold_out_different_values() -> None:
    first, second = ({n for n in range(1000) if is_held_out(family, (n,))} for family in ("next", "previous"))
    assert len(first & second) < len(first) / 2


def test_both_parts_of_the_values_can_be_drawn_and_do_not_meet() -> None:
    random = Random(0)
    train, test = ({NUMBERS.draw_value(random, "en", held_out=part) for _ in range(2000)} for part in (False, True))
    assert train | test == {(n,) for n in range(100)}
    assert not train & test


# Written down once: another list would mean that published scores were of another split.
HELD_OUT = [2, 14, 19, 26, 32, 38, 46, 53, 59]
