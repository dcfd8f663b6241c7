"""Conversations that this project makes from a seed, and the 200 questions that tell whether they were learnt.

    builtin_conversations   what to learn from: identity, small talk, simple questions, sums through the calculator
    builtin_questions       one question each, about values that no training conversation asks about

English and Chinese, thinking on and off, one to three questions in a conversation. The values of each kind are parted
by hash (`skills.is_held_out`), so a longer training set or another seed still shows none of the test's.
"""

import json
from collections.abc import Iterator
from random import Random
from typing import Any

from minimind.builtin.identity import IDENTITY
from minimind.builtin.number_skills import NUMBER_SKILLS
from minimind.builtin.skills import Exchange, Skill
from minimind.builtin.talk import draw_talk
from minimind.builtin.word_skills import WORD_SKILLS
from minimind.builtin.words import LANGUAGES
from minimind.tools.builtin import TOOLS, run_tool

__all__ = ["SKILLS", "builtin_conversations", "builtin_questions"]

SKILLS = (IDENTITY, *WORD_SKILLS, *NUMBER_SKILLS)
PLAIN_SKILLS = tuple(skill for skill in SKILLS if not skill.uses_calculator)
CALCULATOR_SKILLS = tuple(skill for skill in SKILLS if skill.uses_calculator)

CALCULATOR = TOOLS["calculate_math"]

NUM_CONVERSATIONS = 12_000
NUM_QUESTIONS = 200

# How often a conversation offers the calculator, and how often an exchange in it needs none.
CALCULATOR_SHARE = 0.15
OTHER_WITH_CALCULATOR_SHARE = 0.15
# How often an exchange without the calculator is talk and not a skill.
TALK_SHARE = 0.12
THINKING_SHARE = 0.3
CHINESE_SHARE = 0.4
# Exchanges in a conversation. With the calculator's description, of 200 tokens, two still fit a context of 512.
NUM_EXCHANGES = (1, 1, 2, 3)
NUM_CALCULATOR_EXCHANGES = (1, 2, 2)

RESULT_REASONING = {"en": "The calculator says {}.", "zh": "计算器得出 {}。"}


def builtin_conversations(num_conversations: int = NUM_CONVERSATIONS, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Rows `{"conversations", "source", "lang", "tools"?}` to train on; row n depends on the seed and n alone."""
    for index in range(num_conversations):
        random = Random(f"conversation {seed} {index}")
        language = "zh" if random.random() < CHINESE_SHARE else "en"
        has_calculator = random.random() < CALCULATOR_SHARE
        is_thinking = random.random() < THINKING_SHARE
        draw = _draw_with_calculator if has_calculator else _draw_plain
        count = random.choice(NUM_CALCULATOR_EXCHANGES if has_calculator else NUM_EXCHANGES)
        exchanges = [draw(random, language) for _ in range(count)]
        messages = [message for exchange in exchanges for message in _messages(exchange, language, is_thinking)]
        row = {"conversations": messages, "source": "minimind-conversations", "lang": language}
        yield row | _tools(has_calculator)


def builtin_questions(num_questions: int = NUM_QUESTIONS, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Rows `{"conversations", "answer", "kind", "lang", "thinking", "tools"?}`: a prompt and its exact answer.

    Kinds and languages take turns, a quarter of each is asked with thinking on, and no question is asked twice.
    """
    asked: set[str] = set()
    for index in range(num_questions):
        skill = SKILLS[index % len(SKILLS)]
        turn = index // len(SKILLS)
        language = LANGUAGES[turn % len(LANGUAGES)]
        random = Random(f"question {seed} {index}")
        exchange = _new_question(skill, language, random, asked)
        row = {
            "conversations": [{"role": "user", "content": exchange.question}],
            "answer": exchange.answer,
            "kind": skill.name,
            "lang": language,
            "thinking": turn // len(LANGUAGES) % 4 == 3,
        }
        yield row | _tools(skill.uses_calculator)


def _new_question(skill: Skill, language: str, random: Random, asked: set[str]) -> Exchange:
    while True:
        exchange = skill.ask(skill.draw_value(random, language, held_out=True), language, random)
        if exchange.question not in asked:
            asked.add(exchange.question)
            return exchange


def _draw_skill(skills: tuple[Skill, ...], random: Random, language: str) -> Exchange:
    (skill,) = random.choices(skills, [skill.weight for skill in skills])
    return skill.ask(skill.draw_value(random, language, held_out=False), language, random)


def _draw_plain(random: Random, language: str) -> Exchange:
    is_talk = random.random() < TALK_SHARE
    return draw_talk(random, language) if is_talk else _draw_skill(PLAIN_SKILLS, random, language)


def _draw_with_calculator(random: Random, language: str) -> Exchange:
    is_other = random.random() < OTHER_WITH_CALCULATOR_SHARE
    return _draw_plain(random, language) if is_other else _draw_skill(CALCULATOR_SKILLS, random, language)


def _tools(has_calculator: bool) -> dict[str, Any]:
    return {"tools": [CALCULATOR.schema]} if has_calculator else {}


def _messages(exchange: Exchange, language: str, is_thinking: bool) -> list[dict[str, Any]]:
    """The question, then the answer; between them the call of the calculator and its result, where one is needed."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": exchange.question}]
    reasoning = exchange.reasoning
    if exchange.expression:
        arguments = {"expression": exchange.expression}
        result = run_tool(CALCULATOR.name, arguments)
        call = {"name": CALCULATOR.name, "arguments": arguments}
        messages.append(_assistant("", reasoning, is_thinking) | {"tool_calls": [call]})
        messages.append({"role": "tool", "content": result})
        reasoning = RESULT_REASONING[language].format(json.loads(result)["result"])
    return [*messages, _assistant(exchange.answer, reasoning, is_thinking)]


def _assistant(content: str, reasoning: str, is_thinking: bool) -> dict[str, Any]:
    message = {"role": "assistant", "content": content}
    return message | ({"reasoning_content": reasoning} if is_thinking else {})
