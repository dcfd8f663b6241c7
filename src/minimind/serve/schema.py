"""What a client may send: OpenAI's fields, each with bounds, and those that small models need beside them.

A field that is not here is refused by name, for to ignore one would answer another question than was asked. Those that
change nothing on a server of one's own are taken and ignored: see `_Ignored`. A list is refused at its first mistake,
for to describe them all would cost more than any answer.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from minimind.generation.sampling import LEAST_PENALTY

__all__ = ["ChatBody", "ChatMessage", "CompletionBody", "GenerationBody", "NamedChoice", "ToolBody"]

MAX_CHOICES = 16
MAX_TOP = 20
_Tokens = Annotated[int, Field(ge=1, le=1_000_000)]
_Id = Annotated[int, Field(ge=0, le=10_000_000)]
_Ids = Annotated[list[_Id], Field(min_length=1, fail_fast=True)]
_StopString = Annotated[str, Field(min_length=1, max_length=256)]
_Stops = Annotated[list[_StopString], Field(max_length=16, fail_fast=True)]
_Penalty = Annotated[float, Field(ge=-2, le=2)]
_Name = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_.-]+$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class _Ignored(_Strict):
    """Fields that clients send and that mean nothing here."""

    user: str | None = Field(None, max_length=1024)
    store: bool | None = None
    metadata: dict[str, Any] | None = Field(None, max_length=64)
    service_tier: str | None = Field(None, max_length=64)
    safety_identifier: str | None = Field(None, max_length=1024)
    prompt_cache_key: str | None = Field(None, max_length=1024)


class _StreamOptions(_Strict):
    include_usage: bool = False
    include_obfuscation: bool | None = None


class GenerationBody(_Ignored):
    """What both ways to ask have in common. A setting that is not given is the server's own."""

    model: str = Field(min_length=1, max_length=512)
    max_tokens: _Tokens | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    top_k: int | None = Field(None, ge=-1, le=1_000_000)
    min_p: float | None = Field(None, ge=0, le=1)
    repetition_penalty: float | None = Field(None, ge=LEAST_PENALTY, le=10)
    presence_penalty: _Penalty | None = None
    frequency_penalty: _Penalty | None = None
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = Field(None, max_length=1024)
    n: int | None = Field(None, ge=1, le=MAX_CHOICES)
    seed: int | None = Field(None, ge=-(2**63), le=2**63 - 1)
    stop: _StopString | _Stops | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None


class _Function(_Strict):
    name: _Name
    description: str | None = Field(None, max_length=65536)
    parameters: dict[str, Any] | None = Field(None, max_length=256)
    strict: bool | None = None


class ToolBody(_Strict):
    type: Literal["function"]
    function: _Function


class _FunctionName(_Strict):
    name: _Name


class NamedChoice(_Strict):
    type: Literal["function"]
    function: _FunctionName


class _JsonSchema(_Strict):
    name: _Name
    description: str | None = Field(None, max_length=65536)
    # `schema` is a method of pydantic's models.
    schema_: dict[str, Any] = Field(alias="schema", max_length=256)
    strict: bool | None = None


class _ResponseFormat(_Strict):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: _JsonSchema | None = None


class _TemplateOptions(_Strict):
    enable_thinking: bool | None = None


class ChatMessage(BaseModel):
    """A message, read by `Conversation.parse` as any other chat data; what it does not know is ignored."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | Annotated[list[dict[str, Any]], Field(max_length=1024, fail_fast=True)] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: Annotated[list[dict[str, Any]], Field(max_length=128, fail_fast=True)] | None = None


class ChatBody(GenerationBody):
    """POST /v1/chat/completions"""

    messages: list[ChatMessage] = Field(min_length=1, max_length=2048, fail_fast=True)
    max_completion_tokens: _Tokens | None = None
    tools: Annotated[list[ToolBody], Field(max_length=128, fail_fast=True)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: _ResponseFormat | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=MAX_TOP)
    chat_template_kwargs: _TemplateOptions | None = None


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
