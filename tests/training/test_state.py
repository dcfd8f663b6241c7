"""The optimisers' memory comes back bit for bit, and that of another model or optimiser is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch

from minimind.errors import CheckpointError
from minimind.model import ModelConfig, Transformer
from minimind.storage.tensor_files import write_files
from minimind.training.optimizer import Optimizers, make_optimizers
from minimind.training.state import load_training_state, read_training_facts, training_state_files

SHAPE: dict[str, Any] = {
    "vocab_size": 30,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "intermediate_size": 24,
}


def start(name: str = "muon", seed: int = 0, **changes: Any) -> tuple[Transformer, Optimizers]:
    torch.manual_seed(seed)
    model = Transformer(ModelConfig(**{**SHAPE, **changes}))
    options: dict[str, Any] = {"muon_lr": 0.02, "lr": 0.01, "embedding_lr": 0.01, "weight_decay": 0.1}
    return model, make_optimizers(model, name=name, betas=(0.8, 0.95), **options)


def learn(model: Transformer, optimizers: Optimizers, updates: int, seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(updates):
        for parameter in model.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizers.step()


def save(folder: Path, model: Transformer, optimizers: Optimizers, **facts: Any) -> None:
    write_files(folder, training_state_files(facts, model, optimizers))


@pytest.mark.parametrize("name", ["muon", "adamw"])
@pytest.mark.parametrize("changes", [{}, {"num_experts": 3, "moe_intermediate_size": 12, "tie_word_embeddings": False}])
def test_after_a_round_trip_updates_are_the_same_to_the_last_bit(
    tmp_path: Path, name: str, changes: dict[str, Any]
) -> None:
    model, optimizers = start(name, **changes)
    learn(model, optimizers, 3)
    save(tmp_path, model, optimizers)
    other_model, other_optimizers = start(name, seed=1, **changes)
    other_model.load_state_dict(model.state_dict())
    load_training_state(tmp_path, other_model, other_optimizers)
    learn(model, optimizers, 3, seed=1)
    learn(other_model, other_optimizers, 3, seed=1)
    for (path, ours), theirs in zip(model.named_parameters(), other_model.parameters(), strict=True):
        assert torch.equal(ours, theirs), path


def test_each_parameter_finds_its_own_memory_though_names_begin_alike(tmp_path: Path) -> None:
    """layers.1 and layers.10 to layers.12 have equal shapes; only the whole name tells them apart."""
    model, optimizers = start(num_hidden_layers=13)
    learn(model, optimizers, 1)
    save(tmp_path, model, optimizers)
    other_model, other_optimizers = start(num_hidden_layers=13)
    load_training_state(tmp_path, other_model, other_optimizers)
    for part, other in zip(optimizers.parts.values(), other_optimizers.parts.values(), strict=True):
        for parameter, twin in zip(model.parameters(), other_model.parameters(), strict=True):
            for key, value in part.state.get(parameter, {}).items():
                assert torch.equal(other.state[twin][key], value)


def test_facts_come_back(tmp_path: Path) -> None:
    save(tmp_path, *start(), step=12, tokens=3_000_000_000, dtype="bfloat16", seconds=0.1)
    facts = read_training_facts(tmp_path)
    assert (facts["step"], facts["tokens"], facts["dtype"], facts["seconds"]) == (12, 3_000_000_000, "bfloat16", 0.1)


def test_before_the_first_update_there_is_nothing_to_remember(tmp_path: Path) -> None:
    save(tmp_path, *start())
    model, optimizers = start()
    load_training_state(tmp_path, model, optimizers)
    assert not any(part.state for part in optimizers.parts.values())


@pytest.mark.parametrize(
    ("name", "changes", "answer"),
    [
        ("adamw", {}, "state of adamw, muon; this run uses adamw"),
        ("muon", {"num_hidden_layers": 1}, "state of other parameters than this model's, such as .*layers.1"),
        ("muon", {"num_hidden_layers": 3}, "state of other parameters than this model's, such as .*layers.2"),
        ("muon", {"tie_word_embeddings": False}, "state of other parameters than this model's, such as .*lm_head"),
        ("muon", {"intermediate_size": 32}, r"gate_proj.weight/momentum is \(24, 16\); expected \(32, 16\)"),
    ],
)
def test_the_state_of_another_model_or_optimiser_is_refused(
    tmp_path: Path, name: str, changes: dict[str, Any], answer: str
) -> None:
    model, optimizers = start()
    learn(model, optimizers, 1)
    save(tmp_path, model, optimizers)
    with pytest.raises(CheckpointError, match=answer):
        load_training_state(tmp_path, *start(name, **changes))


def test_a_folder_without_state_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="this folder holds a model, not a run that can be resumed"):
        read_training_facts(tmp_path)
    with pytest.raises(CheckpointError, match="this folder holds a model, not a run that can be resumed"):
        load_training_state(tmp_path, *start())


@pytest.mark.parametrize("name", ["training_state/facts.json", "training_state/optimizers.safetensors"])
def test_a_cut_file_is_refused_by_name(tmp_path: Path, name: str) -> None:
    model, optimizers = start()
    learn(model, optimizers, 1)
    save(tmp_path, model, optimizers)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-20])
    with pytest.raises(CheckpointError, match=f"{name}: .*; use an earlier checkpoint"):
        load_training_state(tmp_path, *start())
