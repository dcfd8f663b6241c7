"""Lines on which tokenizers disagree, made by rule: 2,400 of them, the same every time."""

import random

PARTS = (
    *("hello", " world", "I'll", "don't", "'S", "\u2019s", "Straße", "naïve", "привет", " مرحبا", "हिन्दी", "ไทย"),
    *("2026年价格是12345元", "1,000,000", "3.14159", "½²٣④", "x1y22", " 7", "  8", "0x1F", "Ⅷ", "1e-9", "٠١٢"),
    *("def f(x):\n\treturn {'a': [1, 2]}\n", "\n\n    # 注释", "for(;;){i++;}", '<div class="a">', "a_b.c->d", "!=="),
    *('{"name": "f", "arguments": {"x": "\\u4f60", "y": -1.5e10}}', "[1,2,3]", "\\n", '"\\"'),
    *("你好，世界。", "日本語かな", "각가", "👩\u200d🚀", "🏳️\u200d🌈", "e\u0301", "\u200b", "𠮷野家", "ﬁ", "İ"),
    *(" ", "  ", "\n", "\n\n", "\t", "\r\n", " \n ", "\u3000", "\u00a0", "   \n\n\t ", "\r", "\u2028", "\x0b"),
    *("!", "?!...", "$$$", "--", "«»", "—", "|", "<", ">", "@#", "'", "''", "'re"),
)
NUM_MIXED = 1700
NUM_RANDOM = 700


def hostile_lines() -> list[str]:
    generator = random.Random(0)
    mixed = ["".join(generator.choices(PARTS, k=generator.randrange(1, 12))) for _ in range(NUM_MIXED)]
    # Any character but the surrogates and NUL, which C strings end with.
    ranges = ((1, 0x7F), (0x80, 0x2FF), (0x370, 0x1FFF), (0x2000, 0x2FFF), (0x3000, 0xD7FF), (0xE000, 0x10FFFF))
    drawn = [
        "".join(chr(generator.randint(*generator.choice(ranges))) for _ in range(generator.randrange(1, 20)))
        for _ in range(NUM_RANDOM)
    ]
    return [*PARTS, *mixed, *drawn]
