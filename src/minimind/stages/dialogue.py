"""A conversation with a model, turn by turn: what it remembers, the tools it calls, what no longer fits.

Everything said stays in `messages`; what the model is shown may begin later, when the context is full, and then the
screen says so. `chat.py` reads what a person types, `terminal.py` shows the answers.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from minimind.conversation import Conversation, Message, ToolCall, parse_answer, parse_answer_ids, render_prompt
from minimind.errors import UserError
from minimind.generation import ends_of_text, generate_ids
from minimind.model import Transformer
from minimind.sampling import Sampling
from minimind.stages.terminal import AnswerView, Screen
from minimind.tokenizer import Tokenizer
from minimind.tools import Tool, run_tool

__all__ = ["Dialogue"]


@dataclass(kw_only=True)
class Dialogue:
    """Who talks, with which settings, and what was said.

    tools:       the tools on offer, by name; no other is ever run
    max_rounds:  how often in one turn the model may call tools
    messages:    all that was said, without the system prompt
    first:       the first message that the model is still shown
    turns:       answers asked for; each has a random stream of its own, so asking again gives another answer
    """

    model: Transformer
    tokenizer: Tokenizer
    screen: Screen
    sampling: Sampling
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
        prompt = self._prompt()
        stop_ids = ends_of_text(self.tokenizer)
        view = AnswerView(self.screen, self.tokenizer, thinking=self.thinking, stop=self.sampling.stop)
        ids: list[int] = []

        def on_token(_: int, token: int) -> bool:
            if token not in stop_ids:
                ids.append(token)
                view.push(token)
            return view.is_stopped

        self.turns += 1
        try:
            [completion] = generate_ids(
                self.model,
                [prompt],
                self.sampling,
                stop_ids=stop_ids,
                on_token=on_token,
                streams=[self.turns],
                num_ids=self.tokenizer.vocab_size,
            )
            reason = completion.finish_reason
        except KeyboardInterrupt:
            reason = "interrupt"
        view.finish()
        if reason == "interrupt":
            self.screen.notice("stopped")
        elif reason == "length":
            cause = "--sampling.max_tokens" if len(ids) == self.sampling.max_tokens else "the end of the context"
            self.screen.notice(f"cut after {len(ids)} tokens by {cause}")
        elif not ids:
            self.screen.notice("the model says nothing; /retry asks again")
        if view.is_stopped:
            return parse_answer(view.text, self.thinking), True
        return parse_answer_ids(ids, self.tokenizer, self.thinking), reason == "stop"

    def _run(self, call: ToolCall) -> str:
        if call.name in self.tools:
            result = run_tool(call.name, call.arguments)
        else:
            offered = ", ".join(self.tools) or "none"
            result = json.dumps({"error": f"there is no tool {call.name[:50]!r}; there are: {offered}"})
        self.screen.line(f"-> {_spelled(call)} = {_shown(result)}", "cyan")
        return result

    def _prompt(self) -> list[int]:
        """The ids to continue. The oldest turns are left out, with a notice, until an answer has room."""
        context = self.model.config.max_position_embeddings
        room = min(self.sampling.max_tokens, context // 4)
        num_dropped = 0
        while True:
            shown = [*self._system(), *self.messages[self.first :]]
            ids = render_prompt(shown, self._schemas(), self.tokenizer, self.thinking)
            later = [n for n in range(self.first + 1, len(self.messages)) if self.messages[n].role == "user"]
            if len(ids) + room <= context or not later:
                break
            self.first = later[0]
            num_dropped += 1
        if num_dropped:
            turns = "turn" if num_dropped == 1 else f"{num_dropped} turns"
            self.screen.notice(
                f"the context of {context:,} tokens is full: the model no longer sees the oldest {turns}"
            )
        if len(ids) >= context:
            raise UserError(
                f"this turn has {len(ids):,} tokens with the system prompt and the tools, and the model's context is "
                f"{context:,}; shorten it"
            )
        return ids

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
