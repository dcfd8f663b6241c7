"""Fine-tuning starts from a saved model and learns only what the assistant says."""

import json
from pathlib import Path

import torch

from minimind.checkpoint import load_model, save_checkpoint
from minimind.config import load
from minimind.model import ModelConfig, Transformer
from minimind.run import RunReader
from minimind.stages.sft import SftConfig, run
from minimind.tokenizer import Tokenizer


def test_an_answer_that_is_always_the_same_is_soon_expected(tmp_path: Path) -> None:
    rows = [
        {"messages": [{"role": "user", "content": f"Say {n}."}, {"role": "assistant", "content": "Yes."}]}
        for n in range(300)
    ]
    (tmp_path / "chats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tokenizer = Tokenizer.train([f"Say {n}. Yes." for n in range(300)], 296)
    torch.manual_seed(0)
    shape = ModelConfig(
        vocab_size=296,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        intermediate_size=32,
        max_position_embeddings=256,
    )
    save_checkpoint(tmp_path / "base", Transformer(shape), tokenizer)
    options = {
        "run": str(tmp_path / "run"),
        "model": str(tmp_path / "base"),
        "data.source": str(tmp_path / "chats.jsonl"),
        "data.context": "64",
        "train.batch_tokens": "512",
        "train.warmup_steps": "2",
        "train.steps": "20",
        "train.dtype": "float32",
    }
    run(load(SftConfig, None, options))
    losses = [row["valid_loss"] for row in RunReader(tmp_path / "run").metrics() if "valid_loss" in row]
    assert losses[-1] < 0.5 * losses[0]
    assert load_model(tmp_path / "run")[0].config == shape
