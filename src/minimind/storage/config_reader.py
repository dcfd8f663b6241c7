"""One field of a JSON object at a time, of the right type and size, or a line that names it."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from minimind.errors import CheckpointError

__all__ = ["LARGEST_COUNT", "LARGEST_SIZE", "Reader"]

# No real model comes near these; a hostile file must be refused before it costs memory or time.
LARGEST_SIZE = 2**24
LARGEST_COUNT = 4096


class Reader:
    """Reads fields of the right type and size, and words the error for the others."""

    def __init__(self, values: Mapping[str, Any], where: str | Path) -> None:
        self.values = values
        self.where = where

    def __bool__(self) -> bool:
        return bool(self.values)

    def error(self, name: str, expected: str) -> CheckpointError:
        value = "missing" if self.values.get(name) is None else f"{self.values[name]!r:.80}"
        return CheckpointError(f"{self.where}: {name} is {value}; expected {expected}")

    def choice(self, name: str, allowed: Collection[str]) -> str:
        value = self.values.get(name)
        if not isinstance(value, str) or value not in allowed:
            raise self.error(name, f"one of {', '.join(allowed)}")
        return value

    def size(self, name: str, default: int | None = None, *, largest: int = LARGEST_SIZE) -> int:
        value = self.values.get(name)
        value = default if value is None else value
        if type(value) is not int or not 1 <= value <= largest:
            raise self.error(name, f"a whole number from 1 to {largest:,}")
        return value

    def number(self, name: str, default: float | None = None, *, largest: float = 1e30) -> float:
        value = self.values.get(name)
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= largest:
            raise self.error(
                name, f"a number above 0, at most {largest:,.0f}" if largest < 1e30 else "a number above 0"
            )
        return float(value)

    def switch(self, name: str, *, default: bool = False) -> bool:
        value = self.values.get(name)
        if not isinstance(value, bool | None):
            raise self.error(name, "true or false")
        return default if value is None else value

    def table(self, name: str) -> "Reader":
        """The fields of an object inside; none when it is absent."""
        value = self.values.get(name)
        if value is not None and not isinstance(value, dict):
            raise self.error(name, "an object")
        return Reader(value or {}, f"{self.where}: {name}")
