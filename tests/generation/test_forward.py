"""One pass over the tokens of many requests gives what the model gives for each of them alone."""

from typing import Any

import pytest
import torch
from tests.tiny import random_model

from minimind.generation.forward import Forward
from minimind.generation.live_forward import LiveForward
from minimind.generation.slot_attention import NewTokens
from minimind.generation.slots import Slots
from minimind.lora import LoraConfig, add_lora

EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
YARN = {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}}
LLAMA = {"qk_norm": False, "attention_bias": True, "tie_word_embeddings": False}
LLAMA_3 = {
    "qk_norm": False,
    "attention_bias": True,
    "output_bias": True,
    "rope_scaling": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    },
}


@torch.no_grad()
@pytest.mark.parametrize(
    "changes", [{}, EXPERTS, YARN, LLAMA, LLAMA_3], ids=["dense", "experts", "yarn", "llama", "llama 3"]
)
@pytest.mark.parametrize("make", [Forward, LiveForward])
def test_mixed_passes_have_the_logits_of_whole_texts(
    changes: dict[str, Any], make: type[Forward] | type[LiveForward]
) -> None:
    """Slots 0, 1 and 4 answer, with lengths far apart; slots 2 and 3 are read in pieces meanwhile."""
    model = random_model(**changes)
    slots = Slots(model.config, 5, 256)
    forward = make(model, slots)
    sizes = {0: 250, 1: 9, 4: 20, 2: 30, 3: 12}
    generator = torch.Generator().manual_seed(1)
    texts = {slot: torch.randint(0, 300, (size,), generator=generator).tolist() for slot, size in sizes.items()}
    found: dict[int, list[torch.Tensor]] = {slot: [] for slot in sizes}

    def run(*chunks: NewTokens) -> None:
        states = forward(chunks).split([len(chunk.ids) for chunk in chunks])
        for chunk, part in zip(chunks, states, strict=True):
            found[chunk.slot].append(forward.logits(part))
            slots.append(chunk.slot, list(chunk.ids))

    run(NewTokens(1, texts[1][:5]), NewTokens(0, texts[0][:246]), NewTokens(4, texts[4][:16]))
    for step in range(4):
        ones = [NewTokens(slot, texts[slot][sizes[slot] - 4 + step :][:1]) for slot in (0, 1, 4)]
        run(*ones, NewTokens(3, texts[3][3 * step : 3 * step + 3]), NewTokens(2, texts[2][7 * step : 7 * step + 7]))
    run(NewTokens(2, texts[2][28:]))

    for slot, text in texts.items():
        expected = model(torch.tensor([text]))[0]
        torch.testing.assert_close(torch.cat(found[slot]), expected, atol=2e-5, rtol=1e-5)


@torch.no_grad()
def test_an_adapter_beside_the_layers_counts() -> None:
    model, prompt = random_model(), [1, *range(60, 80)]
    add_lora(model, LoraConfig(rank=2), seed=0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.normal_(std=0.3, generator=torch.Generator().manual_seed(len(name)))
    forward = Forward(model, Slots(model.config, 1, 64))
    found = forward.logits(forward([NewTokens(0, prompt)]))
    torch.testing.assert_close(found, model(torch.tensor([prompt]))[0], atol=1e-4, rtol=1e-4)
