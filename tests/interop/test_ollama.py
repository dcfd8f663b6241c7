"""The Modelfile names its file and writes a conversation as this package does."""

import re

import pytest
from tests.interop.tiny_models import tiny_model

from minimind.interop.ollama import modelfile
from minimind.text.conversation import Message, render_prompt
from minimind.text.tokenizer import Tokenizer


def rendered(template: str, messages: list[Message], think: bool) -> str:
    """What Go's text/template makes of our Modelfile's few constructs."""
    template = re.sub(r"\s*\{\{- ", "{{ ", template)
    body, opening = template.removeprefix("{{ range .Messages }}").split("{{ end }}{{ end }}")
    answer, other = body.removeprefix('{{ if eq .Role "assistant" }}').split("{{ else }}")
    text = ""
    for message in messages:
        part = answer if message.role == "assistant" else other
        values = {"Role": message.role, "Content": message.content, "Thinking": message.reasoning_content or ""}
        text += re.sub(r"\{\{ \.(\w+) \}\}", lambda found, values=values: values[found[1]], part)
    return text + re.sub(
        r"\{\{ if not \$\.Think \}\}(.*)\{\{ end \}\}", "" if think else r"\1", opening, flags=re.DOTALL
    )


@pytest.mark.parametrize("think", [True, False])
def test_the_template_writes_the_prompt_that_this_package_writes(think: bool, tokenizer: Tokenizer) -> None:
    content = modelfile("tiny-F16.gguf", tiny_model(tokenizer).config, tokenizer)
    template = re.search(r'TEMPLATE """(.*)"""', content, re.DOTALL)[1]
    messages = [
        Message("system", "Be brief."),
        Message("user", "Hi\nthere"),
        Message("assistant", "Yes?", reasoning_content="They greet."),
        Message("user", "x"),
    ]

    expected = tokenizer.decode(render_prompt(messages, (), tokenizer, thinking=think))

    assert rendered(template, messages, think) == expected


def test_the_file_lies_beside_it_and_the_context_is_no_longer_than_the_models(tokenizer: Tokenizer) -> None:
    content = modelfile("tiny-F16.gguf", tiny_model(tokenizer).config, tokenizer)

    assert content.startswith("FROM ./tiny-F16.gguf\n") and "PARAMETER num_ctx 128\n" in content
    assert 'PARAMETER stop "<|im_end|>"' in content
