"""The last box or mark is the answer, else the last number; numbers compare as numbers, anything else as text."""

import pytest

from minimind.text.final_answer import final_answer, is_right, last_number


@pytest.mark.parametrize(
    ("text", "final"),
    [
        (r"\boxed{72}, since 8 times 9 is that", "72"),
        (r"first \boxed{7}, no: \boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{ \{1, 2\} }.", r"\{1, 2\}"),
        (r"$\boxed 5$ is it", "5"),
        ("so 3 of 4\n#### 72 apples\nChecked twice.", "72 apples"),
        ("#### 5\n" + r"no, \boxed{6}", "6"),
        (r"\boxed{6}" + "\n#### 5", "5"),
        # Of 72 it may show the 7.
        (r"\boxed{7", ""),
        ("it is 72", None),
    ],
)
def test_the_last_box_or_mark_holds_the_answer(text: str, final: str | None) -> None:
    assert final_answer(text) == final


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"The answer is \boxed{72}, since 8 times 9 is that.", "72"),
        (r"\boxed{1/2}", "0.5"),
        ("72 cm^2", "72"),
        ("72 cm2", "72"),
        (r"\boxed{72\text{ cm}^2}", "72"),
        (r"\boxed{x = 72}", "72"),
        (r"\boxed{\text{about } 72}", "72"),
        (r"\boxed{x \approx 72}", "72"),
        (r"x = 1/3 \approx 0.33", "1/3"),
        (r"\boxed{28\%}", "0.28"),
        (r"$\boxed{28}$ pct", "28%"),
        (r"\boxed{90^\circ}", "90"),
        ("#### US$1,072.50", "1072.5"),
        ("#### 60 + 12 = 72", "72"),
        ("the area is 72 m²", r"$72 \text{ m}^2$"),
        (r"1.2 \times 10^{-3}", "0.0012"),
        (r"\boxed{2^{10}}", "1024"),
        # What is no number is compared as text.
        (r"It is \boxed{\text{Paris}}.", "Paris"),
        (" Paris\n", "Paris"),
        (r"\boxed{2\sqrt{3}}", r"$2 \sqrt 3$".replace("sqrt 3", "sqrt{3}")),
        (r"\boxed{(1, \dfrac12)}", r"(1,\frac12)"),
        ("#### 3:45", "3:45"),
        ("#### x^2", "x^2"),
    ],
)
def test_an_answer_that_comes_to_what_is_expected_is_right(text: str, expected: str) -> None:
    assert is_right(text, [expected])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"The answer is \boxed{72}, since 8 times 9 is that.", "9"),
        ("72 cm^2", "2"),
        ("72 cm²", "2"),
        ("72 cm2", "2"),
        (r"72\text{ cm}^{2}", "2"),
        ("the unit is m^2", "2"),
        (r"\boxed{7", "7"),
        # A number in an expression is not what the expression comes to.
        (r"\boxed{2\pi}", "2"),
        (r"so it is 2\sqrt{3}", "3"),
        (r"so it is \frac{\pi}{2}", "2"),
        (r"\boxed{2x}", "2"),
        (r"\boxed{72 - n}", "72"),
        (r"\boxed{x > 72}", "72"),
        (r"\boxed{f(2)}", "2"),
        (r"\boxed{72 \text{ or } 73}", "73"),
        ("5", r"\sqrt{5}"),
        ("2", "2x"),
        ("x^3", "x^2"),
        ("Paris.", "Paris"),
        ("", "0"),
    ],
)
def test_other_answers_are_not(text: str, expected: str) -> None:
    assert not is_right(text, [expected])


def test_several_numbers_stand_anywhere_before_a_broken_call() -> None:
    assert is_right("3, no: 4", ["4"]) and not is_right("4, no: 3", ["4"])
    assert is_right("4 and 3", ["3", "4"]) and not is_right("4 and 4", ["3", "4"])
    assert is_right('4 <tool_call>{"name": 5', ["4"]) and not is_right("<tool_call> 4", ["4"])


def test_a_text_without_a_number_comes_to_none() -> None:
    assert last_number("fifty") == last_number(r"\boxed{}, not 5") == ()
