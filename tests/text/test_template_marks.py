"""Marks stand for what people said, and for nothing else."""

import json

from minimind.text.template_marks import Marks, Place, mark_inputs

PLACE = Place(0, "content")


def unmarked(text: str, marks: Marks) -> str:
    return marks.pattern.sub(lambda found: marks.said[int(found.group(1))].text, text)


def test_white_space_stays_outside_and_kept_words_stay() -> None:
    marks = Marks("")
    text = "  <think>\n a \n</think> b\t"
    marked = marks.mark(text, PLACE, ("<think>", "</think>"))
    assert marks.pattern.sub("M", marked) == "  <think>\n M \n</think> M\t"
    assert unmarked(marked, marks) == text
    assert [(said.text, said.before, said.after) for said in marks.said] == [
        ("a", "  <think>\n ", " \n</think> "),
        ("b", " \n</think> ", "\t"),
    ]


def test_a_text_of_kept_words_alone_is_marked_whole() -> None:
    marks = Marks("")
    assert marks.pattern.fullmatch(marks.mark("</think>", PLACE, ("</think>",)))
    assert marks.mark(" \n", PLACE) == " \n"


def test_no_mark_is_a_word_that_is_there_already() -> None:
    marks = Marks("Zq0z000000X Zq1z")
    assert not marks.pattern.search("Zq0z000000X Zq1z000000X")


def test_keys_of_objects_keep_their_order() -> None:
    marks = Marks("")
    value = {"b": 1, "A": {"c": ["x", None]}, "aa": "y"}
    marked = marks.mark_values(value, PLACE)
    assert sorted(map(str.lower, value)) == [unmarked(key, marks).lower() for key in sorted(marked)]
    assert json.loads(unmarked(json.dumps(marked), marks)) == value


def test_roles_ids_and_words_of_schemas_stay_and_all_else_is_marked() -> None:
    tool = {
        "type": "function",
        "function": {
            "name": "f",
            "description": "d",
            "parameters": {
                "type": "object",
                "properties": {"type": {"type": "string", "enum": ["e"], "<|im_end|>": 1}},
                "required": ["type"],
            },
        },
    }
    call = {"id": "call00000", "type": "function", "function": {"name": "f", "arguments": {"k": "v"}}}
    messages = [
        {"role": "assistant", "content": [{"type": "text", "text": "p"}], "reasoning": "r", "tool_calls": [call]},
        {"role": "tool", "content": "t", "tool_call_id": "call00000", "name": "f"},
    ]
    marks = Marks("")
    marked = mark_inputs({"messages": messages, "tools": [tool], "enable_thinking": True}, marks, ())
    text = marks.pattern.sub("M", json.dumps(marked))
    function = json.loads(text)["tools"][0]["function"]
    parameters = {"type": "object", "properties": {"M": {"type": "string", "enum": ["M"], "M": 1}}, "required": ["M"]}
    assert function == {"name": "M", "description": "M", "parameters": parameters}
    assert json.loads(text)["messages"] == [
        {
            "role": "assistant",
            "content": [{"type": "text", "text": "M"}],
            "reasoning": "M",
            "thinking": "M",
            "reasoning_content": "M",
            "tool_calls": [call | {"function": {"name": "M", "arguments": {"M": "M"}}}],
        },
        {"role": "tool", "content": "M", "tool_call_id": "call00000", "name": "M"},
    ]
    [required] = marked["tools"][0]["function"]["parameters"]["required"]
    assert required in marked["tools"][0]["function"]["parameters"]["properties"]
