"""A model folder is read by ours and by transformers alike, and a damaged or foreign one is refused by name."""

import json
import os
import warnings
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.damage import edit_json, edit_weights
from tests.text.template_cases import TEMPLATES, made

from minimind.errors import CheckpointError
from minimind.generation.sampling import Sampling
from minimind.lora import LoraConfig, add_lora, lora_weights, merge_lora
from minimind.model import ModelConfig, Transformer
from minimind.storage.adapters import fingerprint, save_adapter
from minimind.storage.checkpoint import find_checkpoint, load_model, save_checkpoint
from minimind.storage.verify import model_files, verify_folder
from minimind.text.tokenizer import Tokenizer

TOKENIZER = Tokenizer.train(["hello world", "你好，世界"], 295)
DENSE = ModelConfig(
    vocab_size=300,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
    intermediate_size=48,
    max_position_embeddings=64,
)
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
CONFIGS = {
    "qwen3": DENSE,
    "qwen3 untied": replace(DENSE, tie_word_embeddings=False),
    "qwen3 biased": replace(DENSE, attention_bias=True),
    "qwen3 biased throughout": replace(DENSE, attention_bias=True, output_bias=True),
    "qwen3 yarn": replace(DENSE, rope_scaling=YARN),
    "qwen3 yarn in full": replace(
        DENSE, rope_scaling=YARN | {"beta_fast": 8.0, "beta_slow": 2.0, "attention_factor": 1.25}
    ),
    "qwen3 yarn that shrinks": replace(DENSE, rope_scaling=YARN | {"factor": 0.5}),
    "llama 3": replace(DENSE, qk_norm=False, head_dim=8, rope_theta=5e5, rope_scaling=LLAMA3),
    "llama linear": replace(DENSE, qk_norm=False, head_dim=8, rope_scaling={"rope_type": "linear", "factor": 2.5}),
    "llama biased": replace(DENSE, qk_norm=False, head_dim=8, attention_bias=True, output_bias=True),
    "qwen3 moe": replace(DENSE, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=24),
    "qwen3 moe normalised": replace(
        DENSE, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=24, norm_topk_prob=True
    ),
    "llama": replace(DENSE, qk_norm=False, head_dim=8),
    "qwen2": replace(DENSE, qk_norm=False, attention_bias=True, head_dim=8),
}
TOKENS = torch.randint(0, 300, (2, 40), generator=torch.Generator().manual_seed(0))


def random_model(config: ModelConfig = DENSE, seed: int = 0) -> Transformer:
    """Every weight random: initial zeros and ones would hide what is not read."""
    model = Transformer(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.5 if parameter.ndim == 1 else 0, 0.2, generator=generator)
    return model


def same_weights(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    ours, theirs = a.state_dict(), b.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("name", CONFIGS)
def test_loading_gives_what_was_saved(tmp_path: Path, name: str) -> None:
    model = random_model(CONFIGS[name])
    save_checkpoint(tmp_path / "x", model, TOKENIZER)
    loaded, tokenizer = load_model(tmp_path / "x")
    assert loaded.config == model.config and same_weights(loaded, model)
    assert tokenizer.fingerprint == TOKENIZER.fingerprint


@pytest.mark.parametrize("name", CONFIGS)
def test_transformers_gives_the_same_logits_from_our_folder_and_we_from_its(tmp_path: Path, name: str) -> None:
    transformers = pytest.importorskip("transformers")
    model = random_model(CONFIGS[name])
    save_checkpoint(tmp_path / "ours", model, TOKENIZER)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours")
        assert type(theirs).__name__ == json.loads((tmp_path / "ours" / "config.json").read_text())["architectures"][0]
        torch.testing.assert_close(theirs(TOKENS).logits, model(TOKENS), rtol=0, atol=1e-5)
        theirs.save_pretrained(tmp_path / "theirs")
        TOKENIZER.save(tmp_path / "theirs")
    assert same_weights(load_model(tmp_path / "theirs")[0], model)


def test_transformers_tokenizes_as_ours_does(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    save_checkpoint(tmp_path / "x", random_model(), TOKENIZER)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "x")
    for text in ("hello world 2026", "你好，世界", " a\n\n b\t", "😀 naïve"):
        assert theirs.encode(text) == TOKENIZER.encode(text)
    assert (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id) == (1, 2, 0)


def test_other_programs_are_told_the_defaults_of_our_sampling(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "x", random_model(), TOKENIZER)
    values, ours = json.loads((tmp_path / "x" / "generation_config.json").read_text()), asdict(Sampling())
    assert {name: values[name] for name in ("temperature", "top_p")} == {n: ours[n] for n in ("temperature", "top_p")}
    assert (values["bos_token_id"], values["eos_token_id"], values["pad_token_id"]) == (1, 2, 0)


def test_large_weights_are_cut_into_shards_with_an_index(tmp_path: Path) -> None:
    model = random_model()
    save_checkpoint(tmp_path / "x", model, TOKENIZER, max_shard_bytes=20_000)
    shards = sorted((tmp_path / "x").glob("model-*.safetensors"))
    assert len(shards) > 2 and not (tmp_path / "x" / "model.safetensors").exists()
    assert same_weights(load_model(tmp_path / "x")[0], model)


def test_extra_files_are_written_and_verified_with_the_rest(tmp_path: Path) -> None:
    extra = {"state/step.json": b"{}", "state/moments.bin": lambda path: path.write_bytes(b"123")}
    save_checkpoint(tmp_path / "x", random_model(), TOKENIZER, extra_files=extra)
    assert {"state/step.json", "state/moments.bin", "model.safetensors"} <= set(verify_folder(tmp_path / "x"))


def test_saving_again_replaces_the_folder_and_a_failed_save_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = random_model(seed=1), random_model(seed=2)
    save_checkpoint(tmp_path / "x", first, TOKENIZER)

    def full(path: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(CheckpointError, match="x: not written: No space left"):
        save_checkpoint(tmp_path / "x", second, TOKENIZER, extra_files={"moments": full})
    assert same_weights(load_model(tmp_path / "x")[0], first)
    save_checkpoint(tmp_path / "x", second, TOKENIZER)
    assert same_weights(load_model(tmp_path / "x")[0], second)
    assert os.listdir(tmp_path) == ["x"]


def test_the_missing_space_is_named_before_writing(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"x: needs .* MB and the disk has .* MB free"):
        save_checkpoint(tmp_path / "x", random_model(), TOKENIZER, extra_bytes=10**18)
    assert not list(tmp_path.iterdir())


def test_damage_is_found_before_a_weight_is_used(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "x", random_model(), TOKENIZER)
    for name in ("model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"):
        path = tmp_path / "x" / name
        content = path.read_bytes()
        places = range(0, len(content), max(len(content) // 17, 1))
        flips = [content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :] for at in places]
        for bad in [*flips, *(content[:at] for at in places), content[:-1]]:
            path.write_bytes(bad)
            with pytest.raises(CheckpointError, match=f"damaged: {name}"):
                load_model(tmp_path / "x")
        path.write_bytes(content)
    assert same_weights(load_model(tmp_path / "x")[0], random_model())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("model.norm.weight"), "missing model.norm.weight"),
        (lambda t: t.update(other=torch.zeros(1)), "unexpected other"),
        (lambda t: t.update({"model.norm.weight": torch.ones(31)}), r"model.norm.weight is \[31\] and not \[32\]"),
        (lambda t: t.update({"model.norm.weight": torch.ones(32).int()}), "model.norm.weight has type I32"),
        (lambda t: t["model.norm.weight"].fill_(torch.nan), "NaN or infinite weights in model.norm.weight"),
        (lambda t: t.update({"lm_head.weight": torch.ones(300, 32)}), "lm_head.weight differs"),
        (lambda t: t.clear(), "2 layers"),
    ],
)
def test_weights_that_do_not_fit_are_named(tmp_path: Path, change: Callable[..., Any], message: str) -> None:
    save_checkpoint(tmp_path / "x", random_model(), TOKENIZER)
    edit_weights(tmp_path / "x" / "model.safetensors", change)
    with pytest.raises(CheckpointError, match=message) as error:
        load_model(tmp_path / "x")
    assert str(tmp_path / "x") in str(error.value)


def test_a_head_equal_to_the_tied_embedding_is_read_as_tied(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "x", random_model(), TOKENIZER)
    edit_weights(
        tmp_path / "x" / "model.safetensors",
        lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"].clone()}),
    )
    assert same_weights(load_model(tmp_path / "x")[0], random_model())


def test_a_bias_behind_the_attention_is_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "x", random_model(CONFIGS["qwen3 biased"]), TOKENIZER)
    edit_weights(tmp_path / "x" / "model.safetensors", lambda t: t["model.layers.1.self_attn.o_proj.bias"].fill_(1))
    with pytest.raises(CheckpointError, match=r"model\.layers\.1\.self_attn\.o_proj\.bias is not 0; .*output_bias"):
        load_model(tmp_path / "x")


def test_a_hostile_configuration_costs_nothing(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "x", random_model(), TOKENIZER)
    edit_json(tmp_path / "x" / "config.json", lambda values: values.update(num_hidden_layers=4000))
    with pytest.raises(CheckpointError, match=r"4000 layers .* 24 tensors"):
        load_model(tmp_path / "x")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff{}", b"[" * 100_000, b'{"a": NaN}'])
def test_a_configuration_that_is_no_json_object_is_refused(tmp_path: Path, content: bytes) -> None:
    save_checkpoint(tmp_path / "x", random_model(), TOKENIZER)
    (tmp_path / "x" / "config.json").write_bytes(content)
    (tmp_path / "x" / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match=r"config\.json"):
        load_model(tmp_path / "x")


def test_an_index_may_not_name_files_elsewhere(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "x", random_model(), TOKENIZER, max_shard_bytes=20_000)
    edit_json(tmp_path / "x" / "model.safetensors.index.json", lambda v: v["weight_map"].update(a="../../secret"))
    with pytest.raises(CheckpointError, match="files of this folder"):
        load_model(tmp_path / "x")


def test_a_tokenizer_with_more_ids_than_the_model_is_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "x", random_model(replace(DENSE, vocab_size=294)), TOKENIZER)
    with pytest.raises(CheckpointError, match=r"295 ids .* vocab_size of 294"):
        load_model(tmp_path / "x")


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path) -> None:
    model = random_model()
    model.norm.weight.data[3] = torch.inf
    with pytest.raises(CheckpointError, match=r"infinite weights in norm\.weight"):
        save_checkpoint(tmp_path / "x", model, TOKENIZER)
    assert not (tmp_path / "x").exists()


def test_the_latest_checkpoint_of_a_run_is_found(tmp_path: Path) -> None:
    checkpoints = tmp_path / "run" / "checkpoints"
    save_checkpoint(checkpoints / "step-000002", random_model(), TOKENIZER)
    with pytest.raises(CheckpointError, match="no checkpoint yet"):
        find_checkpoint(tmp_path / "run")
    (checkpoints / "latest").symlink_to("step-000002")
    assert find_checkpoint(tmp_path / "run") == (checkpoints / "step-000002").resolve()
    assert same_weights(load_model(tmp_path / "run")[0], random_model())


def test_what_is_no_model_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file.gguf").write_bytes(b"GGUF")
    for path in (tmp_path / "nowhere", tmp_path, tmp_path / "file.gguf"):
        with pytest.raises(CheckpointError, match="expected a model folder"):
            load_model(path)


def test_half_precision_can_be_asked_for(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "x", random_model(), TOKENIZER)
    assert load_model(tmp_path / "x", dtype=torch.bfloat16)[0].norm.weight.dtype == torch.bfloat16


def test_the_shape_is_told_without_reading_weights_or_hashes(tmp_path: Path) -> None:
    model = random_model()
    save_checkpoint(tmp_path / "x", model, TOKENIZER, max_shard_bytes=20_000)
    (tmp_path / "x" / "tokenizer.json").write_text("changed")
    files = model_files(tmp_path / "x")
    assert files.config == model.config and len(files.places) == len(model.state_dict())


def save_lora(folder: Path, base: Path | str, seed: int = 1) -> Transformer:
    """A random adapter for the model at `base`; gives the two merged."""
    model, tokenizer = load_model(base)
    facts = {"base_fingerprint": fingerprint(model), "tokenizer_fingerprint": tokenizer.fingerprint}
    add_lora(model, LoraConfig(rank=2), seed)
    for weight in lora_weights(model).values():
        weight.normal_(0, 0.2, generator=torch.Generator().manual_seed(seed))
    save_adapter(folder, model, base=str(base), config=LoraConfig(rank=2), **facts)
    merge_lora(model)
    return model


def test_an_adapter_is_loaded_with_the_base_it_names_and_merged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save_checkpoint("base", random_model(), TOKENIZER)
    expected = save_lora(Path("runs/lora/checkpoints/step-000001"), "base")
    (tmp_path / "runs/lora/checkpoints/latest").symlink_to("step-000001")
    for folder in ("runs/lora", "runs/lora/checkpoints/step-000001"):
        model, tokenizer = load_model(folder)
        assert same_weights(model, expected) and tokenizer.fingerprint == TOKENIZER.fingerprint
        assert not model.training and all(parameter.requires_grad for parameter in model.parameters())
        assert "adapter_model.safetensors" in verify_folder(find_checkpoint(folder))
    assert same_weights(load_model("base", adapter="runs/lora")[0], expected)
    assert not same_weights(load_model("base")[0], expected)
    halves = load_model("runs/lora", dtype=torch.bfloat16)[0]
    assert same_weights(halves, expected.to(torch.bfloat16))


def test_a_base_that_moved_is_named_with_its_adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_checkpoint("base", random_model(), TOKENIZER)
    expected = save_lora(Path("lora"), "base")
    Path("base").rename("elsewhere")
    with pytest.raises(
        CheckpointError, match=rf"^lora: an adapter for base, which is not at {tmp_path}/base; .* both$"
    ):
        load_model("lora")
    assert same_weights(load_model("elsewhere", adapter="lora")[0], expected)
    edit_json(Path("lora/adapter_config.json"), lambda values: values.update(base_model_name_or_path=None))
    with pytest.raises(CheckpointError, match="lora: an adapter for a model that it does not name; "):
        load_model("lora")
    save_checkpoint("base", random_model(seed=1), TOKENIZER)
    with pytest.raises(CheckpointError, match="lora: an adapter for another base model"):
        load_model("base", adapter="lora")
    with pytest.raises(CheckpointError, match=r"elsewhere: has no adapter_config\.json"):
        load_model("base", adapter="elsewhere")


def test_an_adapter_may_be_made_for_what_another_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_checkpoint("base", random_model(), TOKENIZER)
    save_lora(Path("first"), "base")
    expected = save_lora(Path("second"), "first", seed=2)
    assert same_weights(load_model("second")[0], expected)
    assert same_weights(load_model("first", adapter="second")[0], expected)
    with pytest.raises(CheckpointError, match="second: an adapter for another base model, that of first"):
        load_model("base", adapter="second")
    edit_json(Path("first/adapter_config.json"), lambda values: values.update(base_model_name_or_path="./second"))
    with pytest.raises(CheckpointError, match="first: its base model is second, which is made from it in turn"):
        load_model("second")


def test_an_adapter_is_not_used_with_another_tokenizer(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "base", random_model(), TOKENIZER)
    save_lora(tmp_path / "lora", tmp_path / "base")
    save_checkpoint(tmp_path / "base", random_model(), Tokenizer.train(["other words"], 295))
    with pytest.raises(CheckpointError, match="lora: an adapter for another tokenizer"):
        load_model(tmp_path / "lora")


def test_a_model_with_its_adapter_beside_it_is_not_saved_as_a_model(tmp_path: Path) -> None:
    model = random_model()
    add_lora(model, LoraConfig(), seed=0)
    with pytest.raises(CheckpointError, match=r"unexpected .*lora_A"):
        save_checkpoint(tmp_path / "x", model, TOKENIZER)


def test_a_model_keeps_the_chat_template_it_came_with_and_its_ends(tmp_path: Path) -> None:
    tokenizer = made("plain")
    tokenizer.more_ends = frozenset(("</s>",))
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2}
    model = Transformer(ModelConfig(vocab_size=tokenizer.vocab_size, **shape))
    save_checkpoint(tmp_path / "a", model, tokenizer)
    _, found = load_model(tmp_path / "a")
    assert found.template is not None and found.template.texts == {"default": TEMPLATES["plain"]}
    ends = json.loads((tmp_path / "a" / "generation_config.json").read_text())["eos_token_id"]
    assert ends == [tokenizer.eos_id, tokenizer.control("</s>")] and found.end_ids == tokenizer.end_ids
    edit = tmp_path / "a" / "chat_template.jinja"
    edit.write_text("{{ messages }}")
    with pytest.raises(CheckpointError, match=r"chat_template\.jinja"):
        load_model(tmp_path / "a")
