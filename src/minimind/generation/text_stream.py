"""Ids in, text out, as a reader may see it: whole characters only, and nothing of a stop string."""

from collections.abc import Sequence

from minimind.text.tokenizer import StreamDecoder, Tokenizer

__all__ = ["TextStream"]


class TextStream:
    """The text of ids as they come, up to the stop string that begins first, however tokens cut it.

    Of stop strings that overlap the one that begins first wins, also where another is complete before it: what was
    read then does not depend on how the text was cut into tokens.

    is_stopped:  a stop string was found; nothing more is given out
    """

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str] = ()) -> None:
        self._decoder = StreamDecoder(tokenizer, skip_special=True)
        self._stop = stop
        self._held = ""
        self.is_stopped = False

    def push(self, index: int) -> str:
        """The text that this id makes certain; often empty."""
        return self._give(self._decoder.push(index))

    def finish(self) -> str:
        """What was held back and did not become a stop string."""
        piece = self._give(self._decoder.finish())
        held, self._held = self._held, ""
        begins = [at for stop in self._stop if (at := held.find(stop)) >= 0]
        self.is_stopped = self.is_stopped or bool(begins)
        return piece + held[: min(begins, default=len(held))]

    def _give(self, new: str) -> str:
        if self.is_stopped or not new:
            return ""
        text = self._held + new
        found = min((at for stop in self._stop if (at := text.find(stop)) >= 0), default=len(text))
        possible = len(text) - max((_overlap(text, stop) for stop in self._stop), default=0)
        self.is_stopped = found < len(text) and found <= possible
        cut = min(found, possible)
        self._held = "" if self.is_stopped else text[cut:]
        return text[:cut]


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of `text` begin `stop`."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)
