"""Small templates with the habits of real ones, a tokenizer for each, and how learnt stretches are read back."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from minimind.text.foreign_template import ForeignTemplate
from minimind.text.tokenizer import Tokenizer

TURN = "{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
TEMPLATES = {
    "plain": (
        "{% for message in messages %}" + TURN + "{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    ),
    "trims": (
        "{{ bos_token }}{% for message in messages %}{% if message.role == 'user' %}"
        "{{ '[INST] ' + message.content.strip() + ' [/INST]' }}{% elif message.role == 'assistant' %}"
        "{{ ' ' + message.content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
    ),
    "drops thoughts": (
        "{% for message in messages %}{% if message.role == 'assistant' %}{{ '<|im_start|>assistant\\n' }}"
        "{% set content = message.content.split('</think>')[-1].lstrip() %}"
        "{% if loop.last %}{{ '<think>\\n' + message.reasoning_content | default('') + '\\n</think>\\n\\n' }}"
        "{% endif %}"
        "{{ content + '<|im_end|>\\n' }}{% else %}" + TURN + "{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}"
        "{% if enable_thinking is defined and not enable_thinking %}{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}"
        "{% endif %}"
    ),
    "opens thoughts": (
        "{% for message in messages %}" + TURN + "{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n<think>\\n' }}{% endif %}"
    ),
    "calls": (
        "{% if tools %}{{ 'tools: ' + tools | tojson + '\\n' }}{% endif %}{% for message in messages %}"
        "{{ '<|im_start|>' + message.role + '\\n' }}"
        "{{ (message.content | tojson) if message.role == 'tool' else message.content }}"
        "{% for call in message.tool_calls or [] %}"
        "{{ '<tool_call>' + call.function.name + ' ' + call.function.arguments | tojson + '</tool_call>' }}"
        "{% endfor %}{{ '<|im_end|>\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    ),
    "has no end": (
        "{% for message in messages %}{{ '<|' + message.role + '|>\\n' + message.content }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
    ),
    "reads commands": (
        "{% for message in messages %}{{ '<|im_start|>' + message.role + '\\n' }}"
        "{{ message.content.replace('/no_think', '').rstrip() + '<|im_end|>\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    ),
    "no system": (
        "{% for message in messages %}{% if message.role == 'system' %}"
        "{{ raise_exception('System role not supported') }}{% endif %}"
        + TURN
        + "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    ),
}
MORE_CONTROL = ("<s>", "</s>", "[INST]", "[/INST]", "<|user|>", "<|assistant|>", "<|system|>")


def made(name_or_text: str, control: Sequence[str] = MORE_CONTROL) -> Tokenizer:
    """A tokenizer with one of these templates, or another."""
    text = TEMPLATES.get(name_or_text, name_or_text)
    base = Tokenizer.train(["hello world, the quick fox answers 1 + 1 = 2"], 310)._vocabulary
    added = [name for name in control if name not in base.control]
    tokens = (*base.tokens, *added)
    ids = {name: len(base.tokens) + place for place, name in enumerate(added)}
    special = {"bos_token": "<s>", "eos_token": "</s>" if "eos_token" in text else "<|im_end|>"}
    return Tokenizer(
        replace(base, tokens=tokens, control={**base.control, **ids}),
        template=ForeignTemplate({"default": text}, special),
    )


def learnt(ids: Sequence[int], weights: Sequence[float], tokenizer: Tokenizer) -> list[str]:
    """The stretches that have weight, as text."""
    found: list[list[int]] = []
    for place, (index, weight) in enumerate(zip(ids, weights, strict=True)):
        if weight:
            if not place or not weights[place - 1]:
                found.append([])
            found[-1].append(index)
    return [tokenizer.decode(part) for part in found]


def user(content: str) -> dict[str, Any]:
    return {"role": "user", "content": content}


def answer(content: str, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **more}
