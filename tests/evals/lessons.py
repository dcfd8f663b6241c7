"""Questions with the conversations that teach them, for a model that learns them by heart."""

import json

from minimind.tools.builtin import TOOLS, run_tool

CALCULATOR = TOOLS["calculate_math"]


def row(question: str, answer: str, kind: str, expression: str = "", thinking: bool = False) -> dict:
    """A question with the conversation that teaches it under `lesson`."""
    asked = {"role": "user", "content": question}
    thought = {"reasoning_content": "so"} if thinking else {}
    messages: list[dict] = [asked]
    if expression:
        call = {"name": CALCULATOR.name, "arguments": {"expression": expression}}
        messages += [
            {"role": "assistant", "content": "", "tool_calls": [call]} | thought,
            {"role": "tool", "content": run_tool(CALCULATOR.name, call["arguments"])},
        ]
    messages.append({"role": "assistant", "content": answer} | thought)
    tools = {"tools": [CALCULATOR.schema]} if expression else {}
    lesson = {"conversations": messages} | tools
    return {"conversations": [asked], "answer": answer, "kind": kind, "thinking": thinking, "lesson": lesson} | tools


ROWS = [
    row("hi", "hello", "talk"),
    row("think", "done", "talk", thinking=True),
    row("2+3", "2+3 = 5", "sum", expression="2+3"),
]
TEXT = json.dumps(ROWS)
