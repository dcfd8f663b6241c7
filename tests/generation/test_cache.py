"""Cache = no cache: one token at a time, in chunks, ragged and padded, for some rows; the logits are the same."""

from typing import Any

import pytest
import torch
from tests.tiny import EXPERTS, random_model, random_tokens
from torch import Tensor

from minimind.generation.cache import KeyValueCache
from minimind.model import Transformer, attend_to_earlier


def step(model: Transformer, cache: KeyValueCache, tokens: Tensor, counts: int | Tensor) -> Tensor:
    """Logits of the new tokens, which then count as seen."""
    logits = model.logits(model.hidden_states(tokens, cache=cache).states)
    cache.advance(counts)
    return logits


def assert_same(ours: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


@pytest.fixture(autouse=True)
def _no_gradients() -> Any:
    with torch.no_grad():
        yield


@pytest.mark.parametrize("changes", [{}, EXPERTS, {"attention_bias": True, "qk_norm": False}])
@pytest.mark.parametrize("chunks", [[1] * 12, [5, 7], [3, 1, 1, 6, 1]])
def test_tokens_given_in_chunks_have_the_logits_of_the_whole(changes: dict[str, Any], chunks: list[int]) -> None:
    model, tokens = random_model(**changes), random_tokens(3, 12)
    cache = KeyValueCache.allocate(model.config, batch=3, capacity=12)
    parts = [step(model, cache, part, part.shape[1]) for part in tokens.split(chunks, dim=1)]
    assert_same(torch.cat(parts, dim=1), model(tokens))
    assert cache.lengths.tolist() == [12, 12, 12]


def test_rows_of_different_length_are_each_what_they_are_alone() -> None:
    """Prompts padded on the right, then four more tokens, which overwrite the padding."""
    model, lengths = random_model(), torch.tensor([3, 7, 1, 5])
    tokens, more = random_tokens(4, 7), random_tokens(4, 11)[:, 7:]
    cache = KeyValueCache.allocate(model.config, batch=4, capacity=11)
    prompt_logits = step(model, cache, tokens, lengths)
    later = torch.cat([step(model, cache, more[:, t : t + 1], 1) for t in range(4)], dim=1)
    for row, length in enumerate(lengths.tolist()):
        alone = model(torch.cat([tokens[row, :length], more[row]])[None])[0]
        assert_same(prompt_logits[row, :length], alone[:length])
        assert_same(later[row], alone[length:])


def test_a_row_can_wait_while_others_go_on() -> None:
    model, tokens = random_model(), random_tokens(2, 6)
    cache = KeyValueCache.allocate(model.config, batch=2, capacity=8)
    step(model, cache, tokens[:, :4], 4)
    step(model, cache, tokens[:, 4:5], torch.tensor([1, 0]))
    last = step(model, cache, torch.stack([tokens[0, 5:6], tokens[1, 4:5]]), 1)
    assert_same(last[0, 0], model(tokens[:1])[0, 5])
    assert_same(last[1, 0], model(tokens[1:, :5])[0, 4])


def test_what_lies_beyond_a_rows_length_is_never_seen() -> None:
    model, tokens = random_model(), random_tokens(2, 6)
    cache = KeyValueCache.allocate(model.config, batch=2, capacity=16)
    step(model, cache, tokens[:, :5], torch.tensor([5, 3]))
    clean, spoilt = KeyValueCache(cache.keys.clone(), cache.values.clone(), cache.lengths), cache
    spoilt.keys[:, 1, 4:], spoilt.values[:, 1, 4:] = 1e4, 1e4
    assert torch.equal(step(model, clean, tokens[:, 5:], 1)[1], step(model, spoilt, tokens[:, 5:], 1)[1])


def test_a_cache_in_bfloat16_is_close() -> None:
    model, tokens = random_model(), random_tokens(2, 8)
    cache = KeyValueCache.allocate(model.config, batch=2, capacity=8, dtype=torch.bfloat16)
    step(model, cache, tokens[:, :7], 7)
    exact = model(tokens)[:, -1:]
    assert (step(model, cache, tokens[:, 7:], 1) - exact).std() < 0.02 * exact.std()


def test_a_full_cache_says_so() -> None:
    model = random_model()
    cache = KeyValueCache.allocate(model.config, batch=1, capacity=4)
    step(model, cache, random_tokens(1, 4), 4)
    with pytest.raises(AssertionError, match="cache holds 4 tokens, asked for 5"):
        step(model, cache, random_tokens(1, 1), 1)


def test_a_prompt_is_read_without_a_mask_which_would_grow_with_its_square(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor | None] = []

    def attend(q: Tensor, k: Tensor, v: Tensor, visible: Tensor | None = None) -> Tensor:
        seen.append(visible)
        return attend_to_earlier(q, k, v, visible)

    monkeypatch.setattr("minimind.generation.cache.attend_to_earlier", attend)
    model = random_model(num_hidden_layers=1)
    cache = KeyValueCache.allocate(model.config, batch=2, capacity=9)
    for part in random_tokens(2, 9).split([7, 2], dim=1):
        step(model, cache, part, part.shape[1])
    assert seen[0] is None and seen[1] is not None and seen[1].shape == (2, 1, 2, 9)
