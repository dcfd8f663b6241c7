"""Which documents are kept for validation: decided by a document's own hash, so adding data moves nothing.

Copies of a text have one hash and land on one side; therefore no text is in both. A validation set from elsewhere can
share documents with the training data; those leaks are counted, and dropped from training when duplicates are.
"""

import numpy as np

from minimind.data.dedup import NearDuplicates
from minimind.data.options import DedupConfig

__all__ = ["Sorter", "is_chosen"]


def is_chosen(document_hash: bytes, fraction: float) -> bool:
    """Is this one of the `fraction` of all texts that are for validation, or for whatever takes a share?

    Raising the fraction adds documents to those that were there.
    """
    return int.from_bytes(document_hash[:8], "big") < fraction * 2.0**64


class Sorter:
    """Says of each document, in order: "train", "valid", or why it is dropped.

    valid_fraction:  for documents that do not come from a validation source
    Documents of a validation source come first, or their copies in the training data would be missed.
    """

    def __init__(self, valid_fraction: float, dedup: DedupConfig | None) -> None:
        self.valid_fraction = valid_fraction
        self._drops_copies = dedup is not None and dedup.exact
        self._near = NearDuplicates(dedup.threshold) if dedup and dedup.near else None
        self._seen: set[bytes] = set()
        self._given_valid: set[bytes] = set()
        self._leaked: set[bytes] = set()

    @property
    def leaks(self) -> int:
        """Texts of the validation source that also went to training."""
        return len(self._leaked)

    def place(self, document_hash: bytes, signature: np.ndarray | None, is_given_valid: bool = False) -> str:
        if self._drops_copies:
            if document_hash in self._seen:
                is_leak = document_hash in self._given_valid and not is_given_valid
                return "in_validation" if is_leak else "exact_duplicate"
            self._seen.add(document_hash)
        if self._near is not None and signature is not None and not self._near.is_new(signature):
            return "near_duplicate"
        if is_given_valid:
            self._given_valid.add(document_hash)
            return "valid"
        if is_chosen(document_hash, self.valid_fraction):
            return "valid"
        if document_hash in self._given_valid:
            self._leaked.add(document_hash)
        return "train"
