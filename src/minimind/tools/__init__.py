"""What a model may call: read `builtin.py` first."""
