"""A model keeps its own chat template: it is found wherever a folder may have it, and written back byte for byte."""

import json
from pathlib import Path

import pytest
from tests.text.template_cases import TEMPLATES, made

from minimind.errors import ConfigError, TokenizerError
from minimind.text.chat_template import THINK_MARKS, chat_template
from minimind.text.foreign_template import ForeignTemplate, read_template
from minimind.text.tokenizer import Tokenizer

PLAIN = TEMPLATES["plain"]


def test_a_template_is_found_in_each_place_and_files_go_first(tmp_path: Path) -> None:
    named = [{"name": "default", "template": "a"}, {"name": "tool_use", "template": "b"}]
    assert read_template(tmp_path, {}) is None
    found = [read_template(tmp_path, {"chat_template": given}) for given in ("a", named, {"default": "a"})]
    assert [each and each.texts for each in found] == [
        {"default": "a"},
        {"default": "a", "tool_use": "b"},
        {"default": "a"},
    ]
    (tmp_path / "chat_template.jinja").write_bytes(b"c\r\n")
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "additional_chat_templates" / "rag.jinja").write_text("d")
    read = read_template(tmp_path, {"chat_template": named, "bos_token": {"content": "<s>"}, "eos_token": None})
    assert read == ForeignTemplate({"default": "c\r\n", "tool_use": "b", "rag": "d"}, {"bos_token": "<s>"})


def test_what_is_no_template_is_refused(tmp_path: Path) -> None:
    for given in (3, [3], [{"name": "../x", "template": "a"}], {"default": 3}):
        with pytest.raises(TokenizerError, match="chat_template"):
            read_template(tmp_path, {"chat_template": given})
    (tmp_path / "chat_template.jinja").write_bytes(b"\xff")
    with pytest.raises(TokenizerError, match="no UTF-8"):
        read_template(tmp_path, {})


def test_tools_choose_the_template_for_tools() -> None:
    template = ForeignTemplate({"default": "a", "tool_use": "b"})
    assert [template.text_for(tools) for tools in (None, [], [{}])] == ["a", "b", "b"]
    with pytest.raises(TokenizerError, match="none is called 'default'"):
        ForeignTemplate({"rag": "a"}).text_for(None)


def test_a_tokenizer_comes_back_with_its_template_and_ends(tmp_path: Path) -> None:
    made("trims").save(tmp_path)
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 8]}))
    tokenizer = Tokenizer.load(tmp_path)
    assert tokenizer.template is not None and tokenizer.template.texts == {"default": TEMPLATES["trims"]}
    assert (tmp_path / "chat_template.jinja").read_text() == TEMPLATES["trims"]
    assert tokenizer.more_ends == {tokenizer.tokens[2], tokenizer.tokens[8]} and 8 in tokenizer.end_ids


def test_our_own_template_is_no_foreign_one(tmp_path: Path) -> None:
    for control in ((), THINK_MARKS):
        (tmp_path / "chat_template.jinja").write_text(chat_template(control))
        assert read_template(tmp_path, {}) is None
    (tmp_path / "chat_template.jinja").write_text(chat_template() + " ")
    assert read_template(tmp_path, {}) is not None


def test_another_template_is_another_fingerprint() -> None:
    assert len({made(name).fingerprint for name in ("plain", "trims", "calls")}) == 3


def test_variables_are_set_if_the_template_reads_them_and_forge_nothing() -> None:
    template = ForeignTemplate({"default": "{{ effort }}{{ date }}{{ messages }}"})
    control = ("<|end|>", "[INST]")
    assert template.with_settings({"effort": "high"}, control).variables(None) == {"effort": "high"}
    for name, value in (("effrt", 1), ("messages", []), ("effort", "<|end|>"), ("effort", ["[INST]"]), ("effort", "<")):
        with pytest.raises(ConfigError, match=name):
            template.with_settings({name: value}, control)
