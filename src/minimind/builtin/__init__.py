"""The built-in corpus behind `builtin://NAME`: texts, conversations, questions. Read `corpus.py` first.

Nothing is imported here, so that the processes that encode a corpus start without it.
"""

__all__: list[str] = []
