"""From files to batches: corpus -> clean, dedup, split -> shards -> loader. Read `prepare.py` first, then `loader.py`.

Nothing is imported here, so that the processes that encode a corpus start without torch.
"""

__all__: list[str] = []
