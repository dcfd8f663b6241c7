"""What went in, what came out, and where the rest went: nothing is dropped without a name and a number."""

from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["Counts", "PrepareReport", "Progress"]


@dataclass
class Counts:
    """Sizes of a set of documents; `weighted` are the tokens whose prediction counts."""

    documents: int = 0
    tokens: int = 0
    weighted: int = 0
    characters: int = 0

    def add(self, other: "Counts") -> None:
        self.documents += other.documents
        self.tokens += other.tokens
        self.weighted += other.weighted
        self.characters += other.characters


@dataclass
class PrepareReport:
    """The books of a preparation: `read` equals `train` + `valid` + everything `dropped`, in every column.

    lines:     of the files: documents read, bad rows and blank lines add up to them
    leaks:     texts of a validation source that are also in the training data
    sources:   name and size on the disk of each file
    """

    read: Counts = field(default_factory=Counts)
    train: Counts = field(default_factory=Counts)
    valid: Counts = field(default_factory=Counts)
    dropped: dict[str, Counts] = field(default_factory=dict)
    lines: int = 0
    bad_rows: int = 0
    blank_lines: int = 0
    leaks: int = 0
    sources: list[dict[str, Any]] = field(default_factory=list)
    valid_sources: list[dict[str, Any]] = field(default_factory=list)

    def count(self, place: str, counts: Counts) -> None:
        """Enter a document that goes to "train", to "valid", or is dropped for a reason."""
        self.read.add(counts)
        if place in ("train", "valid"):
            getattr(self, place).add(counts)
        else:
            self.dropped.setdefault(place, Counts()).add(counts)

    def check(self) -> None:
        """The books must balance; if they do not, this program is wrong."""
        total = Counts()
        for counts in (self.train, self.valid, *self.dropped.values()):
            total.add(counts)
        assert total == self.read, (total, self.read)
        assert self.lines == self.read.documents + self.bad_rows + self.blank_lines, asdict(self)


@dataclass(frozen=True)
class Progress:
    """How far a preparation is.

    position:  bytes of the sources on the disk, out of `total`; None when standard input is among them
    """

    position: int
    total: int | None
    documents: int
    characters: int
    tokens: int
