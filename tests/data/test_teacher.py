"""What is kept of a teacher comes back at the position it was computed for, and is never taken for another's."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from minimind.data.loader import PackedRows
from minimind.data.teacher import KeptTeacher, TeacherRows, TeacherSettings, keep_teacher
from minimind.errors import CheckpointError, DataError
from minimind.interfaces import Batch

SETTINGS = TeacherSettings(teacher="t", documents="d", context=16, temperature=2.0, num_kept=3)


class Documents:
    """Documents of random ids, some longer than a row, one with nothing to predict."""

    def __init__(self) -> None:
        random = np.random.default_rng(0)
        self.lengths = np.array([5, 40, 1, 16, 17, 9, 3, 33])
        self.ids = [random.integers(0, 50, n) for n in self.lengths]

    def __getitem__(self, document: int) -> tuple[np.ndarray, np.ndarray]:
        ids = self.ids[document]
        return ids, (np.arange(len(ids)) > 0).astype(np.float32)


DOCUMENTS = Documents()


def best(batch: Batch) -> tuple[Tensor, Tensor]:
    """A teacher that can be checked: it answers with functions of the token and the target."""
    ids = torch.stack([batch.tokens, batch.targets, batch.tokens + batch.targets], -1)
    return ids, -ids.float() / 7


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kept") / "teacher"
    keep_teacher(folder, DOCUMENTS, SETTINGS, best)
    return folder


def test_every_position_of_every_document_is_kept(folder: Path) -> None:
    teacher = KeptTeacher(folder, DOCUMENTS, SETTINGS)
    for number, ids in enumerate(DOCUMENTS.ids):
        expected = np.stack([ids[:-1], ids[1:], ids[:-1] + ids[1:]], -1)
        found, logprobs = teacher[number]
        assert (found == expected).all() and np.allclose(logprobs, -expected / 7)


@pytest.mark.parametrize("accumulate", [1, 3])
def test_batches_carry_what_was_kept_for_their_tokens(folder: Path, accumulate: int) -> None:
    options = {"context": 16, "batch_tokens": 48, "seed": 5, "accumulate": accumulate}
    rows = PackedRows(DOCUMENTS, **options)
    source = TeacherRows(DOCUMENTS, teacher=KeptTeacher(folder, DOCUMENTS, SETTINGS), **options)
    for step in range(source.steps_per_epoch + 1):
        for batch, plain in zip(source.micro_batches(step), rows.micro_batches(step), strict=True):
            assert torch.equal(batch.tokens, plain.tokens) and batch.lengths == plain.lengths
            ids, logprobs = best(plain)
            real = plain.weights != 0
            assert torch.equal(batch.teacher_ids[real], ids[real])
            assert torch.allclose(batch.teacher_logprobs[real], logprobs[real])


@pytest.mark.parametrize(
    "change", [{"teacher": "other"}, {"documents": "e"}, {"context": 8}, {"temperature": 1.0}, {"num_kept": 2}]
)
def test_what_was_kept_for_something_else_is_refused_with_both_values(folder: Path, change: dict) -> None:
    (name, value) = next(iter(change.items()))
    with pytest.raises(DataError, match=f"{name} {getattr(SETTINGS, name)}, now {value}"):
        KeptTeacher(folder, DOCUMENTS, replace(SETTINGS, **change))


def test_damage_is_found(tmp_path: Path) -> None:
    keep_teacher(tmp_path / "kept", DOCUMENTS, SETTINGS, best)
    path = tmp_path / "kept" / "logprobs.bin"
    content = bytearray(path.read_bytes())
    content[10] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"logprobs\.bin has changed"):
        KeptTeacher(tmp_path / "kept", DOCUMENTS, SETTINGS)
