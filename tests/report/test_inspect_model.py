"""A model is shown with its parts, its state and whether it is whole; damage is told, and does not hide the rest."""

from pathlib import Path

import pytest
from tests.tiny import TOKENIZER, fresh_model

from minimind.lora import LoraConfig, add_lora
from minimind.model import Transformer
from minimind.report.inspect_model import inspect_model
from minimind.storage.adapters import fingerprint, save_adapter
from minimind.storage.checkpoint import save_checkpoint
from minimind.storage.folder import MANIFEST


@pytest.fixture
def model() -> Transformer:
    return fresh_model()


def test_a_runs_latest_checkpoint_is_shown_with_its_training_state(model: Transformer, tmp_path: Path) -> None:
    checkpoints = tmp_path / "checkpoints"
    facts = {"training_state/facts.json": b'{"format": 1, "step": 7, "tokens": 700}'}
    save_checkpoint(checkpoints / "step-000007", model, TOKENIZER, extra_files=facts)
    (checkpoints / "latest").symlink_to("step-000007")
    found = inspect_model(tmp_path)
    total = sum(parameter.numel() for parameter in model.parameters())
    assert found.facts["parameters"] == f"{total:,}" and found.facts["training state"].startswith("step 7")
    assert found.facts["hashes"].startswith("verified") and not found.faults
    assert sum(row[1] for row in found.tables[0].rows) == total
    assert ["hidden_size", "32"] in found.tables[1].rows and ["tokens", 700] in found.tables[2].rows


def test_damage_is_a_fault_and_hashes_can_be_left_alone(model: Transformer, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "model", model, TOKENIZER)
    path = tmp_path / "model" / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    found = inspect_model(tmp_path / "model")
    assert found.facts["hashes"] == "DAMAGED" and "model.safetensors has changed" in found.faults[0]
    assert inspect_model(tmp_path / "model", verify=False).facts["hashes"].startswith("not verified")
    (tmp_path / "model" / MANIFEST).unlink()
    assert inspect_model(tmp_path / "model").facts["hashes"].startswith("cannot be verified")


def test_an_adapter_names_its_base(model: Transformer, tmp_path: Path) -> None:
    marks = {"base_fingerprint": fingerprint(model), "tokenizer_fingerprint": TOKENIZER.fingerprint}
    add_lora(model, LoraConfig(2), seed=0)
    save_adapter(tmp_path / "lora", model, base="models/base", config=LoraConfig(2), **marks)
    found = inspect_model(tmp_path / "lora")
    assert found.facts["base model"] == "models/base" and found.facts["rank"] == "2"
    assert found.facts["base fingerprint"] == marks["base_fingerprint"][:12]
