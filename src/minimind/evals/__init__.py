"""How good a model is, in figures that can be compared: each file measures one thing and says how to read it."""

__all__: list[str] = []
