"""The exported folder is what transformers reads: the same logits, the same ids, no code, no leftovers."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.interop.hostile_lines import hostile_lines
from tests.interop.tiny_models import SHAPES, tiny_model

from minimind.errors import CheckpointError
from minimind.interop.hf_export import export_hf
from minimind.storage.checkpoint import load_model
from minimind.text.tokenizer import PATTERNS, Tokenizer

LINES = hostile_lines()
TOKENS = torch.tensor([[1, 50, 60, 70, 71, 200, 310, 2], [0, 1, 2, 3, 100, 101, 102, 329]])
FILES = [
    *("README.md", "chat_template.jinja", "config.json", "generation_config.json", "model.safetensors"),
    *("tokenizer.json", "tokenizer_config.json"),
]


@pytest.mark.parametrize("architecture", SHAPES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_transformers_gives_the_logits_of_the_rounded_model(
    architecture: str, dtype: Any, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers")
    model, out = tiny_model(tokenizer, architecture), tmp_path / "out"

    written = export_hf(out, model, tokenizer, card="# tiny\n", dtype=dtype)

    assert sorted(path.name for path in out.iterdir()) == FILES
    assert written.difference == 0 if dtype == "float32" else 0 < written.difference < 0.05
    kept = load_file(out / "model.safetensors")
    assert {str(tensor.dtype) for tensor in kept.values()} == {f"torch.{dtype}"}
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        out, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    with torch.no_grad():
        torch.testing.assert_close(load_model(out)[0](TOKENS), theirs(TOKENS).logits, rtol=1e-5, atol=1e-5)
        if dtype == "float32":
            torch.testing.assert_close(model(TOKENS), theirs(TOKENS).logits, rtol=1e-5, atol=1e-5)
    assert transformers.AutoModelForCausalLM.from_pretrained(out, dtype="auto").dtype == kept["model.norm.weight"].dtype


def test_both_spellings_are_there_for_readers_of_either_version(tokenizer: Tokenizer, tmp_path: Path) -> None:
    export_hf(tmp_path / "out", tiny_model(tokenizer), tokenizer, card="", dtype="bfloat16")

    config = json.loads((tmp_path / "out" / "config.json").read_bytes())
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"] == 1e5
    assert config["dtype"] == config["torch_dtype"] == "bfloat16"
    assert "auto_map" not in config and config["architectures"] == ["Qwen3ForCausalLM"]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_second_export_of_what_was_read_back_has_the_same_bytes(
    dtype: Any, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    first = export_hf(tmp_path / "first", tiny_model(tokenizer), tokenizer, card="", dtype=dtype)
    second = export_hf(tmp_path / "second", *load_model(tmp_path / "first"), card="", dtype=dtype)

    assert first.files == second.files


def test_large_models_are_cut_and_the_index_counts_their_bytes(tokenizer: Tokenizer, tmp_path: Path) -> None:
    transformers, out = pytest.importorskip("transformers"), tmp_path / "out"
    model = tiny_model(tokenizer)

    export_hf(out, model, tokenizer, card="", dtype="bfloat16", max_shard_bytes=100_000)

    parts = sorted(out.glob("model-*.safetensors"))
    index = json.loads((out / "model.safetensors.index.json").read_bytes())
    assert len(parts) > 2 and {path.name for path in parts} == set(index["weight_map"].values())
    assert index["metadata"]["total_size"] == 2 * sum(parameter.numel() for parameter in model.parameters())
    theirs = transformers.AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).eval()
    with torch.no_grad():
        torch.testing.assert_close(load_model(out)[0](TOKENS), theirs(TOKENS).logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("add_prefix_space", [False, True])
def test_ids_are_the_same_here_in_tokenizers_and_in_transformers(
    pattern: str, add_prefix_space: bool, tmp_path: Path
) -> None:
    if add_prefix_space and pattern != "gpt2":
        pytest.skip("only gpt2 can have a space before a text")
    transformers, tokenizers = pytest.importorskip("transformers"), pytest.importorskip("tokenizers")
    tokenizer = Tokenizer.train(LINES, 700, pattern=pattern, add_prefix_space=add_prefix_space)
    out = tmp_path / "out"
    export_hf(out, tiny_model(tokenizer, head_dim=16), tokenizer, card="")

    plain = tokenizers.Tokenizer.from_file(str(out / "tokenizer.json"))
    theirs = transformers.AutoTokenizer.from_pretrained(out)

    assert len(LINES) > 2400
    ids = [tokenizer.encode(line) for line in LINES]
    assert [found.ids for found in plain.encode_batch(LINES)] == ids
    assert theirs(LINES)["input_ids"] == ids


def test_weights_beyond_float16_are_refused(tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = tiny_model(tokenizer)
    with torch.no_grad():
        model.layers[0].mlp.up_proj.weight[0, 0] = 1e5

    with pytest.raises(CheckpointError, match=r"up_proj.weight has weights beyond 65504"):
        export_hf(tmp_path / "out", model, tokenizer, card="", dtype="float16")
    assert not list(tmp_path.iterdir())
