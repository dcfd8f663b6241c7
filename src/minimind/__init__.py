"""Train a small language model from raw text to a chat that answers, and trust every number it prints.

    from minimind import generate, load_model
    model, tokenizer = load_model("runs/quickstart/pretrain")
    print(generate(model, tokenizer, "The sun", max_tokens=20))

The names below are the public API; each is imported when it is first used, so that `import minimind` costs nothing.
Read `model.py` first, `interfaces.py` second, `training/trainer.py` (the step) and `fit.py` (the loop) third.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minimind.generation.generate import generate
    from minimind.model import ModelConfig, Transformer
    from minimind.storage.checkpoint import load_model, save_checkpoint
    from minimind.text.conversation import Conversation
    from minimind.text.jinja_render import render_chat_text
    from minimind.text.tokenizer import Tokenizer

__version__ = "0.1.0"

__all__ = [
    "Conversation",
    "ModelConfig",
    "Tokenizer",
    "Transformer",
    "generate",
    "load_model",
    "render_chat_text",
    "save_checkpoint",
]

_HOMES = {
    "Conversation": "text.conversation",
    "ModelConfig": "model",
    "Tokenizer": "text.tokenizer",
    "Transformer": "model",
    "generate": "generation.generate",
    "load_model": "storage.checkpoint",
    "render_chat_text": "text.jinja_render",
    "save_checkpoint": "storage.checkpoint",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'minimind' has no attribute {name!r}")
    value = getattr(import_module(f"minimind.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
