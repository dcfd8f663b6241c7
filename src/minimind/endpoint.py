"""An OpenAI-compatible server, asked from here: messages in, one answer out. Nothing but the standard library.

What it answers is data from elsewhere: it goes through the reader of all chat rows, and is refused where it is none.
"""

import json
import os
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from minimind.errors import ConfigError, DataError, UserError
from minimind.messages import Conversation, Message
from minimind.sampling import Sampling

__all__ = ["Endpoint", "Reply"]

# An answer of a few thousand tokens is some kilobytes; what is larger is not an answer.
MAX_REPLY_BYTES = 16 * 2**20


@dataclass(frozen=True)
class Reply:
    """An answer, and whether it is whole."""

    message: Message
    is_whole: bool


@dataclass(frozen=True)
class Endpoint:
    """A server that answers as OpenAI's does.

    url:             Such as https://host/v1.
    name:            The model's name there.
    api_key_env:     The environment variable that holds the key, if the server wants one.
    timeout_seconds: For each answer.
    """

    url: str
    name: str
    api_key_env: str = "OPENAI_API_KEY"
    timeout_seconds: float = 120.0

    def __post_init__(self) -> None:
        if not self.timeout_seconds > 0:
            raise ConfigError(f"timeout_seconds is {self.timeout_seconds}; expected more than 0")

    def answer(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]],
        sampling: Sampling,
        *,
        thinking: bool = False,
    ) -> Reply:
        """The server's answer to a conversation. Errors: UserError naming the server and what it said"""
        body: dict[str, Any] = {
            "model": self.name,
            "messages": [message.to_dict() for message in messages],
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_tokens,
            "seed": sampling.seed,
        }
        body |= {"tools": list(tools)} if tools else {}
        body |= {"stop": list(sampling.stop)} if sampling.stop else {}
        body |= {"chat_template_kwargs": {"enable_thinking": True}} if thinking else {}
        where = f"{self.url.rstrip('/')}/chat/completions"
        reply = self._post(where, body)
        try:
            [choice, *_] = reply["choices"]
            message = dict(choice["message"])
            parsed = Conversation.parse({"messages": [message]}, where).messages[0]
            return Reply(parsed, choice.get("finish_reason") != "length")
        except (KeyError, ValueError, TypeError, DataError) as error:
            raise UserError(
                f"{where}: the reply holds no answer: {error}; expected OpenAI's chat completions"
            ) from error

    def _post(self, where: str, body: Mapping[str, Any]) -> Any:
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get(self.api_key_env):
            headers["Authorization"] = f"Bearer {key}"
        try:
            request = urllib.request.Request(where, json.dumps(body).encode(), headers)
            with urllib.request.urlopen(request, timeout=self.timeout_seconds) as response:
                content = response.read(MAX_REPLY_BYTES + 1)
        except urllib.error.HTTPError as error:
            said = error.read(500).decode(errors="replace")
            raise UserError(f"{where}: answered {error.code}: {said}; check the model's name and the key") from None
        except (OSError, ValueError) as error:
            raise UserError(f"{where}: cannot be asked: {error}; check the address, and that it is running") from None
        if len(content) > MAX_REPLY_BYTES:
            raise UserError(f"{where}: the reply is longer than {MAX_REPLY_BYTES:,} bytes; expected an answer")
        try:
            return json.loads(content)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{where}: the reply is not JSON: {error}; expected OpenAI's chat completions") from None
