"""The probe takes real steps, and counts what they keep as torch itself does."""

import torch

from minimind.model import ModelConfig, Transformer
from minimind.stages.plan.planned import RandomDocuments
from minimind.stages.plan.probe import probe
from minimind.stages.shared.rows import packed_source
from minimind.training.optimizer import make_optimizers
from minimind.training.room import state_sizes
from minimind.training.settings import TrainConfig

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8}
SETTINGS = TrainConfig(dtype="float32", device="cpu", compile="off", batch_tokens=128, accumulate=2)


def make_model() -> Transformer:
    torch.manual_seed(0)
    return Transformer(ModelConfig(vocab_size=300, intermediate_size=24, **SIZES))


def test_steps_are_timed_and_activations_grow_with_the_depth() -> None:
    documents = RandomDocuments(8, 32, 300)
    found = []
    for layers in (2, 4):
        model = Transformer(ModelConfig(vocab_size=300, intermediate_size=24, **SIZES | {"num_hidden_layers": layers}))
        source = packed_source(documents, 32, SETTINGS.batch_tokens)
        found.append(probe(model, source, None, lambda: None, SETTINGS, total_steps=50, seconds=0))
    assert all(one.num_steps == 3 and one.step_seconds > 0 and one.seconds_per_byte > 0 for one in found)
    per_layer = (found[1].activation_bytes - found[0].activation_bytes) / 2
    # Each block keeps its stream, normalised copies, heads and the four parts of the feed-forward: about 12 widths.
    width = 4 * (6 * 16 + 4 * 2 * 8 + 4 * 8 + 4 * 24)
    assert 0.5 * width < per_layer < 2.5 * width


def test_muon_keeps_one_number_and_adamw_two() -> None:
    model = make_model()
    rates = {"muon_lr": 0.1, "lr": 0.1, "embedding_lr": 0.1, "weight_decay": 0.0, "betas": (0.9, 0.95)}
    total = sum(parameter.numel() for parameter in model.parameters())
    trained, state, largest = state_sizes(model, make_optimizers(model, name="adamw", **rates))
    assert (trained, state, largest) == (total, 2 * total, 0)
    optimizers = make_optimizers(model, name="muon", **rates)
    _, state, largest = state_sizes(model, optimizers)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizers.step()
    kept = [value for part in optimizers.parts.values() for one in part.state.values() for value in one.values()]
    assert state == sum(value.numel() for value in kept if value.ndim)
    # The gates and the up projections of both blocks have one shape, and so are updated together.
    assert largest == 4 * 16 * 24


def test_a_step_is_timed_by_a_piece_of_it_and_takes_as_many_as_it_has() -> None:
    """A step of 32,768 tokens of a real model takes a minute on two cores, and a plan must not."""
    documents, seen = RandomDocuments(64, 32, 300), []
    model = Transformer(ModelConfig(vocab_size=300, intermediate_size=24, **SIZES))
    model.layers[0].register_forward_pre_hook(lambda block, inputs: seen.append(inputs[0].shape[:-1].numel()))
    settings = SETTINGS.model_copy(update={"batch_tokens": 64 * 32, "accumulate": 1})
    found = probe(model, packed_source(documents, 32, 64 * 32), None, lambda: None, settings, total_steps=9, seconds=0)
    assert set(seen) == {1024} and found.num_steps == 3
