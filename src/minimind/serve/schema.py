"""What a client may send: OpenAI's fields, each with bounds, and those that small models need beside them.

A field that is not here is refused by name, for to ignore one would answer another question than was asked; in a
message as well. A field that is null is not given, and so is one that asks for nothing: see `NOTHING`. Those that
change nothing on a server of one's own are taken and ignored: see `_Ignored`. A list is refused at its first mistake,
for to describe them all would cost more than any answer.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from minimind.generation.sampling import LEAST_PENALTY

__all__ = [
    "AskBody",
    "ChatBody",
    "ChatMessage",
    "CompletionBody",
    "GenerationBody",
    "NamedChoice",
    "Stops",
    "Strict",
    "Tokens",
    "ToolBody",
]

MAX_CHOICES = 16
MAX_TOP = 20
Tokens = Annotated[int, Field(ge=1, le=1_000_000)]
_Id = Annotated[int, Field(ge=0, le=10_000_000)]
_Ids = Annotated[list[_Id], Field(min_length=1, fail_fast=True)]
_StopString = Annotated[str, Field(min_length=1, max_length=256)]
Stops = Annotated[list[_StopString], Field(max_length=16, fail_fast=True)]
_Penalty = Annotated[float, Field(ge=-2, le=2)]
_Name = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_.-]+$")]


# Fields of other servers, with the value that leaves everything as it is. Clients send them without being asked.
NOTHING: Mapping[str, Any] = {
    "add_special_tokens": False,
    "best_of": 1,
    "cache_prompt": True,
    "echo": False,
    "function_call": "none",
    "functions": [],
    "ignore_eos": False,
    "include_reasoning": True,
    "include_stop_str_in_output": False,
    "length_penalty": 1,
    "min_tokens": 0,
    "modalities": ["text"],
    "separate_reasoning": True,
    "skip_special_tokens": True,
    "spaces_between_special_tokens": True,
    "use_beam_search": False,
    "verbosity": "medium",
}


_GIVEN = object()


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _less_nulls(cls, given: Any) -> Any:
        return {key: value for key, value in given.items() if value is not None} if isinstance(given, dict) else given


class _Ignored(Strict):
    """Fields that clients send and that mean nothing here."""

    @model_validator(mode="before")
    @classmethod
    def _less_nothing(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        own = cls.model_fields
        return {key: value for key, value in given.items() if key in own or NOTHING.get(key, _GIVEN) != value}

    user: str | None = Field(None, max_length=1024)
    store: bool | None = None
    metadata: dict[str, Any] | None = Field(None, max_length=64)
    service_tier: str | None = Field(None, max_length=64)
    safety_identifier: str | None = Field(None, max_length=1024)
    prompt_cache_key: str | None = Field(None, max_length=1024)
    prompt_cache_retention: str | None = Field(None, max_length=64)


class _StreamOptions(Strict):
    include_usage: bool = False
    include_obfuscation: bool | None = None


class AskBody(_Ignored):
    """What all ways to ask have in common. A setting that is not given is the server's own."""

    model: str = Field(min_length=1, max_length=512)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    top_k: int | None = Field(None, ge=-1, le=1_000_000)
    min_p: float | None = Field(None, ge=0, le=1)
    repetition_penalty: float | None = Field(None, ge=LEAST_PENALTY, le=10)
    seed: int | None = Field(None, ge=-(2**63), le=2**63 - 1)
    stream: bool | None = None


class GenerationBody(AskBody):
    """What chats and completions have in common."""

    max_tokens: Tokens | None = None
    presence_penalty: _Penalty | None = None
    frequency_penalty: _Penalty | None = None
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = Field(None, max_length=1024)
    n: int | None = Field(None, ge=1, le=MAX_CHOICES)
    stop: _StopString | Stops | None = None
    stream_options: _StreamOptions | None = None


class _Function(Strict):
    name: _Name
    description: str | None = Field(None, max_length=65536)
    parameters: dict[str, Any] | None = Field(None, max_length=256)
    strict: bool | None = None


class ToolBody(Strict):
    type: Literal["function"]
    function: _Function


class _FunctionName(Strict):
    name: _Name


class NamedChoice(Strict):
    type: Literal["function"]
    function: _FunctionName


class _JsonSchema(Strict):
    name: _Name
    description: str | None = Field(None, max_length=65536)
    # `schema` is a method of pydantic's models.
    schema_: dict[str, Any] = Field(alias="schema", max_length=256)
    strict: bool | None = None


class _ResponseFormat(Strict):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: _JsonSchema | None = None


class _TemplateOptions(Strict):
    enable_thinking: bool | None = None


class _Part(Strict):
    """A piece of a message; of pictures and sounds this model knows nothing."""

    type: Literal["text"]
    text: str

    @model_validator(mode="before")
    @classmethod
    def _is_text(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("type") != "text":
            raise ValueError(f"a content part of type {str(given.get('type'))[:64]!r}; only 'text' is supported")
        return given


class _CalledFunction(Strict):
    """arguments: JSON as text, as OpenAI has it, or the object itself"""

    name: str = Field(min_length=1, max_length=256)
    arguments: str | Annotated[dict[str, Any], Field(max_length=1024)] = ""


class _Call(Strict):
    id: str | None = Field(None, max_length=256)
    type: Literal["function"] = "function"
    index: _Id | None = None
    function: _CalledFunction


class ChatMessage(Strict):
    """A message, read by `Conversation.parse` as any other chat data.

    name, id and the like are for people and for whoever runs the tools; a model is shown none of them
    """

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: (
        str
        | Annotated[list[_Part], Field(max_length=1024, fail_fast=True)]
        | Annotated[dict[str, Any], Field(max_length=1024)]
        | None
    ) = None
    name: str | None = Field(None, max_length=256)
    tool_call_id: str | None = Field(None, max_length=256)
    tool_calls: Annotated[list[_Call], Field(max_length=128, fail_fast=True)] | None = None
    function_call: _CalledFunction | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: Literal[""] | None = None
    annotations: Annotated[list[Any], Field(max_length=1024)] | None = None

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> Self:
        if isinstance(self.content, dict) and self.role not in ("tool", "function"):
            raise ValueError(
                f"a message of role {self.role!r} has text or parts as content; only a tool's is an object"
            )
        is_call = bool(self.tool_calls or self.function_call)
        if is_call and self.role != "assistant":
            raise ValueError(f"a message of role {self.role!r} calls tools; only an assistant does")
        if self.content is None and not is_call and not (self.role == "assistant" and self.reasoning_content):
            raise ValueError(f"a message of role {self.role!r} has no content")
        if self.role == "tool" and self.tool_call_id is None:
            raise ValueError("a tool's message has no tool_call_id, which says what it answers")
        return self


class ChatBody(GenerationBody):
    """POST /v1/chat/completions"""

    messages: list[ChatMessage] = Field(min_length=1, max_length=2048, fail_fast=True)
    max_completion_tokens: Tokens | None = None
    tools: Annotated[list[ToolBody], Field(max_length=128, fail_fast=True)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: _ResponseFormat | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=MAX_TOP)
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh"] | None = None
    chat_template_kwargs: _TemplateOptions | None = None
    # Go on with the assistant's message that stands last; done unless one of the two says otherwise.
    continue_final_message: bool | None = None
    add_generation_prompt: bool | None = None


class CompletionBody(GenerationBody):
    """POST /v1/completions"""

    # 0 only together with echo: then the prompt is scored, and nothing said.
    max_tokens: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    prompt: (
        str
        | Annotated[list[_Id], Field(min_length=1, max_length=1_000_000, fail_fast=True)]
        | Annotated[list[str], Field(min_length=1, max_length=128, fail_fast=True)]
        | Annotated[list[_Ids], Field(min_length=1, max_length=128, fail_fast=True)]
    )
    echo: bool | None = None
    logprobs: int | None = Field(None, ge=0, le=MAX_TOP)
    best_of: int | None = Field(None, ge=1, le=MAX_CHOICES)
    suffix: str | None = Field(None, max_length=0)
