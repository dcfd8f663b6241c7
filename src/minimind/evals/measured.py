"""A figure with the parts it is made of, so that it can be compared with another: by how much, and beyond noise?

    value = Σ_i a_i / Σ_i b_i

over items i: a share of right answers has a_i in {0, 1} and b_i = 1, bits per byte has the bits and the bytes of
document i. Its standard error is that of a ratio of means,

    SE² = n / (n − 1) · Σ_i (a_i − value · b_i)² / (Σ_i b_i)²,

as items vary. Two models on the *same* items differ by Σ (a_i − a'_i) / Σ b_i, whose error is found in the same way
from the differences: much smaller than that of two separate samples, because what is hard is hard for both. Source:
Cochran 1977, "Sampling Techniques", chapter 6; for paired scores of language models Miller 2024, arXiv:2411.00640.
"""

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["NOISE_ERRORS", "Difference", "Measured", "fingerprint_of"]

# At two standard errors, about 1 in 20 comparisons of equal models is called different by chance.
NOISE_ERRORS = 2.0
# Below this, two figures differ by how sums were rounded: on another number of threads, say.
ROUNDING = 1e-6


@dataclass(frozen=True)
class Difference:
    """New minus old.

    standard_error: None where too little is known of one of them
    is_paired:      both were measured on the same items
    """

    value: float
    standard_error: float | None
    is_paired: bool

    @property
    def exceeds_noise(self) -> bool | None:
        """None when that cannot be told."""
        return (
            None if self.standard_error is None else abs(self.value) > max(NOISE_ERRORS * self.standard_error, ROUNDING)
        )


@dataclass(frozen=True)
class Measured:
    """Amounts a_i, sizes b_i, and the fingerprint of the items that they belong to."""

    amounts: Sequence[float]
    sizes: Sequence[float]
    items: str

    @classmethod
    def share(cls, is_right: Iterable[bool], items: str) -> "Measured":
        """Of items that are right or wrong."""
        amounts = [float(right) for right in is_right]
        return cls(amounts, [1.0] * len(amounts), items)

    @property
    def value(self) -> float:
        return math.fsum(self.amounts) / math.fsum(self.sizes)

    @property
    def standard_error(self) -> float | None:
        """None for a single item, which does not tell."""
        return _ratio_error(self.amounts, self.sizes)

    def minus(self, other: "Measured") -> Difference:
        """This one less the other."""
        if self.items == other.items and len(self.amounts) == len(other.amounts):
            gaps = [mine - theirs for mine, theirs in zip(self.amounts, other.amounts, strict=True)]
            return Difference(self.value - other.value, _ratio_error(gaps, self.sizes), is_paired=True)
        errors = self.standard_error, other.standard_error
        known = None if errors[0] is None or errors[1] is None else math.hypot(errors[0], errors[1])
        return Difference(self.value - other.value, known, is_paired=False)

    def to_json(self) -> dict[str, Any]:
        """To keep beside the figure; whole numbers are written short."""
        return {
            "items": self.items,
            "amounts": [int(amount) if amount == int(amount) else amount for amount in self.amounts],
            "sizes": [int(size) if size == int(size) else size for size in self.sizes],
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Measured":
        """What `to_json` wrote. Errors: ValueError, KeyError or TypeError for anything else"""
        amounts, sizes = [float(x) for x in values["amounts"]], [float(x) for x in values["sizes"]]
        if not amounts or len(amounts) != len(sizes) or not all(size > 0 for size in sizes):
            raise ValueError("amounts and sizes are not of one length, or a size is not above 0")
        return cls(amounts, sizes, str(values["items"]))


def fingerprint_of(texts: Iterable[str]) -> str:
    """Of the items by what they say: equal lists of texts have the same."""
    digest = hashlib.sha256()
    for text in texts:
        digest.update(hashlib.sha256(text.encode("utf-8", "replace")).digest())
    return digest.hexdigest()[:16]


def _ratio_error(amounts: Sequence[float], sizes: Sequence[float]) -> float | None:
    count, total = len(amounts), math.fsum(sizes)
    if count < 2:
        return None
    ratio = math.fsum(amounts) / total
    squares = math.fsum((amount - ratio * size) ** 2 for amount, size in zip(amounts, sizes, strict=True))
    return math.sqrt(squares * count / (count - 1)) / total
