"""A continuation has the log-probability that the plainest loop finds, however requests are batched."""

import pytest
import torch

from minimind.errors import DataError
from minimind.evals import log_likelihood as module
from minimind.evals.log_likelihood import ScoreRequest, encode_request, log_likelihoods
from minimind.model import Transformer
from minimind.text.tokenizer import Tokenizer

Opinionated = tuple[Transformer, Tokenizer]


def one_by_one(model: Transformer, request: ScoreRequest) -> float:
    """Each id predicted from all before it, alone."""
    ids, total = list(request.context), 0.0
    for target in request.ids:
        total += model(torch.tensor([ids]))[0, -1].double().log_softmax(-1)[target].item()
        ids.append(target)
    return total


REQUESTS = [
    ScoreRequest((1,), (50, 60, 70)),
    ScoreRequest((1, 50, 60, 70, 80), (90,)),
    ScoreRequest((1, 50, 60, 70, 80), (91,)),
    ScoreRequest((1, 50, 60), (70, 80, 92)),
    ScoreRequest(tuple(range(40, 60)), (61, 62)),
]


def test_it_is_the_sum_over_the_continuation(opinionated: Opinionated, monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = opinionated
    expected = [one_by_one(model, request) for request in REQUESTS]
    found = log_likelihoods(model, REQUESTS)
    assert [score.nats for score in found] == pytest.approx(expected, abs=1e-5)
    assert [score.tokens for score in found] == [3, 1, 1, 3, 2]
    monkeypatch.setattr(module, "BATCH_TOKENS", 1)
    monkeypatch.setattr(module, "LOGIT_TOKENS", 2)
    assert [score.nats for score in log_likelihoods(model, REQUESTS)] == pytest.approx(expected, abs=1e-5)


def test_a_long_context_loses_its_beginning(opinionated: Opinionated) -> None:
    model, _ = opinionated
    context = tuple(int(index) for index in torch.randint(40, 300, (80,)))
    # 48 positions: 47 of the context, and the first of two ids.
    whole, cut = log_likelihoods(model, [ScoreRequest(context, (50, 60)), ScoreRequest(context[-47:], (50, 60))])
    assert whole.nats == cut.nats
    with pytest.raises(DataError, match="49 tokens; the model reads at most 48"):
        log_likelihoods(model, [ScoreRequest((1,), (50,) * 49)])


def test_a_text_and_its_continuation_are_encoded_as_one(opinionated: Opinionated) -> None:
    _, tokenizer = opinionated
    for context, continuation in (("the cat", " sat"), ("the cat ", "sat"), ("the", " mat.")):
        request = encode_request(tokenizer, context, continuation)
        assert list(request.context + request.ids) == tokenizer.encode(context + continuation)
        assert tokenizer.decode(request.context) == context.rstrip()


def test_without_a_context_bos_is_the_context(opinionated: Opinionated) -> None:
    _, tokenizer = opinionated
    assert encode_request(tokenizer, "", "the cat").context == (tokenizer.bos_id,)
    assert encode_request(tokenizer, " ", "the").context == (tokenizer.bos_id,)


def test_an_empty_continuation_is_an_error(opinionated: Opinionated) -> None:
    with pytest.raises(DataError, match="nothing to score after 'the cat'"):
        encode_request(opinionated[1], "the cat", "")
