"""Adapters are switched beside one base, which stays as it is bit for bit."""

from pathlib import Path

import pytest
import torch
from tests.tiny import OTHER_TOKENIZER, TOKENIZER, random_model

from minimind.errors import CheckpointError, ConfigError
from minimind.lora import LoraConfig, add_lora, lora_weights
from minimind.model import Transformer
from minimind.stages.chat.adapters import Adapters
from minimind.storage.adapters import fingerprint, save_adapter

TOKENS = torch.tensor([[1, 50, 60, 70]])


def save(folder: Path, rank: int, base: Transformer | None = None) -> torch.Tensor:
    """A random adapter in `folder`; gives the logits with it."""
    model, config = base or random_model(), LoraConfig(rank)
    facts = {"base_fingerprint": fingerprint(model), "tokenizer_fingerprint": TOKENIZER.fingerprint}
    add_lora(model, config, seed=0)
    for weight in lora_weights(model).values():
        weight.normal_(0, 0.3, generator=torch.Generator().manual_seed(rank))
    save_adapter(folder, model, base="base", config=config, **facts)
    return model(TOKENS)


def test_each_adapter_answers_as_it_would_alone_and_the_base_in_between(tmp_path: Path) -> None:
    places = [tmp_path / "a", tmp_path / "b"]
    expected = {"a": save(places[0], 2), "b": save(places[1], 3), "none": random_model()(TOKENS)}
    model = random_model()
    adapters = Adapters(model, TOKENIZER, places)
    assert adapters.names == ["a", "b"] and adapters.active == "a"
    assert torch.equal(model(TOKENS), expected["a"])
    for name in ("b", "a", "none", "none", "b", "none"):
        adapters.use(name)
        assert adapters.active == name and torch.equal(model(TOKENS), expected[name])
    assert not any(torch.equal(expected[a], expected[b]) for a, b in ("ab", ("a", "none")))
    assert fingerprint(model) == fingerprint(random_model())


def test_without_adapters_there_is_the_base(tmp_path: Path) -> None:
    adapters = Adapters(random_model(), TOKENIZER, [])
    assert adapters.active == "none" and adapters.names == []
    adapters.use("none")


def test_runs_are_named_by_their_folders_and_by_whole_paths_where_those_are_alike(tmp_path: Path) -> None:
    places = [tmp_path / "one" / "lora", tmp_path / "two" / "lora", tmp_path / "three", tmp_path / "none"]
    for place in places:
        save(place / "checkpoints" / "step-000001", 2)
        (place / "checkpoints" / "latest").symlink_to("step-000001")
    names = [str(places[0]), str(places[1]), "three", str(places[3])]
    assert Adapters(random_model(), TOKENIZER, places).names == names


def test_an_unknown_name_is_answered_with_the_nearest(tmp_path: Path) -> None:
    save(tmp_path / "medical", 2)
    adapters = Adapters(random_model(), TOKENIZER, [tmp_path / "medical"])
    with pytest.raises(ConfigError, match="no adapter is called 'medcal'; did you mean medical"):
        adapters.use("medcal")
    with pytest.raises(ConfigError, match="no adapter is called 'x'; there are medical, none"):
        adapters.use("x")
    assert adapters.active == "medical"


def test_a_wrong_adapter_is_found_at_once(tmp_path: Path) -> None:
    save(tmp_path / "a", 2)
    save(tmp_path / "b", 2, random_model(seed=1))
    with pytest.raises(CheckpointError, match="b: an adapter for another base model"):
        Adapters(random_model(), TOKENIZER, [tmp_path / "a", tmp_path / "b"])
    with pytest.raises(CheckpointError, match="a: an adapter for another tokenizer"):
        Adapters(random_model(), OTHER_TOKENIZER, [tmp_path / "a"])
    with pytest.raises(CheckpointError, match="nowhere: not there"):
        Adapters(random_model(), TOKENIZER, [tmp_path / "nowhere"])
