"""One answer however it is computed: with the cache or without, alone or in a batch, streamed or whole."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.tiny import EXPERTS, TOKENIZER, random_model

from minimind.errors import UserError
from minimind.generation.generate import TextStream, complete, generate, generate_ids, stream
from minimind.generation.sampling import Sampling, draw, penalise
from minimind.model import Transformer

PROMPTS = [[1, 50], [1, *range(60, 90)], [7], [1, 2, 3, 4, 5, 6, 7, 8, 9]]
GREEDY = Sampling(temperature=0, max_tokens=20)
WILD = Sampling(temperature=2.0, top_p=1.0, max_tokens=20)


MODEL = random_model(max_position_embeddings=64)
MIXTURE = random_model(max_position_embeddings=64, **EXPERTS)


class Scripted(Transformer):
    """A model that says one given id after another, whatever the prompt."""

    def __init__(self, script: list[int]) -> None:
        super().__init__(MODEL.config)
        self.script = script
        self.place = 0

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        scores = torch.zeros(len(states), MODEL.config.vocab_size)
        scores[:, self.script[self.place]] = 50.0
        self.place += 1
        return scores


@torch.no_grad()
def without_cache(model: Transformer, prompt: list[int], steps: int) -> tuple[list[int], list[float]]:
    """Greedy ids and their log-probabilities, the whole text anew for each."""
    ids, logprobs = list(prompt), []
    for _ in range(steps):
        scores = model(torch.tensor([ids]))[0, -1].log_softmax(-1)
        ids.append(int(scores.argmax()))
        logprobs.append(scores.max().item())
    return ids[len(prompt) :], logprobs


@pytest.mark.parametrize("model", [MODEL, MIXTURE], ids=["dense", "mixture"])
def test_the_cache_changes_nothing(model: Transformer) -> None:
    for prompt, found in zip(PROMPTS, generate_ids(model, PROMPTS, GREEDY), strict=True):
        ids, logprobs = without_cache(model, prompt, 20)
        assert found.ids == ids
        assert found.raw_logprobs == pytest.approx(logprobs, abs=1e-5)
        assert found.logprobs == [0.0] * 20


@pytest.mark.parametrize("sampling", [GREEDY, WILD, replace(WILD, repetition_penalty=1.5, top_k=40, min_p=0.001)])
def test_a_row_says_the_same_alone_and_in_a_batch(sampling: Sampling) -> None:
    stop_ids = range(0, MODEL.config.vocab_size, 20)  # Rows finish at different times, so the batch shrinks.
    together = generate_ids(MODEL, PROMPTS, sampling, stop_ids=stop_ids)
    for row, prompt in enumerate(PROMPTS):
        [alone] = generate_ids(MODEL, [prompt], sampling, stop_ids=stop_ids, streams=[row])
        assert (alone.ids, alone.finish_reason) == (together[row].ids, together[row].finish_reason)
        assert alone.logprobs == pytest.approx(together[row].logprobs, abs=1e-5)
    assert sampling.temperature == 0 or len({len(completion.ids) for completion in together}) > 1


def test_the_size_of_a_batch_changes_nothing() -> None:
    whole = complete(MODEL, TOKENIZER, PROMPTS, WILD)
    parts = complete(MODEL, TOKENIZER, PROMPTS, WILD, batch_size=3)
    assert [(c.ids, c.text) for c in parts] == [(c.ids, c.text) for c in whole]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("stop", [(), ("a", "好", "lo w")])
def test_streamed_is_whole(seed: int, stop: tuple[str, ...]) -> None:
    sampling = replace(WILD, seed=seed, stop=stop, max_tokens=60)
    prompt = [1, *TOKENIZER.encode("你好 hello")]
    [whole] = complete(MODEL, TOKENIZER, [prompt], sampling)
    pieces = list(stream(MODEL, TOKENIZER, prompt, sampling))
    assert "".join(pieces) == whole.text and "" not in pieces
    assert not any(text in whole.text for text in stop)
    if not stop:
        ids = [token for token in whole.ids if token not in TOKENIZER.end_ids]
        assert whole.text == TOKENIZER.decode(ids, skip_special=True)


def test_pieces_reach_the_caller_row_by_row() -> None:
    pieces: dict[int, str] = {row: "" for row in range(len(PROMPTS))}

    def on_text(row: int, piece: str) -> None:
        pieces[row] += piece

    completions = complete(MODEL, TOKENIZER, PROMPTS, WILD, on_text=on_text, batch_size=3)
    assert list(pieces.values()) == [completion.text for completion in completions]


def test_the_same_seed_gives_the_same_text_and_another_seed_another() -> None:
    texts = [generate(MODEL, TOKENIZER, "hello", seed=seed, temperature=1.0, max_tokens=30) for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_rows_with_the_same_prompt_differ() -> None:
    first, second = generate_ids(MODEL, [[1, 50]] * 2, WILD)
    assert first.ids != second.ids


def test_a_text_gives_a_text_and_a_list_gives_a_list() -> None:
    one = generate(MODEL, TOKENIZER, "hello", temperature=0, max_tokens=5)
    assert generate(MODEL, TOKENIZER, ["hello", "", "你"], temperature=0, max_tokens=5)[0] == one
    assert generate(MODEL, TOKENIZER, []) == []


@pytest.mark.parametrize("limit", [1, 7])
def test_exactly_max_tokens_are_drawn(limit: int) -> None:
    for completion in generate_ids(MODEL, PROMPTS, replace(GREEDY, max_tokens=limit)):
        assert len(completion.ids) == limit and completion.finish_reason == "length"


def test_generation_ends_with_the_context() -> None:
    completions = generate_ids(MODEL, [[1] * 63, [1] * 60], replace(GREEDY, max_tokens=100))
    assert [len(completion.ids) for completion in completions] == [1, 4]
    assert {completion.finish_reason for completion in completions} == {"length"}


def test_a_prompt_that_does_not_fit_is_refused_with_both_numbers() -> None:
    with pytest.raises(UserError, match="prompt 1 has 64 tokens and the context 64"):
        generate_ids(MODEL, [[1], [1] * 64])
    with pytest.raises(UserError, match="context 64"):
        stream(MODEL, TOKENIZER, "hello " * 100)


@pytest.mark.parametrize(("prompt", "message"), [([], "prompt 0 is empty"), ([1, 10**6], "ids outside"), ([-1], "ids")])
def test_a_prompt_that_is_no_prompt_is_refused(prompt: list[int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        generate_ids(MODEL, [prompt])


def test_a_stop_id_ends_a_row_and_is_kept_in_its_ids_but_not_in_its_text() -> None:
    script = [*TOKENIZER.encode("hello"), TOKENIZER.eos_id, 99]
    [found] = complete(Scripted(script), TOKENIZER, [[1]], GREEDY)
    assert (found.ids, found.text, found.finish_reason) == (script[:-1], "hello", "stop")


@pytest.mark.parametrize(
    ("text", "stop", "expected"),
    [
        ("hello world", ("o w",), "hell"),
        ("你好，世界。", ("，世",), "你好"),
        ("你好，世界。", ("，界", "。"), "你好，世界"),
        ("hello world", ("worlds",), "hello world"),
        ("aab", ("ab",), "a"),
    ],
)
def test_a_stop_string_is_found_across_tokens(text: str, stop: tuple[str, ...], expected: str) -> None:
    script = [*TOKENIZER.encode_bytes(text.encode()), TOKENIZER.eos_id]
    [found] = complete(Scripted(script), TOKENIZER, [[1]], replace(GREEDY, stop=stop))
    assert (found.text, found.finish_reason) == (expected, "stop")
    assert "".join(stream(Scripted(script), TOKENIZER, [1], replace(GREEDY, stop=stop))) == expected


@given(st.text("ab你", max_size=30), st.lists(st.text("ab你", min_size=1, max_size=4), max_size=3), st.booleans())
def test_no_part_of_a_stop_string_is_given_out_and_nothing_else_is_lost(
    text: str, stop: list[str], whole: bool
) -> None:
    ids = TOKENIZER.encode(text) if whole else [TOKENIZER.encode_bytes(bytes([byte]))[0] for byte in text.encode()]
    reader = TextStream(TOKENIZER, stop)
    pieces = []
    for token in ids:
        pieces.append(reader.push(token))
        if reader.is_stopped:
            break
    pieces.append(reader.finish())
    found = "".join(pieces)
    assert found == reader.text and not any(end in found for end in stop)
    assert text.startswith(found) and "\ufffd" not in found
    assert reader.is_stopped == any(end in text for end in stop)
    assert reader.is_stopped or found == text


def test_characters_are_never_broken() -> None:
    reader = TextStream(TOKENIZER)
    ids = [TOKENIZER.encode_bytes(bytes([byte]))[0] for byte in "é你😀".encode()]
    assert [reader.push(token) for token in ids] == ["", "é", "", "", "你", "", "", "", "😀"]
    assert reader.push(ids[0]) == "" and reader.finish() == "\ufffd"


def test_the_caller_can_end_a_row() -> None:
    seen: list[tuple[int, int]] = []

    def on_token(row: int, token: int) -> bool:
        seen.append((row, token))
        return row == 1

    completions = generate_ids(MODEL, PROMPTS[:2], replace(GREEDY, max_tokens=3), on_token=on_token)
    assert [completion.finish_reason for completion in completions] == ["length", "stop"]
    assert [token for row, token in seen if row == 0] == completions[0].ids
    assert len(completions[1].ids) == 1


def test_log_probabilities_are_those_of_the_distribution_sampled_from() -> None:
    sampling = Sampling(temperature=0.7, top_k=5, repetition_penalty=1.3, max_tokens=6)
    [found] = generate_ids(MODEL, [[1, 50]], sampling)
    ids = [1, 50]
    for token, logprob, raw in zip(found.ids, found.logprobs, found.raw_logprobs, strict=True):
        with torch.no_grad():
            scores = MODEL(torch.tensor([ids]))[:, -1]
        seen = torch.zeros_like(scores, dtype=torch.bool).index_fill_(1, torch.tensor(ids), True)
        filtered = penalise(scores, seen, 1.3)
        draws, logprobs = draw(filtered.expand(2000, -1), sampling, [n / 2000 for n in range(2000)])
        expected = dict(zip(draws.tolist(), logprobs.tolist(), strict=True))
        assert logprob == pytest.approx(expected[token], abs=1e-4)
        assert raw == pytest.approx(scores.log_softmax(-1)[0, token].item(), abs=1e-4)
        ids.append(token)


def test_a_repetition_penalty_counts_ids_and_spares_the_end_of_the_text() -> None:
    prompt, sampling = [1, TOKENIZER.eos_id, 60], Sampling(temperature=1.0, repetition_penalty=100, max_tokens=1)
    [found] = generate_ids(Scripted([60]), [prompt], sampling)
    assert found.ids != [60] and found.logprobs[0] < -1
    [found] = generate_ids(Scripted([TOKENIZER.eos_id]), [prompt], sampling, stop_ids=[TOKENIZER.eos_id])
    assert found.ids == [TOKENIZER.eos_id] and found.logprobs[0] > -0.1


def test_ids_that_the_tokenizer_lacks_are_never_drawn() -> None:
    sampling = Sampling(temperature=50.0, top_p=1.0, max_tokens=60)
    completions = complete(MODEL, TOKENIZER, [[1]] * 20, sampling, stop_ids=())
    assert max(max(completion.ids) for completion in completions) < TOKENIZER.vocab_size


def test_weights_that_are_not_numbers_are_reported() -> None:
    model = random_model()
    model.norm.weight.data.fill_(math.nan)
    for sampling in (GREEDY, WILD, Sampling()):
        with pytest.raises(UserError, match="scores for row 0 are not numbers"):
            generate_ids(model, [[1]], sampling)


def test_the_training_mode_is_as_before() -> None:
    model = random_model().train()
    generate_ids(model, [[1]], GREEDY)
    assert model.training
