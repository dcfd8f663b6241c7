"""A tool as a model is shown it, and the function behind it."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Tool", "offered_names"]


@dataclass(frozen=True)
class Tool:
    """A function with JSON arguments; `parameters` maps each argument's name to its JSON schema, all required."""

    name: str
    description: str
    parameters: Mapping[str, Mapping[str, Any]]
    function: Callable[..., Any]

    @property
    def schema(self) -> dict[str, Any]:
        """What the model is shown: a tool in OpenAI's form."""
        parameters = {"type": "object", "properties": dict(self.parameters), "required": list(self.parameters)}
        function = {"name": self.name, "description": self.description, "parameters": parameters}
        return {"type": "function", "function": function}


def offered_names(schemas: Iterable[Mapping[str, Any]]) -> list[str]:
    """The names of tools in OpenAI's form or as the bare function; nothing for a schema without a name."""
    functions = (schema.get("function", schema) for schema in schemas)
    return [str(function["name"]) for function in functions if isinstance(function, Mapping) and "name" in function]
