"""Find documents that were seen before: the same text, or nearly the same.

The same: equal hashes after Unicode composition and with all white space taken for single spaces. Nearly the same: at
least `threshold` of the short word sequences in common (Jaccard), estimated from MinHash signatures; bands of a
signature bring candidates together, which are then compared (Broder 1997; Leskovec et al., Mining of Massive Datasets,
ch. 3). The first of its kind is kept. Memory a document: about 100 bytes for hashes, 800 for signatures.
"""

import hashlib
import re
import unicodedata

import numpy as np

from minimind.data.files import require

__all__ = ["NearDuplicates", "document_hash", "signature"]

NUM_PERMUTATIONS = 128
SEED = 1
SHINGLE = 3
# Chinese, Japanese and Thai are written without spaces, so there each character is a word of its own.
WORD = re.compile(r"[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]|\w+")


def document_hash(text: str) -> bytes:
    """16 bytes that are equal for texts that differ in white space or Unicode composition alone."""
    normal = " ".join(unicodedata.normalize("NFC", text).split())
    return hashlib.blake2b(normal.encode(), digest_size=16).digest()


def signature(text: str) -> np.ndarray:
    """The MinHash of the text's word sequences: [128] uint32, equal in a share of places like the Jaccard index."""
    words = WORD.findall(text.lower()) or list(text)
    last = max(len(words) - SHINGLE + 1, 1)
    minhash = require("rensa", "near duplicates").RMinHash(num_perm=NUM_PERMUTATIONS, seed=SEED)
    minhash.update([" ".join(words[start : start + SHINGLE]) for start in range(last)])
    return np.array(minhash.digest(), dtype=np.uint32)


class NearDuplicates:
    """Signatures seen so far, found again by any band of rows that is equal.

    The table maps (band, slot) to the first document with that band; slots are found by open addressing.
    """

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self.rows = _rows_of_a_band(threshold)
        self.bands = NUM_PERMUTATIONS // self.rows
        self.count = 0
        self._signatures = np.zeros((1024, self.bands, self.rows), dtype=np.uint32)
        self._factors = np.random.default_rng(SEED).integers(1, 2**63, self.rows, dtype=np.uint64) | np.uint64(1)
        self._table = self._empty_table()

    def is_new(self, signature: np.ndarray) -> bool:
        """Is it unlike all before? Then it is remembered."""
        banded = signature.reshape(self.bands, self.rows)
        slots = self._slots(banded)
        owners = self._table[np.arange(self.bands), slots]
        candidates = np.unique(owners[owners >= 0])
        if len(candidates):
            alike = (self._signatures[candidates] == banded).mean(axis=(1, 2))
            if alike.max() >= self.threshold:
                return False
        if self.count == len(self._signatures):
            self._grow()
            slots = self._slots(banded)
        self._signatures[self.count] = banded
        self._put(self.count, slots)
        self.count += 1
        return True

    def _slots(self, banded: np.ndarray) -> np.ndarray:
        """For each band the slot that holds an equal one, or the free slot where it belongs: [bands] int64."""
        size = self._table.shape[1]
        mixed = (banded.astype(np.uint64) * self._factors).sum(axis=1, dtype=np.uint64)
        slots = ((mixed >> np.uint64(20)) % np.uint64(size)).astype(np.int64)
        moving = np.arange(self.bands)
        while len(moving):
            owners = self._table[moving, slots[moving]]
            differs = (self._signatures[owners, moving] != banded[moving]).any(axis=1) & (owners >= 0)
            moving = moving[differs]
            slots[moving] = (slots[moving] + 1) % size
        return slots

    def _put(self, document: int, slots: np.ndarray) -> None:
        bands = np.arange(self.bands)
        free = self._table[bands, slots] < 0
        self._table[bands[free], slots[free]] = document

    def _grow(self) -> None:
        self._signatures = np.concatenate([self._signatures, np.zeros_like(self._signatures)])
        self._table = self._empty_table()
        for document in range(self.count):
            self._put(document, self._slots(self._signatures[document]))

    def _empty_table(self) -> np.ndarray:
        # At most half full, or open addressing would walk far.
        return np.full((self.bands, 2 * len(self._signatures)), -1, dtype=np.int32)


def _rows_of_a_band(threshold: float) -> int:
    """The longest bands that still bring together 99.5 % of the pairs just over the threshold."""
    fits = [
        rows
        for rows in (1, 2, 4, 8, 16, 32)
        if 1 - (1 - threshold**rows) ** (NUM_PERMUTATIONS // rows) >= 0.995 or rows == 1
    ]
    return fits[-1]
