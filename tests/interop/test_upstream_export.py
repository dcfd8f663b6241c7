"""What is written for MiniMind's own scripts has their names and comes back as it was."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.interop.test_peft_export import adapted
from tests.interop.tiny_models import tiny_model

from minimind.errors import CheckpointError
from minimind.interop.upstream import UpstreamShape, load_upstream, load_upstream_lora
from minimind.interop.upstream_export import export_upstream, export_upstream_lora
from minimind.lora import merge_lora
from minimind.text.tokenizer import Tokenizer

TOKENS = torch.tensor([[1, 50, 60, 70, 71, 200, 310, 2]])
SHAPE = UpstreamShape(rope_theta=1e5, rms_norm_eps=1e-5, max_position_embeddings=128)


@pytest.mark.parametrize(("architecture", "file"), [("qwen3", "full_64.pth"), ("qwen3moe", "full_64_moe.pth")])
def test_a_model_is_written_under_upstreams_names(
    architecture: str, file: str, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    model = tiny_model(tokenizer, architecture, num_experts_per_tok=1)

    written = export_upstream(tmp_path / "full", model, tokenizer)

    assert {entry.name for entry in written.files} == {file, "tokenizer.json", "tokenizer_config.json"}
    weights = torch.load(tmp_path / "full" / file, weights_only=True)
    assert weights.keys() == {f"model.{name}" for name in model.state_dict()} | {"lm_head.weight"}
    assert {tensor.dtype for tensor in weights.values()} == {torch.float16}
    assert 0 < written.difference < 0.002
    with torch.no_grad():
        found, expected = load_upstream(tmp_path / "full" / file, SHAPE), model.half().float()
        assert torch.equal(found(TOKENS), expected(TOKENS))


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_what_was_read_back_is_written_with_the_same_bytes(dtype: Any, tokenizer: Tokenizer, tmp_path: Path) -> None:
    first = export_upstream(tmp_path / "a" / "full", tiny_model(tokenizer), tokenizer, dtype=dtype)
    found = load_upstream(tmp_path / "a" / "full" / "full_64.pth", SHAPE)
    second = export_upstream(tmp_path / "b" / "full", found, tokenizer, dtype=dtype)

    assert first.files == second.files


@pytest.mark.parametrize(
    ("architecture", "changes", "words"),
    [
        ("llama", {}, "qk_norm off"),
        ("qwen3", {"tie_word_embeddings": False}, "tie_word_embeddings off"),
        ("qwen3", {"attention_bias": True}, "attention_bias on"),
        ("qwen3", {"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, "rope_scaling"),
    ],
)
def test_a_shape_that_upstream_lacks_is_refused(
    architecture: str, changes: dict[str, Any], words: str, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=words):
        export_upstream(tmp_path / "full", tiny_model(tokenizer, architecture, **changes), tokenizer)
    assert not list(tmp_path.iterdir())


def test_an_adapter_comes_back_with_its_scale_inside(tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = adapted(tokenizer, tmp_path / "adapter", targets=("q_proj", "o_proj"))

    written = export_upstream_lora(tmp_path / "lora", tmp_path / "adapter", dtype="float32")

    other = tiny_model(tokenizer, head_dim=16)
    load_upstream_lora(tmp_path / "lora" / written.files[0].name, other)
    for each in (model, other):
        merge_lora(each)
    with torch.no_grad():
        torch.testing.assert_close(other(TOKENS), model(TOKENS), rtol=1e-5, atol=1e-5)
    assert [file.name for file in written.files] == ["lora_64.pth"]


def test_layers_that_upstream_would_leave_out_are_refused(tokenizer: Tokenizer, tmp_path: Path) -> None:
    adapted(tokenizer, tmp_path / "adapter")

    with pytest.raises(CheckpointError, match="_proj, which is not square"):
        export_upstream_lora(tmp_path / "lora", tmp_path / "adapter")
