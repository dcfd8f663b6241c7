"""What went in, what came out, and where the rest went: nothing is dropped without a name and a number."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["Counts", "PrepareReport", "Progress", "in_words", "omissions"]


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
    left_out:  conversations of which the model's chat template does not show something, by what that is
    sources:   name and size on the disk of each file
    unlearnt:  answers that weigh nothing in the conversations that are kept or dropped, by the reason
    unread:    columns, and keys of messages, that are not read, and how often each is there
    may_matter:  those of them by whose name they could change what is learnt
    unread_files:  what lies in the folders and is not read, by its ending
    """

    read: Counts = field(default_factory=Counts)
    train: Counts = field(default_factory=Counts)
    valid: Counts = field(default_factory=Counts)
    dropped: dict[str, Counts] = field(default_factory=dict)
    lines: int = 0
    bad_rows: int = 0
    blank_lines: int = 0
    leaks: int = 0
    left_out: dict[str, int] = field(default_factory=dict)
    sources: list[dict[str, Any]] = field(default_factory=list)
    valid_sources: list[dict[str, Any]] = field(default_factory=list)
    unlearnt: dict[str, int] = field(default_factory=dict)
    unread: dict[str, int] = field(default_factory=dict)
    may_matter: list[str] = field(default_factory=list)
    unread_files: dict[str, int] = field(default_factory=dict)

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

    def notes(self) -> Iterator[str]:
        """What was left out, a line each, for whoever prepared it."""
        for reason, counts in sorted(self.dropped.items()):
            yield f"dropped {counts.documents:,} documents ({counts.tokens:,} tokens): {reason.replace('_', ' ')}"
        if self.unlearnt:
            yield f"not learnt: {in_words(self.unlearnt)}"
        if self.unread_files:
            yield f"files not read: {in_words(self.unread_files)}"
        yield from omissions(self.left_out)


def in_words(counts: Mapping[str, int]) -> str:
    """Names and numbers in a line."""
    return ", ".join(f"{count:,} {name}" for name, count in sorted(counts.items()))


def omissions(left_out: Mapping[str, int]) -> list[str]:
    """Sentences for `PrepareReport.left_out`."""
    return [
        f"the model's chat template leaves out the {what} of {count:,} conversation{'s' * (count > 1)} in silence"
        for what, count in sorted(left_out.items())
    ]


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
