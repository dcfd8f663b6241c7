"""Ids -> text: `generate.py` for one reader at a time, `engine.py` for many at once. Read `generate.py` first."""
