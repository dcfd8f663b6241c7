"""Skills about numbers: their order, their digits, and sums that the calculator works out.

A digit is a token of its own under the split pattern `qwen2`, so a number is a short row of ten known symbols: what is
learnt about some numbers can hold for all.
"""

from collections.abc import Callable
from operator import add, mul, sub
from random import Random

from minimind.builtin.skills import Exchange, Skill, Value, Wordings, pick
from minimind.builtin.words import ITEMS

__all__ = ["NUMBER_SKILLS"]

NEXT: Wordings = {
    "en": ("What number comes after {}?", "Which number is next after {}?", "What comes right after {}?"),
    "zh": ("{}后面的数是几？", "{}的下一个数是多少？", "比{}大一的数是几？"),
}
PREVIOUS: Wordings = {
    "en": ("What number comes before {}?", "Which number is just before {}?", "What comes right before {}?"),
    "zh": ("{}前面的数是几？", "{}的上一个数是多少？", "比{}小一的数是几？"),
}
LARGER: Wordings = {
    "en": ("Which is larger, {} or {}?", "Which number is larger: {} or {}?", "Name the larger number: {}, {}."),
    "zh": ("{}和{}哪个大？", "哪个数更大，{}还是{}？", "{}和{}，大的是哪个？"),
}
SMALLER: Wordings = {
    "en": ("Which is smaller, {} or {}?", "Which number is smaller: {} or {}?", "Name the smaller number: {}, {}."),
    "zh": ("{}和{}哪个小？", "哪个数更小，{}还是{}？", "{}和{}，小的是哪个？"),
}
COUNT: Wordings = {
    "en": ("Count from {} to {}.", "Please count from {} up to {}.", "Write the numbers from {} to {}."),
    "zh": ("从{}数到{}。", "请从{}数到{}。", "写出从{}到{}的数。"),
}
COUNT_REASONING = {"en": "I start at {} and stop at {}.", "zh": "从{}开始，到{}为止。"}
COUNT_COMMA = {"en": ", ", "zh": "、"}
PARITY: Wordings = {
    "en": ("Is {} even or odd?", "Is the number {} odd or even?", "Even or odd: {}?"),
    "zh": ("{}是单数还是双数？", "{}是双数还是单数？", "数字{}是单数还是双数？"),
}
PARITY_WORDS = {"en": ("even", "odd"), "zh": ("双数", "单数")}
PARITY_ANSWER = {"en": "{} is {}.", "zh": "{}是{}。"}
PARITY_REASONING = {"en": "The last digit is {}.", "zh": "最后一位是{}。"}
DIGIT: Wordings = {
    "en": ("What is the {1} digit of {0}?", "The number is {0}. What is its {1} digit?", "Give the {1} digit of {0}."),
    "zh": ("{0}的{1}位数字是几？", "数字是{0}，{1}位是几？", "说出{0}的{1}位数字。"),
}
DIGIT_ORDER = {"en": ("first", "last"), "zh": ("第一", "最后一")}
DIGIT_REASONING = {"en": "The digits are {}.", "zh": "各位数字是{}。"}

OPERATORS: dict[str, Callable[[int, int], int]] = {"+": add, "-": sub, "*": mul}
OPERATOR_WORDS = {"en": {"+": "plus", "-": "minus", "*": "times"}, "zh": {"+": "加", "-": "减", "*": "乘"}}
# {0} is the expression, {1} {3} {2} the same in words.
SUM: Wordings = {
    "en": ("What is {0}?", "{0} = ?", "What is {1} {3} {2}?", "Calculate {0}.", "Please work out {1} {3} {2}."),
    "zh": ("{0} 等于多少？", "{0} = ?", "{1}{3}{2}等于几？", "计算 {0}。", "请算一下{1}{3}{2}。"),
}
SUM_REASONING = {"en": "I calculate {}.", "zh": "我来计算 {}。"}
# {p} plural, {z} Chinese noun, {m} its measure word.
STORIES: dict[str, Wordings] = {
    "+": {
        "en": (
            "I have {a} {p} and get {b} more. How many {p} do I have?",
            "There are {a} {p} here and {b} {p} there. How many {p} are there in all?",
        ),
        "zh": (
            "我有{a}{m}{z}，又得到{b}{m}。一共有多少{m}{z}？",
            "这里有{a}{m}{z}，那里有{b}{m}{z}。一共有多少{m}{z}？",
        ),
    },
    "-": {
        "en": (
            "I have {a} {p} and give away {b}. How many {p} are left?",
            "There were {a} {p}. Now {b} of them are gone. How many {p} are left?",
        ),
        "zh": ("我有{a}{m}{z}，送走了{b}{m}。还剩多少{m}{z}？", "原来有{a}{m}{z}，少了{b}{m}。还剩多少{m}{z}？"),
    },
    "*": {
        "en": (
            "There are {a} groups of {b} {p}. How many {p} are there in all?",
            "I have {a} rows with {b} {p} in each. How many {p} do I have?",
        ),
        "zh": ("有{a}组{z}，每组{b}{m}。一共有多少{m}{z}？", "我有{a}排{z}，每排{b}{m}。一共有多少{m}{z}？"),
    },
}
STORY_ANSWER = {"en": "{r} {p}", "zh": "{r}{m}{z}"}


def _number(low: int, high: int) -> Callable[[Random, str], Value]:
    return lambda random, language: (random.randint(low, high),)


def _ask_next(value: Value, language: str, random: Random) -> Exchange:
    number = int(value[0])
    question = pick(random, NEXT, language).format(number)
    return Exchange(question, str(number + 1), f"{number} + 1 = {number + 1}")


def _ask_previous(value: Value, language: str, random: Random) -> Exchange:
    number = int(value[0])
    question = pick(random, PREVIOUS, language).format(number)
    return Exchange(question, str(number - 1), f"{number} - 1 = {number - 1}")


def _draw_pair(random: Random, language: str) -> Value:
    return tuple(sorted(random.sample(range(10, 100), 2)))


def _ask_compare(value: Value, language: str, random: Random) -> Exchange:
    low, high = value
    wordings, answer = random.choice(((LARGER, high), (SMALLER, low)))
    question = pick(random, wordings, language).format(*random.sample(value, 2))
    return Exchange(question, str(answer), f"{low} < {high}")


def _draw_range(random: Random, language: str) -> Value:
    start = random.randint(1, 95)
    return start, start + random.randint(2, 5)


def _ask_count(value: Value, language: str, random: Random) -> Exchange:
    start, stop = map(int, value)
    numbers = COUNT_COMMA[language].join(map(str, range(start, stop + 1)))
    question = pick(random, COUNT, language).format(start, stop)
    return Exchange(question, numbers, COUNT_REASONING[language].format(start, stop))


def _ask_parity(value: Value, language: str, random: Random) -> Exchange:
    number = int(value[0])
    answer = PARITY_ANSWER[language].format(number, PARITY_WORDS[language][number % 2])
    question = pick(random, PARITY, language).format(number)
    return Exchange(question, answer, PARITY_REASONING[language].format(number % 10))


def _ask_digit(value: Value, language: str, random: Random) -> Exchange:
    digits = str(value[0])
    place = random.choice((0, -1))
    question = pick(random, DIGIT, language).format(digits, DIGIT_ORDER[language][place])
    return Exchange(question, digits[place], DIGIT_REASONING[language].format(" ".join(digits)))


def _draw_sum(random: Random, language: str) -> Value:
    """An operator and its operands, the smaller first: 3 + 4 and 4 + 3 are one value."""
    operator = random.choice(list(OPERATORS))
    if operator == "*":
        return (operator, *sorted((random.randint(2, 12), random.randint(2, 99))))
    # At least two apart, so that what is left of a subtraction is always a plural.
    low = random.randint(2, 60)
    return operator, low, low + random.randint(2, 39)


def _operands(value: Value, random: Random) -> tuple[str, int, int]:
    """The operator and its operands in the order of the question."""
    operator, low, high = str(value[0]), int(value[1]), int(value[2])
    a, b = (high, low) if operator == "-" else random.sample((low, high), 2)
    return operator, a, b


def _ask_sum(value: Value, language: str, random: Random) -> Exchange:
    operator, a, b = _operands(value, random)
    expression, word = f"{a} {operator} {b}", OPERATOR_WORDS[language][operator]
    question = pick(random, SUM, language).format(expression, a, b, word)
    answer = f"{expression} = {OPERATORS[operator](a, b)}"
    return Exchange(question, answer, SUM_REASONING[language].format(expression), expression)


def _ask_story(value: Value, language: str, random: Random) -> Exchange:
    operator, a, b = _operands(value, random)
    item, expression = random.choice(ITEMS), f"{a} {operator} {b}"
    words = {"a": a, "b": b, "p": item.plural, "z": item.zh, "m": item.measure, "r": OPERATORS[operator](a, b)}
    question = pick(random, STORIES[operator], language).format(**words)
    answer = STORY_ANSWER[language].format(**words)
    return Exchange(question, answer, SUM_REASONING[language].format(expression), expression)


NUMBER_SKILLS = (
    Skill("next", _number(1, 299), _ask_next, weight=1.5),
    Skill("previous", _number(2, 300), _ask_previous, weight=1.5),
    Skill("compare", _draw_pair, _ask_compare, weight=2.0),
    Skill("count", _draw_range, _ask_count),
    Skill("parity", _number(1, 999), _ask_parity),
    Skill("digit", _number(100, 9999), _ask_digit),
    Skill("sum", _draw_sum, _ask_sum, family="arithmetic", uses_calculator=True),
    Skill("story", _draw_sum, _ask_story, family="arithmetic", uses_calculator=True),
)
