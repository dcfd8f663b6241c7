"""A conversation turn by turn: what was said, the tools that are run, what no longer fits.

Everything said stays in `messages`; what the other side is shown may begin later, when its context is full, and then
the screen says so. Who answers is an `Answerer`: a model here (`local_answers.py`) or a server (`remote_answers.py`).
`chat.py` reads what a person types, `terminal.py` shows the answers.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from minimind.errors import UserError
from minimind.terminal.screen import AnswerView, Screen
from minimind.text.answers import Delta, join
from minimind.text.conversation import Conversation, Message, ToolCall
from minimind.tools.builtin import run_tool
from minimind.tools.tool import Tool

__all__ = ["AnswerEnding", "Answerer", "Dialogue"]


class AnswerEnding(NamedTuple):
    """How an answer ended.

    is_whole:  nothing is missing, so that its calls may be run
    note:      what there is to say of it
    """

    is_whole: bool
    note: str = ""


class Answerer(Protocol):
    """Who answers."""

    def answer(self, shown: Conversation, turn: int, *, thinking: bool, say: Callable[[Delta], None]) -> AnswerEnding:
        """Continue the conversation, a piece at a time; the same question in another turn has another answer.

        Errors:  UserError when it cannot be answered; nothing was said then
        """
        ...

    def shortage(self, shown: Conversation, *, thinking: bool) -> str:
        """Why there is no room for an answer; "" where there is, and where it cannot be told."""
        ...


@dataclass(kw_only=True)
class Dialogue:
    """Who talks, with which settings, and what was said.

    tools:       the tools on offer, by name; no other is ever run
    max_rounds:  how often in one turn tools may be called
    messages:    all that was said, without the system prompt
    first:       the first message that the answerer is still shown
    turns:       answers asked for
    """

    answerer: Answerer
    screen: Screen
    system: str = ""
    thinking: bool = False
    tools: Mapping[str, Tool] = field(default_factory=dict)
    max_rounds: int = 5
    messages: list[Message] = field(default_factory=list)
    first: int = 0
    turns: int = 0

    def ask(self, text: str) -> None:
        """Add a question and show the answer, tool calls included.

        Errors:  UserError when the question alone does not fit the context; it is then forgotten.
        """
        place = len(self.messages)
        self.messages.append(Message("user", text))
        try:
            self._answer()
        except UserError:
            del self.messages[place:]
            self.first = min(self.first, place)
            raise

    def retry(self) -> bool:
        """Answer the last question again; False when there is none."""
        places = [place for place, message in enumerate(self.messages) if message.role == "user"]
        if places:
            del self.messages[places[-1] + 1 :]
            self._answer()
        return bool(places)

    def clear(self) -> None:
        self.messages.clear()
        self.first = 0

    def conversation(self) -> Conversation:
        """All that was said, as a row of training data."""
        return Conversation((*self._system(), *self.messages), self._schemas())

    def _answer(self) -> None:
        for _ in range(self.max_rounds):
            message, is_whole = self._generate()
            self.messages.append(message)
            if not (message.tool_calls and is_whole):
                return
            self.messages += [Message("tool", self._run(call)) for call in message.tool_calls]
        self.screen.notice(f"stopped after {self.max_rounds} rounds of tool calls; --max_rounds allows more")

    def _generate(self) -> tuple[Message, bool]:
        """One answer, shown while it is written; False when it was cut short."""
        shown = self._shown()
        view, said = AnswerView(self.screen), list[Delta]()

        def say(delta: Delta) -> None:
            said.append(delta)
            view.push(delta)

        self.turns += 1
        try:
            ending = self.answerer.answer(shown, self.turns, thinking=self.thinking, say=say)
        except KeyboardInterrupt:
            ending = AnswerEnding(False, "stopped")
        finally:
            view.finish()
        if note := ending.note or ("" if said else "the answer is empty; /retry asks again"):
            self.screen.notice(note)
        return join(said), ending.is_whole

    def _run(self, call: ToolCall) -> str:
        result = run_tool(call.name, call.arguments, self.tools)
        self.screen.line(f"-> {_spelled(call)} = {_shown(result)}", "cyan")
        return result

    def _shown(self) -> Conversation:
        """What the answerer sees. The oldest turns are left out, with a notice, until an answer has room."""
        num_dropped, reason = 0, ""
        while True:
            shown = Conversation((*self._system(), *self.messages[self.first :]), self._schemas())
            later = [n for n in range(self.first + 1, len(self.messages)) if self.messages[n].role == "user"]
            shortage = later and self.answerer.shortage(shown, thinking=self.thinking)
            if not shortage:
                break
            self.first, reason = later[0], shortage
            num_dropped += 1
        if num_dropped:
            turns = "turn" if num_dropped == 1 else f"{num_dropped} turns"
            self.screen.notice(f"{reason}: the model no longer sees the oldest {turns}")
        return shown

    def _system(self) -> list[Message]:
        return [Message("system", self.system)] if self.system else []

    def _schemas(self) -> tuple[Mapping[str, object], ...]:
        return tuple(tool.schema for tool in self.tools.values())


def _spelled(call: ToolCall) -> str:
    arguments = (f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in call.arguments.items())
    return f"{call.name}({', '.join(arguments)})"


def _shown(result: str) -> str:
    """A tool's JSON answer in a reader's words."""
    values = json.loads(result)
    return f"error: {values['error']}" if "error" in values else json.dumps(values["result"], ensure_ascii=False)
