"""Skills about words: say them again, find one in a list, remember what was said about a thing."""

from random import Random

from minimind.builtin.skills import Exchange, Skill, Value, Wordings, is_held_out, pick
from minimind.builtin.words import COLOURS, ITEMS, PLACES, Item

__all__ = ["WORD_SKILLS"]

BY_ENGLISH = {item.en: item for item in ITEMS}

REPEAT: Wordings = {
    "en": ("Repeat: {}", "Repeat after me: {}", "Say this: {}", "Please repeat these words: {}", "Copy this: {}"),
    "zh": ("重复：{}", "请跟我说：{}", "请重复这些词：{}", "照着说一遍：{}", "抄写：{}"),
}
REPEAT_REASONING = {"en": "I say the same words again.", "zh": "我把这些词再说一遍。"}

LIST: Wordings = {
    "en": ("Here is a list: {0}. Which word is {1}?", "{0}. Which is the {1} word?", "What is the {1} word? {0}"),
    "zh": ("有这些词：{0}。{1}词是什么？", "{0}。哪个是{1}词？", "{1}词是什么？{0}"),
}
LIST_REASONING = {"en": "The {} word is {}.", "zh": "{}词是{}。"}
LIST_ORDER = {"en": ("first", "second", "last"), "zh": ("第一个", "第二个", "最后一个")}
LIST_COMMA = {"en": ", ", "zh": "、"}

TOLD = {
    "colour": {"en": "the {} is {}", "zh": "{}是{}的"},
    "place": {"en": "the {} is {}", "zh": "{}在{}"},
}
ASKED = {
    "colour": {"en": "What colour is the {}?", "zh": "{}是什么颜色的？"},
    "place": {"en": "Where is the {}?", "zh": "{}在哪里？"},
}
ASKED_REASONING = {"en": "The question is about the {}.", "zh": "问的是{}。"}
PROPERTIES = {"colour": dict(COLOURS), "place": dict(PLACES)}


def _name(item: Item, language: str) -> str:
    return item.en if language == "en" else item.zh


def _names(value: Value, language: str) -> list[str]:
    return [_name(BY_ENGLISH[str(word)], language) for word in value]


def _draw_words(random: Random, language: str) -> Value:
    return tuple(item.en for item in random.sample(ITEMS, random.choice((2, 3))))


def _ask_repeat(value: Value, language: str, random: Random) -> Exchange:
    words = " ".join(_names(value, language))
    return Exchange(pick(random, REPEAT, language).format(words), words, REPEAT_REASONING[language])


def _draw_list(random: Random, language: str) -> Value:
    return tuple(item.en for item in random.sample(ITEMS, 3))


def _ask_list(value: Value, language: str, random: Random) -> Exchange:
    names = _names(value, language)
    place = random.randrange(3)
    order, answer = LIST_ORDER[language][place], names[place]
    question = pick(random, LIST, language).format(LIST_COMMA[language].join(names), order)
    return Exchange(question, answer, LIST_REASONING[language].format(order, answer))


def _property_skill(name: str) -> Skill:
    """Two things have a property each, and one is asked about; what is said of the other is never a held-out value."""
    properties = PROPERTIES[name]

    def draw(random: Random, language: str) -> Value:
        return random.choice(ITEMS).en, random.choice(list(properties))

    def draw_other(value: Value, random: Random, language: str) -> Value:
        while True:
            other = draw(random, language)
            if other[0] != value[0] and other[1] != value[1] and not is_held_out(name, other):
                return other

    def tell(value: Value, language: str) -> str:
        item, english = value
        told = str(english) if language == "en" else properties[str(english)]
        return TOLD[name][language].format(_name(BY_ENGLISH[str(item)], language), told)

    def ask(value: Value, language: str, random: Random) -> Exchange:
        both = random.sample((value, draw_other(value, random, language)), 2)
        facts = (" and " if language == "en" else "，").join(tell(pair, language) for pair in both)
        asked = _names(value[:1], language)[0]
        question = ASKED[name][language].format(asked)
        answer = _sentence(tell(value, language), language)
        # English parts sentences with a space.
        gap = " " if language == "en" else ""
        reasoning = ASKED_REASONING[language].format(asked)
        return Exchange(f"{_sentence(facts, language)}{gap}{question}", answer, reasoning)

    return Skill(name, draw, ask)


def _sentence(clause: str, language: str) -> str:
    return clause[0].upper() + clause[1:] + ("." if language == "en" else "。")


WORD_SKILLS = (
    Skill("repeat", _draw_words, _ask_repeat),
    Skill("list", _draw_list, _ask_list, weight=1.5),
    _property_skill("colour"),
    _property_skill("place"),
)
