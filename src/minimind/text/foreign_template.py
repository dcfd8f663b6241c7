"""The chat template that a model from elsewhere brought along: what decides how its conversations look.

`jinja_render.py` renders it, `template_turns.py` makes ids of it. A model that was made here has none: its format is
`conversation.py`'s, and the template in its folder is written from `chat_template.py`.
"""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from minimind.errors import ConfigError, TokenizerError
from minimind.text.chat_template import is_ours
from minimind.text.jinja_render import template_facts

__all__ = ["ForeignTemplate", "read_template", "template_from_json"]

FILE = "chat_template.jinja"
FOLDER = "additional_chat_templates"
MAX_BYTES = 1 << 20
# What transformers tells a template of a tokenizer.
TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
# A conversation has these; nobody may set them beside it.
GIVEN = frozenset(("messages", "tools", "documents", "add_generation_prompt"))
SWITCHES = ("enable_thinking", "thinking")


@dataclass(frozen=True)
class ForeignTemplate:
    """Templates by name, nearly always `default` alone.

    tokens:    `bos_token` and so on, as the model's tokenizer_config.json spells them
    settings:  other variables that whoever runs the model has set
    """

    texts: Mapping[str, str]
    tokens: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)

    def text_for(self, tools: Sequence[Any] | None) -> str:
        """The one for these tools, as transformers chooses."""
        if tools is not None and "tool_use" in self.texts:
            return self.texts["tool_use"]
        if "default" not in self.texts:
            raise TokenizerError(f"the model has chat templates {', '.join(self.texts)} and none is called 'default'")
        return self.texts["default"]

    @cached_property
    def reads(self) -> frozenset[str]:
        """The variables that its templates read."""
        return frozenset().union(*(template_facts(text).variables for text in self.texts.values()))

    @cached_property
    def switch(self) -> str | None:
        """The variable that turns thinking on and off."""
        return next((name for name in SWITCHES if name in self.reads and name not in self.settings), None)

    @property
    def fingerprint(self) -> str:
        """sha256 (hex) of all that decides the text of a conversation, but for the clock."""
        # Files differ in which tokens they name; only those that a template prints count.
        tokens = [item for item in sorted(self.tokens.items()) if any(item[0] in text for text in self.texts.values())]
        facts = [sorted(self.texts.items()), tokens, sorted(self.settings.items())]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    def variables(self, thinking: bool | None) -> dict[str, Any]:
        """All but the conversation. thinking: None is the template's own default"""
        chosen = {} if thinking is None or self.switch is None else {self.switch: thinking}
        return {**self.tokens, **chosen, **self.settings}

    def with_settings(self, settings: Mapping[str, Any], control: Collection[str]) -> "ForeignTemplate":
        """The same with variables set. Errors: ConfigError for one that it does not read, or that may spell a token"""
        for name, value in settings.items():
            if name in GIVEN or name not in self.reads:
                known = ", ".join(sorted(self.reads - GIVEN - {*TOKENS})) or "none"
                raise ConfigError(f"the model's chat template does not read {name!r}; it reads {known}")
            words = json.dumps(value, ensure_ascii=False)
            if any(token in words for token in control) or set(words) & {*"<>|｜"}:
                raise ConfigError(f"chat template variable {name!r} spells what may be a control token; leave it out")
        return replace(self, settings={**self.settings, **settings})

    def write(self, folder: Path) -> None:
        """As `read_template` and transformers find it."""
        for name, text in self.texts.items():
            path = folder / FILE if name == "default" else folder / FOLDER / f"{name}.jinja"
            path.parent.mkdir(exist_ok=True)
            # Byte for byte: an end of line of another system is the template's own.
            path.write_bytes(text.encode())


def read_template(folder: Path, config: Mapping[str, Any]) -> ForeignTemplate | None:
    """Of a model's folder; files before tokenizer_config.json. None for no template, and for our own."""
    texts = _named(config.get("chat_template"), folder / "tokenizer_config.json")
    for path in sorted((folder / FOLDER).glob("*.jinja")):
        texts[path.stem] = _read(path)
    if (folder / FILE).is_file():
        texts["default"] = _read(folder / FILE)
    return template_from_json(texts, config)


def template_from_json(texts: Mapping[str, str], config: Mapping[str, Any]) -> ForeignTemplate | None:
    """Of templates by name, and the settings of a tokenizer."""
    if not texts or all(is_ours(text) for text in texts.values()):
        return None
    spelled = {name: config.get(name) for name in TOKENS}
    tokens = {name: token.get("content") if isinstance(token, dict) else token for name, token in spelled.items()}
    return ForeignTemplate(dict(texts), {name: token for name, token in tokens.items() if isinstance(token, str)})


def _named(found: Any, where: Path) -> dict[str, str]:
    """Of one template, a list of named ones, or an object of them."""
    if found is None:
        return {}
    if isinstance(found, str):
        return {"default": found}
    if isinstance(found, list) and all(isinstance(entry, dict) for entry in found):
        found = {entry.get("name"): entry.get("template") for entry in found}
    if not isinstance(found, dict) or not all(
        isinstance(name, str) and isinstance(text, str) and name.replace("_", "").replace("-", "").isalnum()
        for name, text in found.items()
    ):
        raise TokenizerError(f"{where}: chat_template is no text and no list of named texts; mend it or remove it")
    return dict(found)


def _read(path: Path) -> str:
    if path.stat().st_size > MAX_BYTES:
        raise TokenizerError(f"{path}: {path.stat().st_size:,} bytes; a chat template has at most {MAX_BYTES:,}")
    try:
        return path.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise TokenizerError(f"{path}: is no UTF-8: {error}") from None
