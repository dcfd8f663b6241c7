"""Reasons to leave a document out: too short, too long, control characters, broken characters, repeated lines.

Each check is a share of the document with a limit, so one odd character costs nothing and a page of debris is dropped.
Nothing is repaired: a document is kept as it is or dropped and counted. The limits are for prose in any language.
"""

import re
from collections import Counter

from minimind.data.options import CleanConfig

__all__ = ["reason_to_drop"]

# What remains of text that was decoded wrongly: the replacement character; UTF-8 read as Latin-1 or Windows-1252 (a
# letter from Â to ô and a character of its upper half); and what GBK readers make of replacement characters.
BROKEN = re.compile("\ufffd|[\u00c2-\u00f4][\u0080-\u00bf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ]+|锟斤拷|烫烫|屯屯屯")
CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


def reason_to_drop(text: str, config: CleanConfig) -> str:
    """Why a document should be left out, as a word for the report; "" to keep it."""
    size = len(text)
    if size < config.min_characters:
        return "too_short"
    if config.max_characters is not None and size > config.max_characters:
        return "too_long"
    # Wrong decoding leaves control characters too; it is the better name for both.
    if sum(map(len, BROKEN.findall(text))) > config.max_broken * size:
        return "broken_characters"
    if len(CONTROL.findall(text)) > config.max_control * size:
        return "control_characters"
    if _repeated(text) > config.max_repeated * size:
        return "repeated_lines"
    return ""


def _repeated(text: str) -> int:
    """The characters on lines that are copies of an earlier line."""
    lines = Counter(line for line in map(str.strip, text.split("\n")) if line)
    return sum(len(line) * (count - 1) for line, count in lines.items())
