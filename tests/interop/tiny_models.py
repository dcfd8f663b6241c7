"""Models of some thousand parameters in each shape that can be exported."""

from typing import Any

import torch

from minimind.model import ModelConfig, Transformer
from minimind.text.tokenizer import Tokenizer

# transformers reads no width of heads and experts from a GGUF file, and takes Qwen3's 128 and 768.
SHAPES: dict[str, dict[str, Any]] = {
    "llama": {"head_dim": 16, "qk_norm": False, "tie_word_embeddings": False},
    "qwen2": {"head_dim": 16, "qk_norm": False, "attention_bias": True},
    "qwen3": {"head_dim": 128},
    "qwen3moe": {
        "head_dim": 128,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 768,
        "norm_topk_prob": True,
    },
}


def tiny_model(tokenizer: Tokenizer, architecture: str = "qwen3", **changes: Any) -> Transformer:
    """Weights are drawn wide, so that each has a say in the logits."""
    torch.manual_seed(0)
    shape = {
        "vocab_size": tokenizer.vocab_size,
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 96,
        "max_position_embeddings": 128,
        "rope_theta": 1e5,
        "rms_norm_eps": 1e-5,
    }
    model = Transformer(ModelConfig(**(shape | SHAPES[architecture] | changes))).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(1.0 if "norm" in name else 0.0, 0.2)
    return model


def trained_model(tokenizer: Tokenizer, texts: list[str], architecture: str = "qwen3", steps: int = 60) -> Transformer:
    """A model that has learnt something, so that its greedy text does not hang on the last bit of a logit."""
    model = tiny_model(tokenizer, architecture)
    model.initialise()
    documents = [[tokenizer.bos_id, *tokenizer.encode(text), tokenizer.eos_id] for text in texts]
    ids = torch.tensor([index for document in documents for index in document])
    rows = ids[: len(ids) // 64 * 64].view(-1, 64)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(steps):
        batch = rows[torch.arange(step * 8, step * 8 + 8) % len(rows)]
        loss = torch.nn.functional.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()
