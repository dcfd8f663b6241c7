"""PEFT reads our adapters and we read PEFT's; an adapter for another model, or a hostile one, is refused by name."""

import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests import tiny
from tests.damage import edit_json, edit_weights
from tests.tiny import FAMILIES, TOKENIZER

from minimind.errors import CheckpointError
from minimind.lora import LoraConfig, add_lora, has_lora, lora_weights, merge_lora
from minimind.model import Transformer
from minimind.storage.adapters import (
    apply_adapter,
    fingerprint,
    is_adapter,
    load_adapter,
    read_adapter,
    read_adapter_weights,
    save_adapter,
)
from minimind.storage.checkpoint import save_checkpoint
from minimind.storage.verify import verify_folder

LORA = LoraConfig(rank=3, alpha=6.0, dropout=0.1)
TOKENS = torch.randint(0, 300, (2, 20), generator=torch.Generator().manual_seed(0))
ADAPTER_FILES = ["adapter_config.json", "adapter_model.safetensors", "base.json"]
each_shape = pytest.mark.parametrize("name", FAMILIES)


def random_model(name: str = "qwen3", seed: int = 0) -> Transformer:
    return tiny.random_model(seed, **FAMILIES[name])


def adapted_model(name: str = "qwen3", config: LoraConfig = LORA) -> Transformer:
    model = random_model(name)
    add_lora(model, config, seed=1)
    generator = torch.Generator().manual_seed(2)
    for weight in lora_weights(model).values():
        weight.normal_(0, 0.2, generator=generator)
    return model


def save(folder: Path, model: Transformer, config: LoraConfig = LORA, **options: Any) -> None:
    facts = {"base": "runs/base", "base_fingerprint": fingerprint(model), "tokenizer_fingerprint": "f" * 64}
    save_adapter(folder, model, config=config, **(facts | options))


@contextmanager
def their_model(model: Transformer, folder: Path) -> Iterator[tuple[Any, Any]]:
    """PEFT, and what transformers makes of `model`; both warn of their own affairs."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        transformers, peft = pytest.importorskip("transformers"), pytest.importorskip("peft")
        save_checkpoint(folder, model, TOKENIZER)
        yield peft, transformers.AutoModelForCausalLM.from_pretrained(folder).eval()


@each_shape
def test_an_adapter_comes_back_bit_for_bit(tmp_path: Path, name: str) -> None:
    saved, model = adapted_model(name), random_model(name)
    save(tmp_path / "x", saved)
    info = apply_adapter(model, tmp_path / "x")
    assert info == read_adapter(tmp_path / "x") and info.base == "runs/base"
    assert (info.config.rank, info.config.scale, info.config.dropout) == (3, 2.0, 0.1)
    ours, theirs = lora_weights(model), lora_weights(saved)
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[path], theirs[path]) for path in ours)
    assert not model.training and torch.equal(model(TOKENS), saved(TOKENS))


@each_shape
def test_peft_loads_ours(tmp_path: Path, name: str) -> None:
    # Of dropout its mixtures of experts know nothing.
    config = replace(LORA, dropout=0.0 if "moe" in name else 0.1)
    model = adapted_model(name, config)
    save(tmp_path / "adapter", model, config)
    with their_model(random_model(name), tmp_path / "base") as (peft, theirs):
        adapted = peft.PeftModel.from_pretrained(theirs, tmp_path / "adapter").eval()
        torch.testing.assert_close(adapted(TOKENS).logits, model(TOKENS), rtol=0, atol=1e-5)
    assert (model(TOKENS) - random_model(name)(TOKENS)).abs().max() > 1e-2


ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *((name, {"target_modules": ALL}) for name in FAMILIES if "moe" not in name),
        ("qwen3 moe", {"target_modules": ["q_proj", "v_proj"]}),
        ("qwen3", {"target_modules": "all-linear", "lora_alpha": 5}),
        ("qwen3", {"target_modules": r".*\.(q_proj|down_proj)", "lora_dropout": 0.5}),
        ("qwen3", {"target_modules": ["o_proj"], "init_lora_weights": "gaussian"}),
    ],
)
def test_ours_loads_pefts(tmp_path: Path, name: str, options: dict[str, Any]) -> None:
    model = random_model(name)
    with their_model(model, tmp_path / "base") as (peft, theirs):
        config = peft.LoraConfig(r=4, **({"lora_alpha": 8, "task_type": "CAUSAL_LM"} | options))
        adapted = peft.get_peft_model(theirs, config).eval()
        generator = torch.Generator().manual_seed(3)
        for path, parameter in adapted.named_parameters():
            if "lora_" in path:
                parameter.normal_(0, 0.2, generator=generator)
        adapted.save_pretrained(tmp_path / "adapter")
        apply_adapter(model, tmp_path / "adapter")
        torch.testing.assert_close(model(TOKENS), adapted(TOKENS).logits, rtol=0, atol=1e-5)
    assert read_adapter(tmp_path / "adapter").base_fingerprint is None
    assert (model(TOKENS) - random_model(name)(TOKENS)).abs().max() > 1e-2


def test_half_precision_from_elsewhere_is_read(tmp_path: Path) -> None:
    save(tmp_path / "x", adapted_model())
    edit_weights(
        tmp_path / "x" / "adapter_model.safetensors",
        lambda t: t.update({name: tensor.half() for name, tensor in t.items()}),
    )
    model = random_model()
    apply_adapter(model, tmp_path / "x")
    assert all(weight.dtype == torch.float32 for weight in lora_weights(model).values())
    torch.testing.assert_close(model(TOKENS), adapted_model()(TOKENS), rtol=0, atol=0.05)


def test_a_base_is_known_by_its_weights_whatever_adapts_it() -> None:
    model = random_model()
    base = fingerprint(model)
    add_lora(model, LORA, seed=0)
    assert fingerprint(model) == base == fingerprint(random_model())
    merge_lora(model)
    assert fingerprint(model) == base, "a fresh adapter adds nothing"
    model = adapted_model()
    merge_lora(model)
    assert fingerprint(model) not in (base, fingerprint(random_model(seed=1)))


def test_an_adapter_for_another_base_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "x", adapted_model())
    other = random_model(seed=1)
    with pytest.raises(CheckpointError, match=r"x: an adapter for another base model, that of runs/base .*trained on"):
        apply_adapter(other, tmp_path / "x")
    assert not has_lora(other)
    with pytest.raises(CheckpointError, match="an adapter for another tokenizer"):
        apply_adapter(random_model(), tmp_path / "x", TOKENIZER.fingerprint)
    apply_adapter(random_model(), tmp_path / "x", "f" * 64)


def test_training_goes_on_with_the_weights_of_its_checkpoint(tmp_path: Path) -> None:
    saved, model = adapted_model(), random_model()
    save(tmp_path / "x", saved)
    add_lora(model, LORA, seed=5)
    load_adapter(model, tmp_path / "x", "f" * 64)
    assert torch.equal(model(TOKENS), saved(TOKENS))
    assert {n for n, parameter in model.named_parameters() if parameter.requires_grad} == lora_weights(model).keys()
    wider = random_model()
    add_lora(wider, LoraConfig(rank=4), seed=5)
    with pytest.raises(CheckpointError, match="same rank and layers"):
        load_adapter(wider, tmp_path / "x")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("use_rslora", True),
        ("use_dora", True),
        ("lora_bias", True),
        ("bias", "all"),
        ("fan_in_fan_out", True),
        ("modules_to_save", ["lm_head"]),
        ("rank_pattern", {"q_proj": 4}),
        ("alpha_pattern", {"q_proj": 4}),
        ("layers_to_transform", [0]),
        ("exclude_modules", ["q_proj"]),
        ("target_parameters", ["mlp.experts.down_proj"]),
        ("trainable_token_indices", [1]),
        ("init_lora_weights", "pissa"),
        ("use_qalora", True),
        ("feature_of_tomorrow", {"on": 1}),
        ("peft_type", "IA3"),
        ("task_type", "SEQ_CLS"),
        ("r", 0),
        ("r", 8.0),
        ("r", 10**7),
        ("r", None),
        ("lora_alpha", "16"),
        ("lora_alpha", 10**300),
        ("lora_alpha", 0),
        ("lora_alpha", float("nan")),
        ("lora_dropout", True),
        ("lora_dropout", 1),
        ("target_modules", []),
        ("target_modules", None),
        ("target_modules", ["lm_head"]),
        ("target_modules", ["q_proj", 7]),
        ("target_modules", ["mlp.gate"]),
        ("base_model_name_or_path", ["x"]),
    ],
)
def test_what_we_would_compute_otherwise_is_refused_by_name(tmp_path: Path, field: str, value: Any) -> None:
    save(tmp_path / "x", adapted_model())
    edit_json(tmp_path / "x" / "adapter_config.json", lambda values: values.update({field: value}))
    with pytest.raises(CheckpointError, match=rf"x/adapter_config\.json: {field} is .+; expected ") as error:
        read_adapter(tmp_path / "x")
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


Q = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop(Q), f"missing {Q}"),
        (lambda t: t.update({"base_model.model.lm_head.lora_A.weight": torch.ones(3, 32)}), r"unexpected .*lm_head"),
        (lambda t: t.update({Q: torch.ones(3, 31)}), r"another shape: .*q_proj.* is \[3, 31\] and not \[3, 32\]"),
        (lambda t: t.update({Q: torch.ones(4, 32)}), r"another shape: .*q_proj.* is \[4, 32\] and not \[3, 32\]"),
        (lambda t: t.update({Q: torch.ones(3, 32).int()}), r"q_proj.* has type I32"),
        (lambda t: t[Q].fill_(torch.nan), f"NaN or infinite weights in {Q}"),
        (lambda t: t.clear(), r"missing .* and 23 more"),
    ],
)
def test_weights_that_do_not_fit_are_named(tmp_path: Path, change: Callable[..., Any], message: str) -> None:
    save(tmp_path / "x", adapted_model())
    edit_weights(tmp_path / "x" / "adapter_model.safetensors", change)
    model = random_model()
    with pytest.raises(CheckpointError, match=message) as error:
        apply_adapter(model, tmp_path / "x")
    assert str(tmp_path / "x") in str(error.value) and not has_lora(model)


def test_damage_is_found_before_a_weight_is_used(tmp_path: Path) -> None:
    save(tmp_path / "x", adapted_model())
    for name in ADAPTER_FILES:
        path = tmp_path / "x" / name
        content = path.read_bytes()
        places = range(0, len(content), max(len(content) // 17, 1))
        flips = [content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :] for at in places]
        for bad in [*flips, *(content[:at] for at in places), content[:-1]]:
            path.write_bytes(bad)
            with pytest.raises(CheckpointError, match=f"damaged: {name}"):
                read_adapter(tmp_path / "x")
        path.write_bytes(content)
    read_adapter(tmp_path / "x")


@pytest.mark.parametrize("name", ["adapter_config.json", "base.json", "adapter_model.safetensors"])
@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"\xff{}", b"[" * 100_000, b"\x80\x04.", b'{"r": 1' + b"0" * 5000]
)
def test_a_hostile_file_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    save(tmp_path / "x", adapted_model())
    (tmp_path / "x" / "manifest.json").unlink()
    (tmp_path / "x" / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=name):
        apply_adapter(random_model(), tmp_path / "x")


def test_a_fingerprint_must_be_a_text(tmp_path: Path) -> None:
    save(tmp_path / "x", adapted_model())
    edit_json(tmp_path / "x" / "base.json", lambda values: values.update(base_fingerprint=7))
    with pytest.raises(CheckpointError, match=r"base\.json: base_fingerprint is 7; expected text"):
        read_adapter(tmp_path / "x")


def test_a_pickle_is_never_read(tmp_path: Path) -> None:
    save(tmp_path / "x", adapted_model())
    (tmp_path / "x" / "adapter_model.safetensors").rename(tmp_path / "x" / "adapter_model.bin")
    with pytest.raises(CheckpointError, match=r"has no adapter_model\.safetensors; expected one, a \.bin is a pickle"):
        read_adapter(tmp_path / "x")


def test_a_folder_of_a_model_is_no_adapters(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "model", random_model(), TOKENIZER)
    save(tmp_path / "adapter", adapted_model())
    assert is_adapter(tmp_path / "adapter") and not is_adapter(tmp_path / "model")
    # A model that somebody kept with its adapter's files is still a model.
    (tmp_path / "model" / "adapter_config.json").write_text("{}")
    assert not is_adapter(tmp_path / "model")
    with pytest.raises(
        CheckpointError, match=r"nowhere: has no adapter_config\.json; expected the folder of an adapter"
    ):
        read_adapter(tmp_path / "nowhere")


def test_what_is_saved_beside_an_adapter_is_verified_with_it(tmp_path: Path) -> None:
    extra = {"state/step.json": b"{}", "moments.bin": lambda path: path.write_bytes(b"123")}
    save(tmp_path / "x", adapted_model(), extra_files=extra)
    assert verify_folder(tmp_path / "x") == sorted([*ADAPTER_FILES, *extra])


def test_a_failed_save_leaves_what_was_there(tmp_path: Path) -> None:
    model = adapted_model()
    save(tmp_path / "x", model)
    before = (tmp_path / "x" / "manifest.json").read_bytes()

    def full(path: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(CheckpointError, match="x: not written: No space left"):
        save(tmp_path / "x", model, extra_files={"moments": full})
    with pytest.raises(CheckpointError, match=r"x: needs .* MB"):
        save(tmp_path / "x", model, extra_bytes=10**18)
    with pytest.raises(CheckpointError, match="tensors do not fit the configuration"):
        save(tmp_path / "x", random_model())
    lora_weights(model)["layers.0.self_attn.q_proj.lora_A.weight"][0] = torch.inf
    with pytest.raises(CheckpointError, match=r"infinite weights in .*q_proj\.lora_A"):
        save(tmp_path / "x", model)
    assert (tmp_path / "x" / "manifest.json").read_bytes() == before


def test_other_programs_find_the_fields_they_look_for(tmp_path: Path) -> None:
    config = LoraConfig(rank=2, targets=("v_proj", "q_proj"))
    save(tmp_path / "x", adapted_model(config=config), config)
    values = json.loads((tmp_path / "x" / "adapter_config.json").read_text())
    assert values["target_modules"] == ["q_proj", "v_proj"] and values["base_model_name_or_path"] == "runs/base"
    assert (values["r"], values["lora_alpha"], values["peft_type"], values["bias"]) == (2, 2, "LORA", "none")
    assert type(values["lora_alpha"]) is int
    weights = read_adapter_weights(read_adapter(tmp_path / "x"), random_model())
    assert set(weights) == {
        f"layers.{i}.self_attn.{p}_proj.lora_{m}.weight" for i in (0, 1) for p in "qv" for m in "AB"
    }
