"""A rollout's ids are the prompt's, the sampled ones untouched, and those of tool results; weights tell them apart."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimind.data.prompts import Prompt
from minimind.generation.completions import Completion
from minimind.generation.sampling import Sampling
from minimind.model import Transformer
from minimind.rl.backends import InProcess
from minimind.rl.environment import ToolEnvironment
from minimind.rl.sampler import RolloutSampler, stream_number
from minimind.text.conversation import Message, parse_ids, render_prompt, render_tool_results
from minimind.text.tokenizer import Tokenizer
from minimind.tools.builtin import TOOLS

CALCULATOR = TOOLS["calculate_math"]
ENVIRONMENT = ToolEnvironment({"calculate_math": CALCULATOR})
QUESTION = Prompt((Message("user", "add 12 and 345"),), (CALCULATOR.schema,), ("357",))
SAMPLING = Sampling(temperature=1.0, top_p=1.0, max_tokens=40)


@dataclass
class Script:
    """A backend that says given ids, one list per dialogue in each round."""

    rounds: list[list[list[int]]]
    asked: list[list[list[int]]] = field(default_factory=list)
    streams: list[int] = field(default_factory=list)

    def generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, streams: Sequence[int]
    ) -> list[Completion]:
        self.asked.append([list(prompt) for prompt in prompts])
        self.streams += streams
        said = self.rounds.pop(0)
        assert len(said) == len(prompts)
        return [Completion(ids, [-0.5] * len(ids), [], "stop" if ids[-1] in (0, 2) else "length") for ids in said]

    def refresh(self, step: int) -> None:
        """Nothing to do."""


def sampler(backend: Any, tokenizer: Tokenizer, **options: Any) -> RolloutSampler:
    settings = {"sampling": SAMPLING, "context": 2000, "environment": ENVIRONMENT, "max_turns": 3, **options}
    return RolloutSampler(backend=backend, tokenizer=tokenizer, **settings)


def spelled(text: str, tokenizer: Tokenizer) -> list[int]:
    """The ids of single characters: the same text, and not the ids that encoding it gives."""
    ids = [index for character in text for index in tokenizer.encode(character)]
    assert ids != tokenizer.encode(text) and tokenizer.decode(ids) == text
    return ids


def call(expression: str, tokenizer: Tokenizer) -> list[int]:
    body = f'\n{{"name": "calculate_math", "arguments": {{"expression": "{expression}"}}}}\n'
    tags = [tokenizer.control("<tool_call>"), tokenizer.control("</tool_call>")]
    return [tags[0], *spelled(body, tokenizer), tags[1], tokenizer.eos_id]


def result(text: str, tokenizer: Tokenizer) -> list[int]:
    return render_tool_results([Message("tool", text)], tokenizer)


def test_a_dialogue_with_tools_is_the_prompt_what_was_sampled_and_what_tools_said(tokenizer: Tokenizer) -> None:
    first, last = call("12 + 345", tokenizer), [*spelled("it is 357.", tokenizer), tokenizer.eos_id]
    backend = Script([[first], [last]])
    [rollout] = sampler(backend, tokenizer)([QUESTION], [4], 1)
    prompt = render_prompt(QUESTION.messages, QUESTION.tools, tokenizer)
    given_ids = result('{"result": 357}', tokenizer)
    assert list(rollout.ids) == [*prompt, *first, *given_ids, *last]
    assert list(rollout.weights) == [0] * len(prompt) + [1] * len(first) + [0] * len(given_ids) + [1] * len(last)
    assert [logprob for logprob in rollout.logprobs if logprob] == [-0.5] * rollout.num_sampled
    assert [logprob != 0 for logprob in rollout.logprobs] == [weight == 1 for weight in rollout.weights]
    assert backend.asked == [[prompt], [[*prompt, *first, *given_ids]]]
    outcome = rollout.outcome
    assert (outcome.answer.content, outcome.finish_reason) == ("it is 357.", "stop")
    assert [one.text for one in outcome.tool_results] == ['{"result": 357}']
    assert outcome.num_tokens == rollout.num_sampled == len(first) + len(last)


def test_what_was_sampled_is_never_encoded(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    """All ways to encode are watched: they see prompts and results of tools, and never a word of the policy."""
    said = [call("12 + 345", tokenizer), [*spelled("it is 357.", tokenizer), tokenizer.eos_id]]
    encoded: list[str] = []
    for name in ("encode", "encode_with_control", "encode_bytes", "encode_batch"):
        method = getattr(Tokenizer, name)
        monkeypatch.setattr(
            Tokenizer, name, lambda self, text, method=method: encoded.append(str(text)) or method(self, text)
        )
    [rollout] = sampler(Script([[ids] for ids in said]), tokenizer)([QUESTION], [0], 1)
    assert rollout.outcome.answer.content == "it is 357."
    assert not [text for text in encoded if "it is" in text or "12 + 345" in text]
    assert [text for text in encoded if "357" in text] == ['\n{"result": 357}\n']


def test_all_open_dialogues_go_on_in_one_batch(tokenizer: Tokenizer) -> None:
    done, more = [*tokenizer.encode("no"), 2], call("1 + 1", tokenizer)
    other = Prompt((Message("user", "say what"),), (CALCULATOR.schema,))
    backend = Script([[done, more, more, done], [done, more], [more]])
    rollouts = sampler(backend, tokenizer)([QUESTION, other], [8, 9], 2)
    assert [(rollout.place, rollout.member) for rollout in rollouts] == [(8, 0), (8, 1), (9, 0), (9, 1)]
    assert [len(asked) for asked in backend.asked] == [4, 2, 1]
    assert [len(rollout.outcome.said) for rollout in rollouts] == [1, 2, 3, 1]
    assert len(rollouts[2].outcome.tool_results) == 2, "calls of the last turn are not run"
    assert len(set(backend.streams)) == 7, "each answer of each dialogue has a random stream of its own"


@pytest.mark.parametrize("last", [0, 50])
def test_a_turn_that_was_not_closed_ends_the_dialogue_and_its_calls_are_not_run(
    tokenizer: Tokenizer, last: int
) -> None:
    cut = [*call("1 + 1", tokenizer)[:-1], last]
    [rollout] = sampler(Script([[cut]]), tokenizer)([QUESTION], [0], 1)
    assert rollout.outcome.finish_reason == "length" and not rollout.outcome.tool_results
    assert "endoftext" not in rollout.outcome.answer.content


def test_a_prompt_without_room_gets_no_answer_and_results_that_do_not_fit_end_the_dialogue(
    tokenizer: Tokenizer,
) -> None:
    size = len(render_prompt(QUESTION.messages, QUESTION.tools, tokenizer))
    [rollout] = sampler(Script([]), tokenizer, context=size)([QUESTION], [0], 1)
    assert rollout.num_sampled == 0 and rollout.outcome.finish_reason == "length" and len(rollout.ids) == size
    said = call("1 + 1", tokenizer)
    [rollout] = sampler(Script([[said]]), tokenizer, context=size + len(said) + 5)([QUESTION], [0], 1)
    assert list(rollout.ids[size:]) == said and rollout.outcome.finish_reason == "length"


def test_what_is_drawn_does_not_depend_on_what_is_drawn_beside_it(
    make_policy: Callable[..., Transformer], tokenizer: Tokenizer
) -> None:
    """So ranks and batches do not matter; another seed, place or member draws something else."""
    prompts = [Prompt((Message("user", text),)) for text in ("the cat", "sat on a mat", "今天")]
    take = sampler(InProcess(make_policy(), tokenizer), tokenizer, context=96)
    whole = take(prompts, [5, 6, 7], 2)
    assert [rollout.ids for rollout in take(prompts[1:2], [6], 2)] == [rollout.ids for rollout in whole[2:4]]
    assert len({rollout.ids[-8:] for rollout in whole}) == 6
    assert take(prompts[:1], [8], 1)[0].ids != whole[0].ids
    other = sampler(InProcess(make_policy(), tokenizer), tokenizer, context=96, seed=1)
    assert other(prompts[:1], [5], 1)[0].ids != whole[0].ids


@given(st.lists(st.tuples(*[st.integers(0, 10)] * 4), min_size=2, max_size=20, unique=True))
def test_streams_of_different_places_differ(places: list[tuple[int, ...]]) -> None:
    numbers = {stream_number(*place) for place in places}
    assert len(numbers) == len(places) and all(0 <= number < 2**62 for number in numbers)


def test_sampled_ids_read_back_as_the_conversation_they_are(tokenizer: Tokenizer) -> None:
    said = [call("12 + 345", tokenizer), [*spelled("it is 357.", tokenizer), tokenizer.eos_id]]
    [rollout] = sampler(Script([[ids] for ids in said]), tokenizer)([QUESTION], [0], 1)
    read = parse_ids([*rollout.ids, *tokenizer.encode("\n")], tokenizer)
    assert read.messages[0] == QUESTION.messages[0] and read.messages[1:] == rollout.outcome.messages


def test_without_an_environment_a_dialogue_ends_with_its_first_answer(tokenizer: Tokenizer) -> None:
    backend = Script([[call("1 + 1", tokenizer)]])
    [rollout] = sampler(backend, tokenizer, environment=None)([QUESTION], [0], 1)
    assert rollout.outcome.answer.tool_calls and not rollout.outcome.tool_results
    assert (rollout.outcome.finish_reason, len(rollout.outcome.messages)) == ("stop", 1)
