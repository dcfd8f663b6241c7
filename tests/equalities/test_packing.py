"""Packed = separate: a document in a row with others is computed as if it were alone."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.tiny import EXPERTS, SHAPE, random_model, random_tokens
from torch import Tensor

from minimind.model import Transformer

ROWS, TIME = 2, 24


MODELS = {"dense": random_model(), "mixture": random_model(**EXPERTS)}
TOKENS = random_tokens(ROWS, TIME)


@st.composite
def lengths_of_rows(draw: st.DrawFn) -> tuple[int, ...]:
    """Documents that fill two rows, cut anywhere."""
    lengths: list[int] = []
    for _ in range(ROWS):
        cuts = sorted(draw(st.sets(st.integers(1, TIME - 1), max_size=6)))
        lengths += [end - start for start, end in zip([0, *cuts], [*cuts, TIME], strict=True)]
    return tuple(lengths)


@torch.no_grad()
def packed_logits(model: Transformer, tokens: Tensor, lengths: tuple[int, ...]) -> tuple[Tensor, ...]:
    """The logits of each document, computed in rows with the others."""
    logits = model.logits(model.hidden_states(tokens, lengths).states)
    return logits.flatten(0, 1).split(lengths)


@pytest.mark.parametrize("kind", MODELS)
@given(lengths=lengths_of_rows())
def test_packed_documents_have_the_logits_they_have_alone(kind: str, lengths: tuple[int, ...]) -> None:
    documents = TOKENS.flatten().split(lengths)
    for document, together in zip(documents, packed_logits(MODELS[kind], TOKENS, lengths), strict=True):
        alone = MODELS[kind](document[None])[0].detach()
        torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", MODELS)
def test_one_document_a_row_needs_no_lengths(kind: str) -> None:
    told = torch.stack(packed_logits(MODELS[kind], TOKENS, (TIME, TIME)))
    torch.testing.assert_close(told, MODELS[kind](TOKENS).detach(), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@given(lengths=lengths_of_rows(), data=st.data())
def test_changing_one_document_changes_no_bit_of_another(
    dtype: torch.dtype, lengths: tuple[int, ...], data: st.DataObject
) -> None:
    changed = data.draw(st.integers(0, len(lengths) - 1))
    tokens = TOKENS.clone()
    tokens.flatten().split(lengths)[changed].add_(1).remainder_(SHAPE.vocab_size)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        before = packed_logits(MODELS["dense"], TOKENS, lengths)
        after = packed_logits(MODELS["dense"], tokens, lengths)
    same = [torch.equal(one, other) for one, other in zip(before, after, strict=True)]
    assert same == [number != changed for number in range(len(lengths))]


@given(lengths=lengths_of_rows())
def test_in_a_mixture_another_document_moves_logits_by_rounding_alone(lengths: tuple[int, ...]) -> None:
    """How many tokens an expert gets decides the shape of its product, and so the order of its sums."""
    tokens = TOKENS.clone()
    tokens.flatten()[: lengths[0]].add_(1).remainder_(SHAPE.vocab_size)
    before = packed_logits(MODELS["mixture"], TOKENS, lengths)
    after = packed_logits(MODELS["mixture"], tokens, lengths)
    for one, other in zip(before[1:], after[1:], strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", MODELS)
def test_the_loss_of_one_document_sends_no_gradient_into_another(kind: str) -> None:
    model, lengths = MODELS[kind], (5, 19, 10, 14)
    tokens = torch.arange(ROWS * TIME).view(ROWS, TIME)
    states = model.hidden_states(tokens, lengths).states.flatten(0, 1)
    loss = (states[24:34] @ model.output_weight.detach().T).logsumexp(-1).sum()
    (gradient,) = torch.autograd.grad(loss, model.embed_tokens.weight)
    touched = gradient.abs().sum(-1).nonzero().flatten().tolist()
    assert touched == list(range(24, 34))


def test_a_row_taken_for_one_document_would_be_noticed() -> None:
    """These tests can fail: without boundaries the second document's logits differ widely."""
    together = MODELS["dense"](TOKENS)[0, 10:]
    alone = MODELS["dense"](TOKENS[:1, 10:])[0]
    assert (together - alone).abs().max() > 0.1
