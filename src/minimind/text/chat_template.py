"""The chat format as text: fixed wording, and the Jinja template that travels with an exported model.

Inside this package prompts are built from ids by `conversation.py`, where text cannot forge a control token. Other
engines only know templates, so this one renders the same text; a test keeps the two equal. A model from elsewhere may
have no tokens for a think block or for tools: its template has no such block, and raises where `conversation.py` does.
"""

import hashlib
from collections.abc import Collection

__all__ = [
    "CALL_EXAMPLE",
    "CALL_MARKS",
    "THINK_MARKS",
    "TOOLS_CLOSE",
    "TOOLS_OPEN",
    "TOOL_MARKS",
    "chat_template",
    "is_ours",
    "marked_template",
]

# The control tokens that reasoning and tools are written with.
THINK_MARKS = ("<think>", "</think>")
CALL_MARKS = ("<tool_call>", "</tool_call>")
TOOL_MARKS = (*CALL_MARKS, "<tool_response>", "</tool_response>")

# The wording models of this family are trained on; a different one would be a different format.
TOOLS_OPEN = (
    "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
    "You are provided with function signatures within <tools></tools> XML tags:\n<tools>"
)
TOOLS_CLOSE = "\n</tools>\n\nFor each function call, return a json object with function name and arguments within "
CALL_EXAMPLE = '\n{"name": <function-name>, "arguments": <args-json-object>}\n'

_TEMPLATE = r"""
{#- One switch under two names; without it the think block stays empty. -#}
{%- set thinking = false -%}
{%- if enable_thinking is defined -%}
    {%- set thinking = enable_thinking -%}
{%- elif open_thinking is defined -%}
    {%- set thinking = open_thinking -%}
{%- endif -%}

{%- macro text_of(content) -%}
    {%- if content is string -%}
        {{- content -}}
    {%- elif content is iterable and content is not mapping -%}
        {%- for part in content -%}
            {%- if part.type == 'text' -%}
                {{- part.text -}}
            {%- else -%}
                {{- raise_exception('only text parts are supported') -}}
            {%- endif -%}
        {%- endfor -%}
    {%- endif -%}
{%- endmacro -%}

{%- macro answer_of(reasoning, content, tool_calls) -%}
    REASONING
    {{- content -}}
    {%- if tool_calls -%}
        {%- for tool_call in tool_calls -%}
            {%- if content or not loop.first -%}
                {{- '\n' -}}
            {%- endif -%}
            {%- set call = tool_call.function if tool_call.function else tool_call -%}
            {{- '<tool_call>\n{"name": ' + (call.name | tojson) + ', "arguments": ' -}}
            {%- if call.arguments is string and call.arguments.strip() not in ['', 'null'] -%}
                {{- call.arguments -}}
            {%- elif call.arguments is string or call.arguments is none or call.arguments is not defined -%}
                {{- '{}' -}}
            {%- else -%}
                {{- call.arguments | tojson -}}
            {%- endif -%}
            {{- '}\n</tool_call>' -}}
        {%- endfor -%}
    {%- endif -%}
    {{- '<|im_end|>' -}}
{%- endmacro -%}

{%- if tools -%}
    {{- '<|im_start|>system\n' -}}
    {%- if messages and messages[0].role in ['system', 'developer'] -%}
        {{- text_of(messages[0].content) + '\n\n' -}}
    {%- endif -%}
    {{- TOOLS_OPEN -}}
    {%- for tool in tools -%}
        {{- '\n' + (tool | tojson) -}}
    {%- endfor -%}
    {{- TOOLS_CLOSE + '<tool_call></tool_call> XML tags:\n<tool_call>' -}}
    {{- CALL_EXAMPLE + '</tool_call><|im_end|>\n' -}}
{%- endif -%}

{%- for message in messages -%}
    {%- if message.role in ['system', 'developer'] -%}
        {%- if not (tools and loop.first) -%}
            {{- '<|im_start|>system\n' + text_of(message.content) + '<|im_end|>\n' -}}
        {%- endif -%}
    {%- elif message.role == 'user' -%}
        {{- '<|im_start|>user\n' + text_of(message.content) + '<|im_end|>\n' -}}
    {%- elif message.role == 'tool' -%}
        {%- if loop.first or messages[loop.index0 - 1].role != 'tool' -%}
            {{- '<|im_start|>user' -}}
        {%- endif -%}
        {{- '\n<tool_response>\n' -}}
        {%- if message.content is mapping -%}
            {{- message.content | tojson -}}
        {%- else -%}
            {{- text_of(message.content) -}}
        {%- endif -%}
        {{- '\n</tool_response>' -}}
        {%- if loop.last or messages[loop.index0 + 1].role != 'tool' -%}
            {{- '<|im_end|>\n' -}}
        {%- endif -%}
    {%- elif message.role == 'assistant' -%}
        {%- set content = text_of(message.content) -%}
        {%- set reasoning = '' -%}
        {%- if message.reasoning_content is string -%}
            {%- set reasoning = message.reasoning_content -%}
        {%- elif message.reasoning is string -%}
            {%- set reasoning = message.reasoning -%}
        {%- elif '</think>' in content -%}
            {%- set halves = content.split('</think>') -%}
            {%- set before = halves[0] -%}
            {%- set is_quoted = before.endswith(' ') or before.endswith('`') -%}
            {%- set is_quoted = is_quoted or before.endswith('"') or before.endswith("'") -%}
            {%- if before.strip().startswith('<think>') -%}
                {%- set reasoning = before.split('<think>')[1:] | join('<think>') -%}
                {%- set content = halves[1:] | join('</think>') -%}
            {%- elif '<think>' not in before and (not is_quoted or halves[1].startswith('\n')) -%}
                {%- set reasoning = before -%}
                {%- set content = halves[1:] | join('</think>') -%}
            {%- endif -%}
        {%- endif -%}
        {%- set reasoning = reasoning.strip('\n') -%}
        {%- set content = content.lstrip('\n') -%}
        ANSWER
        SAID
        {{- '\n' -}}
    {%- else -%}
        {{- raise_exception('unknown role ' + message.role) -}}
    {%- endif -%}
{%- endfor -%}

{%- if add_generation_prompt -%}
    OPENING
{%- endif -%}
"""

_ANSWER = r"""{{- '<|im_start|>assistant\n<think>\n' -}}
        {%- if not reasoning -%}
            {{- '\n</think>\n\n' -}}
        {%- endif -%}"""
_REASONING = r"""{%- if reasoning -%}
        {{- reasoning + '\n</think>\n\n' -}}
    {%- endif -%}"""
_OPENING = r"""{{- '<|im_start|>assistant\n<think>\n' -}}
    {%- if not thinking -%}
        {{- '\n</think>\n\n' -}}
    {%- endif -%}"""

# Both in a vocabulary without think tokens.
_PLAIN_ANSWER = r"""{%- if reasoning -%}
            {{- raise_exception('the vocabulary has no think tokens, leave reasoning out') -}}
        {%- endif -%}
        {{- '<|im_start|>assistant\n' -}}"""
_PLAIN_OPENING = r"""{%- if thinking -%}
        {{- raise_exception('the vocabulary has no think tokens, leave reasoning out') -}}
    {%- endif -%}
    {{- '<|im_start|>assistant\n' -}}"""

_SAID = "{{- answer_of(reasoning, content, message.tool_calls) -}}"
# The tag is transformers' own, and marks what an assistant's tokens are; text-generation-inference takes it out where
# it has no dashes.
_MARKED = (
    "{%- if message.weight == 0 -%}\n            "
    + _SAID
    + "\n        {%- else -%}{% generation %}"
    + _SAID
    + "{% endgeneration %}{%- endif -%}"
)

# Goes first in a vocabulary without tokens for tools.
_NO_TOOLS = r"""
{%- if tools -%}
    {{- raise_exception('the vocabulary has no tool tokens, leave tools out') -}}
{%- endif -%}
{%- for message in messages if message.role == 'tool' or message.tool_calls -%}
    {{- raise_exception('the vocabulary has no tool tokens, leave tools out') -}}
{%- endfor -%}
"""


# Of the templates that earlier versions wrote into model folders.
_EARLIER = frozenset(
    (
        "e6430fe89d53311557a5535d03425ace11d382f49e350fc82f804d2bebda5370",
        "13716f0330645e83515655d5d3dbc1803aea674b6c16617c0c6caf8886fa5164",
        "8b83e27d16de81caa8b19dfc9c6395a2885cb3ba7d1632276095540f27394161",
        "672d72ad1cdd9b181c01c4711a457c2f300387ce137260f3933deaccb4ddcad5",
    )
)


def chat_template(control: Collection[str] = (*THINK_MARKS, *TOOL_MARKS)) -> str:
    """The Jinja template for any engine; it takes messages, tools and `enable_thinking`.

    control:  the names of the vocabulary's control tokens
    """
    return _template(control, _SAID)


def marked_template(control: Collection[str] = (*THINK_MARKS, *TOOL_MARKS)) -> str:
    """The same with `{% generation %}` around what weighs, for `chat_template.jinja`, which transformers reads.

    Errors:  Jinja without transformers' extension refuses the tag
    """
    return _template(control, _MARKED)


def _template(control: Collection[str], said: str) -> str:
    thinks, has_tools = set(THINK_MARKS) <= set(control), set(TOOL_MARKS) <= set(control)
    template = (_TEMPLATE if has_tools else _NO_TOOLS + _TEMPLATE).strip()
    template = template.replace("ANSWER", _ANSWER if thinks else _PLAIN_ANSWER).replace("SAID", said)
    template = template.replace("    REASONING\n", f"    {_REASONING}\n" if thinks else "")
    template = template.replace("OPENING", _OPENING if thinks else _PLAIN_OPENING)
    for name, words in (("TOOLS_OPEN", TOOLS_OPEN), ("TOOLS_CLOSE", TOOLS_CLOSE), ("CALL_EXAMPLE", CALL_EXAMPLE)):
        template = template.replace(name, "'" + words.replace("\n", "\\n") + "'")
    return template


def is_ours(template: str) -> bool:
    """Did this program write it, for a model of its own format? Then `conversation.py` knows it better."""
    kinds = ((), THINK_MARKS, TOOL_MARKS, (*THINK_MARKS, *TOOL_MARKS))
    written = {make(kind) for make in (chat_template, marked_template) for kind in kinds}
    return template in written or hashlib.sha256(template.encode()).hexdigest() in _EARLIER
