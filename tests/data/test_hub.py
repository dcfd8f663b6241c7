"""Addresses of datasets: which files they mean, through the same path as a local folder."""

from pathlib import Path

import pytest

from minimind.data.corpus import read_chunks
from minimind.data.files import find_files
from minimind.data.hub import find_on_hub
from minimind.errors import DataError

NAMES = ["README.md", "data/train-0.jsonl", "data/train-1.jsonl", "data/deep/x.parquet", "test.jsonl", "script.py"]


class FolderHub:
    """A hub with one dataset, `owner/name`, kept in a folder. Any revision is commit c0ffee but `gone`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.revisions = folder, []
        for name in NAMES:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(f'{{"text": "{name}"}}\n')

    def files(self, repository: str, revision: str) -> tuple[str, list[str]]:
        self.revisions.append(revision)
        if repository != "owner/name" or revision == "gone":
            raise LookupError(f"404 for {repository}\n\nand many more lines")
        return "c0ffee", NAMES

    def fetch(self, repository: str, commit: str, name: str) -> Path:
        assert commit == "c0ffee", "files of one version"
        return self.folder / name


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("hf://owner/name", ["data/deep/x.parquet", "data/train-0.jsonl", "data/train-1.jsonl", "test.jsonl"]),
        ("hf://datasets/owner/name", ["data/deep/x.parquet", "data/train-0.jsonl", "data/train-1.jsonl", "test.jsonl"]),
        ("hf://owner/name/test.jsonl", ["test.jsonl"]),
        ("hf://owner/name/README.md", ["README.md"]),
        ("hf://owner/name@v1/data/", ["data/deep/x.parquet", "data/train-0.jsonl", "data/train-1.jsonl"]),
        ("hf://owner/name/data/*", ["data/train-0.jsonl", "data/train-1.jsonl"]),
        ("hf://owner/name/**/*.parquet", ["data/deep/x.parquet"]),
        ("hf://owner/name/**/train-0.*", ["data/train-0.jsonl"]),
    ],
)
def test_an_address_means_files_of_one_commit(tmp_path: Path, address: str, expected: list[str]) -> None:
    found = find_files([address], FolderHub(tmp_path))
    assert [file.name for file in found] == [f"hf://owner/name@c0ffee/{name}" for name in expected]
    assert [file.path for file in found] == [tmp_path / name for name in expected]


def test_rows_of_a_dataset_name_its_commit(tmp_path: Path) -> None:
    [chunk] = read_chunks(find_files(["hf://owner/name/test.jsonl"], FolderHub(tmp_path)))
    [row] = chunk.rows()
    assert (row.path, row.line) == ("hf://owner/name@c0ffee/test.jsonl", 1)


@pytest.mark.parametrize(
    ("revision", "asked"), [("", "main"), ("@v1", "v1"), ("@refs%2Fpr%2F1", "refs/pr/1"), ("@refs/pr/1", "refs/pr/1")]
)
def test_a_revision_is_asked_for_as_it_is_meant(tmp_path: Path, revision: str, asked: str) -> None:
    hub = FolderHub(tmp_path)
    find_files([f"hf://owner/name{revision}/test.jsonl"], hub)
    assert hub.revisions == [asked]


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("hf://name", "expected hf://owner/name, then perhaps @revision"),
        ("hf://owner/name/absent.jsonl", "no data file matches; the dataset has README.md, data/deep/x.parquet"),
        ("hf://owner/name/script.py", "no data file matches"),
        ("hf://owner/name@gone", "cannot be fetched: 404 for owner/name"),
        ("hf://other/name", "cannot be fetched: 404 for other/name"),
    ],
)
def test_an_address_without_files_is_one_line(tmp_path: Path, address: str, message: str) -> None:
    with pytest.raises(DataError) as error:
        find_on_hub(address, FolderHub(tmp_path), is_data=lambda name: name.endswith((".jsonl", ".parquet")))
    assert str(error.value).startswith(f"{address}: {message}") and "\n" not in str(error.value)
