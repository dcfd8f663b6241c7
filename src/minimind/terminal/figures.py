"""Times, sizes and counts as people read them: the same words for them wherever something is said."""

__all__ = ["duration", "millions", "size"]


def duration(seconds: float) -> str:
    """8.2 s, 6 min 40 s, 2 h 05 min."""
    if round(seconds) < 60:
        return f"{seconds:.3g} s"
    minutes = round(seconds) // 60
    return f"{minutes} min {round(seconds) % 60:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def size(num_bytes: float) -> str:
    """12.3 kB, 410.2 MB, 1.70 GB, in powers of ten as disks are sold."""
    if num_bytes >= 1e9:
        return f"{num_bytes / 1e9:,.2f} GB"
    return f"{num_bytes / 1e6:,.1f} MB" if num_bytes >= 1e5 else f"{num_bytes / 1e3:,.1f} kB"


def millions(count: int) -> str:
    """26.9M, as models are named by their parameters."""
    return f"{count / 1e6:,.1f}M"
