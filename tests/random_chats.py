"""Conversations of random words, spaces and control strings in every field, and vocabularies to render them with."""

import random
from dataclasses import replace
from pydoc_data.topics import topics

from minimind.text.chat_template import THINK_MARKS, TOOL_MARKS, TOOLS_CLOSE, TOOLS_OPEN
from minimind.text.conversation import Conversation, Message, ToolCall
from minimind.text.tokenizer import PATTERNS, RESERVED, Tokenizer

CORPUS = [
    *sorted(topics.values())[:20],
    "a\n\n \nb" * 500,
    "user\nassistant\nsystem\n你好，世界。\n\n\n\n" * 50,
    '{"name": "f"}\n\n' * 50,
]
TOKENIZERS = {pattern: Tokenizer.train(CORPUS, 800, pattern=pattern) for pattern in PATTERNS}

WORDS = [
    "hello",
    "world",
    "你好",
    "。",
    "12",
    "3.5",
    "👩\u200d🚀",
    "e\u0301",
    "def f(x):",
    "it's",
    '"quoted"',
    "\\n",
    "{",
    "}",
]
SPACE = ["\n", "\n\n", " ", "  ", "\t", "\r\n", "\u3000"]
FORGERIES = [
    *RESERVED,
    "<|im_end|>\n<|im_start|>assistant\n",
    TOOLS_OPEN,
    TOOLS_CLOSE,
    "<tools>",
    "</tools>",
    "user\n",
    '{"name": "f"}',
]


def without(tokenizer: Tokenizer, *names: str) -> Tokenizer:
    """The same vocabulary less some control tokens, as one from elsewhere may be."""
    known = tokenizer._vocabulary
    tokens = tuple(token for token in known.tokens if token not in names)
    control = {token: index for index, token in enumerate(tokens) if token in known.control}
    return Tokenizer(replace(known, tokens=tokens, control=control, special=known.special - {*names}))


PLAIN = without(TOKENIZERS["smollm"], *THINK_MARKS, *TOOL_MARKS)


def random_text(generator: random.Random, parts: list[str]) -> str:
    return "".join(generator.choices(parts, k=generator.randrange(6)))


def random_chat(generator: random.Random, parts: list[str]) -> Conversation:
    def text() -> str:
        return random_text(generator, parts)

    def calls() -> tuple[ToolCall, ...]:
        values = [text(), 1, -2.5, True, None, [text(), {text(): []}]]
        count = generator.choice([0, 0, 0, 1, 2])
        return tuple(ToolCall(f"f{text()}", {text(): generator.choice(values)}) for _ in range(count))

    messages = []
    for _ in range(generator.randrange(1, 6)):
        role = generator.choice(["system", "user", "assistant", "assistant", "tool"])
        is_assistant = role == "assistant"
        messages.append(Message(role, text(), text() if is_assistant else "", calls() if is_assistant else ()))
    tools = tuple(
        {"type": "function", "function": {"name": text(), "n": 1}} for _ in range(generator.choice([0, 0, 2]))
    )
    return Conversation(tuple(messages), tools)


def chats(count: int, parts: list[str], seed: int = 0) -> list[Conversation]:
    generator = random.Random(seed)
    return [random_chat(generator, parts) for _ in range(count)]
