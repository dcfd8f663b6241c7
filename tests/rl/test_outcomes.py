"""An outcome knows what the policy said and what came from elsewhere."""

import json

from minimind.data.prompts import Prompt
from minimind.rl.outcomes import Outcome, ToolResult
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
