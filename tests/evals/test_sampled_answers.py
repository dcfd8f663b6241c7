"""pass@k of answers that are drawn: the estimate, its noise, and that the seed alone decides what is drawn."""

from dataclasses import replace
from functools import partial

import pytest
from tests.evals.lessons import CALCULATOR

from minimind.errors import ConfigError, DataError
from minimind.evals.sampled_answers import OpenQuestion, SampledAnswers, sample_answers
from minimind.generation.sampling import Sampling
from minimind.model import Transformer
from minimind.text.conversation import Message
from minimind.text.tokenizer import Tokenizer

COOL = Sampling(temperature=0.2, max_tokens=64)
WILD = Sampling(temperature=3.0, top_p=1.0, max_tokens=12)


def question(text: str, expected: str, kind: str = "talk", with_tools: bool = False) -> OpenQuestion:
    tools = (CALCULATOR.schema,) if with_tools else ()
    return OpenQuestion((Message("user", text),), tools, expected, partial(str.__eq__, expected), kind=kind)


def test_pass_at_k_is_the_mean_over_questions_with_their_standard_error() -> None:
    found = SampledAnswers([question("x", "a"), question("y", "a", "rare")], [["a", "b"], ["b", "b"]], 2)
    assert found.pass_at(1).amounts == [0.5, 0] and found.pass_at(2).amounts == [1, 0]
    assert found.pass_at(2).value == 0.5 and found.pass_at(2).standard_error == pytest.approx(0.5)
    assert found.kinds == ["talk", "rare"] and found.pass_at(2, "rare").amounts == [0]


def test_more_answers_than_were_drawn_cannot_be_chosen() -> None:
    with pytest.raises(ConfigError, match="pass@4 cannot be estimated from 2 samples"):
        SampledAnswers([question("x", "a")], [["a", "b"]], 2).pass_at(4)


def test_what_a_model_has_learnt_is_drawn_nearly_always(taught: Transformer, tokenizer: Tokenizer) -> None:
    asked = [question("hi", "hello"), question("2+3", "2+3 = 5", with_tools=True), question("hi", "no such answer")]
    found = sample_answers(taught, tokenizer, asked, COOL, 4)
    assert [share > 0.5 for share in found.pass_at(1).amounts] == [True, True, False]


def test_the_seed_alone_decides_what_is_drawn(taught: Transformer, tokenizer: Tokenizer) -> None:
    asked = [question("hi", "hello"), question("think about it", "done")]
    first = sample_answers(taught, tokenizer, asked, WILD, 3)
    assert first.texts == sample_answers(taught, tokenizer, asked, WILD, 3, batch_size=1).texts
    assert first.texts != sample_answers(taught, tokenizer, asked, replace(WILD, seed=1), 3).texts
    assert len({text for texts in first.texts for text in texts}) == 6


def test_a_question_that_does_not_fit_is_counted_as_wrong(taught: Transformer, tokenizer: Tokenizer) -> None:
    asked = [question("hi " * 700, "hello"), question("hi", "hello")]
    found = sample_answers(taught, tokenizer, asked, COOL, 2)
    assert found.num_too_long == 1 and found.pass_at(2).amounts == [0, 1]


def test_no_questions_are_an_error(taught: Transformer, tokenizer: Tokenizer) -> None:
    with pytest.raises(DataError, match="no questions"):
        sample_answers(taught, tokenizer, [], COOL, 2)
