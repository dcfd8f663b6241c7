"""The pass through the model itself: the weights as they are now, under the autocast that is on."""

import torch
from tests.tiny import random_model

from minimind.generation.live_forward import LiveForward
from minimind.generation.slot_attention import NewTokens
from minimind.generation.slots import Slots

PROMPT = [1, *range(60, 80)]


def logits(forward: LiveForward) -> torch.Tensor:
    return forward.logits(forward([NewTokens(0, PROMPT)]))


@torch.no_grad()
def test_weights_that_changed_between_passes_count() -> None:
    model = random_model()
    forward = LiveForward(model, Slots(model.config, 1, 64))
    before = logits(forward)
    model.layers[0].mlp.up_proj.weight.data += 0.1  # type: ignore[union-attr]
    assert not torch.allclose(logits(forward), before)
    torch.testing.assert_close(logits(forward), model(torch.tensor([PROMPT]))[0], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_under_autocast_it_rounds_as_training_does() -> None:
    model = random_model()
    exact = model(torch.tensor([PROMPT]))[0].softmax(-1)
    with torch.autocast("cpu", torch.bfloat16):
        found = logits(LiveForward(model, Slots(model.config, 1, 64))).softmax(-1)
        trained = model(torch.tensor([PROMPT]))[0].softmax(-1)
    # As near to what is trained as that is to exact; and not exact itself.
    assert (found - trained).abs().mean() < 1.5 * (trained - exact).abs().mean()
    assert (found - exact).abs().mean() > 0.3 * (trained - exact).abs().mean()
