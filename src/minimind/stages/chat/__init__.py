"""The verb `chat`: read `chat.py` first."""

from minimind.stages.chat.chat import ChatConfig, run

__all__ = ["ChatConfig", "run"]
