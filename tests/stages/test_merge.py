"""`minimind merge` writes what the base and its adapter are together, and overwrites nothing."""

import warnings
from pathlib import Path

import pytest
import torch
from tests.tiny import TOKENIZER, fresh_model

from minimind.cli import parse
from minimind.errors import CheckpointError, ConfigError
from minimind.lora import LoraConfig, add_lora, lora_weights
from minimind.model import Transformer
from minimind.stages.merge import run
from minimind.storage.adapters import fingerprint, save_adapter
from minimind.storage.checkpoint import load_model, save_checkpoint
from minimind.storage.verify import verify_folder

TOKENS = torch.tensor([[1, 50, 60, 70]])


def merge(*words: str) -> None:
    run(parse("merge", words))  # type: ignore[arg-type]


@pytest.fixture
def adapted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Transformer:
    """A base in base/, an adapter in lora/, and both as one model in memory, not merged."""
    monkeypatch.chdir(tmp_path)
    model = fresh_model().eval()
    save_checkpoint("base", model, TOKENIZER)
    facts = {"base_fingerprint": fingerprint(model), "tokenizer_fingerprint": TOKENIZER.fingerprint}
    add_lora(model, LoraConfig(2), seed=0)
    for weight in lora_weights(model).values():
        weight.normal_(0, 0.3)
    save_adapter("lora", model, base="base", config=LoraConfig(2), **facts)
    return model


def test_the_folder_is_a_model_that_anything_loads(adapted: Transformer, capsys: pytest.CaptureFixture[str]) -> None:
    merge("lora", "--out", "models/merged")
    assert "models/merged: a model of 0.0M parameters" in capsys.readouterr().out
    model, tokenizer = load_model("models/merged")
    torch.testing.assert_close(model(TOKENS), adapted(TOKENS), rtol=0, atol=1e-6)
    assert tokenizer.fingerprint == TOKENIZER.fingerprint and verify_folder(Path("models/merged"))
    assert not torch.equal(model(TOKENS), load_model("base")[0](TOKENS))
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        theirs = pytest.importorskip("transformers").AutoModelForCausalLM.from_pretrained("models/merged")
        torch.testing.assert_close(theirs(TOKENS).logits, adapted(TOKENS), rtol=0, atol=1e-5)


def test_a_base_that_moved_can_be_named(adapted: Transformer) -> None:
    merge("lora", "--out", "one")
    Path("base").rename("elsewhere")
    with pytest.raises(CheckpointError, match="lora: an adapter for base, which is not at"):
        merge("lora", "--out", "two")
    merge("lora", "--model", "elsewhere", "--out", "two")
    assert fingerprint(load_model("one")[0]) == fingerprint(load_model("two")[0])


def test_nothing_is_overwritten(adapted: Transformer) -> None:
    before = {path: path.read_bytes() for path in Path("base").iterdir()}
    with pytest.raises(ConfigError, match="base exists already; choose another --out"):
        merge("lora", "--out", "base")
    assert {path: path.read_bytes() for path in Path("base").iterdir()} == before


def test_a_model_without_an_adapter_is_not_merged(adapted: Transformer) -> None:
    with pytest.raises(ConfigError, match="base: holds a model and no adapter"):
        merge("base", "--out", "merged")
    assert not Path("merged").exists()
