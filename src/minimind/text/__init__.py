"""Text, bytes and conversations <-> ids. Read `tokenizer.py` first, then `conversation.py`."""
