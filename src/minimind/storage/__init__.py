"""What is written and survives: model folders, adapters, run folders. Read `checkpoint.py` first, then `run.py`."""
