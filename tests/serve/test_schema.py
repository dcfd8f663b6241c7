"""Every number has bounds and every list a length, nested ones too."""

from typing import Any

import pytest
from pydantic import ValidationError

from minimind.serve.schema import ChatBody, CompletionBody

# Fields whose inner values are free: JSON schemas, or chat data that `Conversation.parse` reads.
FREE = {"parameters", "metadata", "content", "tool_calls"}


def unbounded(schema: dict[str, Any], place: str = "") -> list[str]:
    """Where a schema lets a number or a list grow without end."""
    found = []
    if schema.get("type") in ("integer", "number") and not ({"maximum", "exclusiveMaximum"} & set(schema)):
        found.append(place)
    if schema.get("type") == "array" and "maxItems" not in schema and "/prompt" not in place:
        found.append(place)
    if schema.get("type") == "object" and "properties" not in schema and "maxProperties" not in schema:
        found.append(place)
    for key, value in schema.items():
        if key not in FREE and isinstance(value, dict):
            found += unbounded(value, f"{place}/{key}")
        elif isinstance(value, list):
            parts = [part for part in value if isinstance(part, dict)]
            found += [where for part in parts for where in unbounded(part, f"{place}/{key}")]
    return found


@pytest.mark.parametrize("body", [ChatBody, CompletionBody])
def test_nothing_grows_without_end(body: Any) -> None:
    assert unbounded(body.model_json_schema()) == []


@pytest.mark.parametrize("prompt", ["a", ["a", "b"], [1, 2], [[1], [2, 3]]])
def test_a_prompt_is_text_or_ids_one_or_many(prompt: Any) -> None:
    assert CompletionBody(model="m", prompt=prompt).prompt == prompt


@pytest.mark.parametrize("prompt", [[], [[]], [1, "a"], [-1], None, 3, {"a": 1}, [[1], 2], [1.5]])
def test_other_prompts_are_refused(prompt: Any) -> None:
    with pytest.raises(ValidationError):
        CompletionBody(model="m", prompt=prompt)


def test_unknown_fields_are_refused_and_unknown_parts_of_messages_are_not() -> None:
    message = {"role": "user", "content": "a", "annotations": []}
    ChatBody.model_validate({"model": "m", "messages": [message]})
    with pytest.raises(ValidationError, match="functions"):
        ChatBody.model_validate({"model": "m", "messages": [message], "functions": []})
