"""An outcome knows what the policy said and what came from elsewhere; a score, whether it is a full mark."""

import json

from minimind.data.prompts import Prompt
from minimind.rl.rollouts import Outcome, Score, ToolResult
from minimind.text.conversation import Conversation, Message, ToolCall

CALL = ToolCall("f", {"x": 1})
RESULT = ToolResult(CALL, '{"result": 2}')
PROMPT = Prompt((Message("system", "Be brief."), Message("user", "f(1)?")), gt=("2",))
TURNS = (Message("assistant", "", "hm", (CALL,)), RESULT.message, Message("assistant", "2"))


def test_the_answer_is_the_last_thing_that_the_policy_said() -> None:
    outcome = Outcome(PROMPT, TURNS, "stop", 9, (RESULT,))

    assert outcome.answer == Message("assistant", "2")
    assert outcome.said == [TURNS[0], TURNS[2]]
    assert Outcome(PROMPT, TURNS[:2], "length", 9, (RESULT,)).answer == TURNS[0]
    assert Outcome(PROMPT, (), "length", 0).answer == Message("assistant")


def test_as_json_it_is_the_whole_conversation() -> None:
    value = json.loads(json.dumps(Outcome(PROMPT, TURNS, "stop", 9, (RESULT,)).to_dict()))

    assert Conversation.parse(value, "x").messages == (*PROMPT.messages, *TURNS)
    assert (value["answer"], value["gt"]) == ("2", ["2"])


def test_right_is_the_full_mark_of_the_first_reward_and_never_of_a_dropped_rollout() -> None:
    assert Score(0.3, {"number": 1.0, "length": -1.0}).is_right
    assert not Score(0.9, {"number": 0.9, "format": 1.0}).is_right
    assert not Score(float("nan"), {"number": 1.0}, "reward_raised").is_right
    assert not Score(float("nan"), {}, "reward_raised").is_right
