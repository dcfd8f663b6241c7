"""The sum is exact, however documents are batched, cut or padded."""

import math

import pytest
import torch
from tests.tiny import random_model

from minimind.errors import DataError
from minimind.evals import log_likelihood as module
from minimind.evals.bits_per_byte import bits_per_byte, cut_documents
from minimind.model import Transformer
from minimind.text.tokenizer import Tokenizer

TEXTS = ["the cat sat on the mat", "a dog", "春天来了，花开了。", "the dog and the cat " * 6, "x"]
ROWS = [{"text": text, "source": "zh" if "春" in text else "en"} for text in TEXTS]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(TEXTS, 310)


@pytest.fixture(scope="module")
def model(tokenizer: Tokenizer) -> Transformer:
    return random_model(vocab_size=tokenizer.vocab_size, max_position_embeddings=64)


def one_by_one(model: Transformer, ids: list[int]) -> float:
    """Nats of a document, by the plainest means."""
    log_probabilities = model(torch.tensor([ids[:-1]])).double().log_softmax(-1)
    return -sum(log_probabilities[0, at, index].item() for at, index in enumerate(ids[1:]))


def test_it_is_the_summed_loss_over_the_summed_bytes(model: Transformer, tokenizer: Tokenizer) -> None:
    ids = [[tokenizer.bos_id, *tokenizer.encode(text), tokenizer.eos_id] for text in TEXTS]
    nats, size = sum(one_by_one(model, row) for row in ids), sum(len(text.encode()) for text in TEXTS)
    found = bits_per_byte(model, tokenizer, ROWS, max_tokens=64)
    assert found.bits_per_byte == pytest.approx(nats / math.log(2) / size, rel=1e-6)
    assert found.loss == pytest.approx(nats / sum(len(row) - 1 for row in ids), rel=1e-6)
    assert (found.tokens, found.bytes) == (sum(len(row) - 1 for row in ids), size)
    assert found.measured.value == pytest.approx(found.bits_per_byte) and found.measured.sizes[0] == len(TEXTS[0])


def test_each_source_has_the_figure_of_its_own_documents(model: Transformer, tokenizer: Tokenizer) -> None:
    found = bits_per_byte(model, tokenizer, ROWS, max_tokens=64)
    for source in ("en", "zh"):
        alone = bits_per_byte(model, tokenizer, [row for row in ROWS if row["source"] == source], max_tokens=64)
        assert found.by_source[source] == pytest.approx(alone.bits_per_byte, rel=1e-6)


def test_batches_and_slices_do_not_change_the_result(
    model: Transformer, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = bits_per_byte(model, tokenizer, ROWS)
    monkeypatch.setattr(module, "BATCH_TOKENS", 1)
    monkeypatch.setattr(module, "LOGIT_TOKENS", 3)
    assert bits_per_byte(model, tokenizer, ROWS).bits_per_byte == pytest.approx(whole.bits_per_byte, rel=1e-6)


def test_a_cut_document_counts_the_bytes_of_the_tokens_that_are_kept(tokenizer: Tokenizer) -> None:
    (whole,) = cut_documents(tokenizer, ROWS[3:4], 1000)
    (cut,) = cut_documents(tokenizer, ROWS[3:4], 9)
    assert whole.data == TEXTS[3].encode() and whole.ids[-1] == tokenizer.eos_id
    assert cut.ids == whole.ids[:9]
    assert cut.data == tokenizer.decode_bytes(cut.ids[1:]) and whole.data.startswith(cut.data)


def test_a_document_longer_than_the_models_context_is_cut_to_it(model: Transformer, tokenizer: Tokenizer) -> None:
    found = bits_per_byte(model, tokenizer, [{"text": "the cat sat. " * 40}], max_tokens=1000)
    assert found.tokens == model.config.max_position_embeddings - 1


def test_a_model_that_knows_nothing_needs_the_bits_of_a_uniform_guess(tokenizer: Tokenizer, model: Transformer) -> None:
    blank = Transformer(model.config)
    torch.nn.init.zeros_(blank.embed_tokens.weight)
    found = bits_per_byte(blank, tokenizer, ROWS, max_tokens=64)
    assert found.loss == pytest.approx(math.log(tokenizer.vocab_size), rel=1e-6)


def test_no_text_is_an_error(model: Transformer, tokenizer: Tokenizer) -> None:
    with pytest.raises(DataError, match="no held-out text"):
        bits_per_byte(model, tokenizer, [{"text": ""}])
