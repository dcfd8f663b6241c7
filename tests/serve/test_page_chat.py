"""A conversation in a real browser: it streams, stops, is asked anew, is kept; tools run only with consent."""

import json
import re
from pathlib import Path
from typing import Any

from playwright.sync_api import expect
from tests.serve.browser import Site, Visit

from minimind.text.conversation import Conversation

CALL = '<tool_call>\n{"name": "calculate_math", "arguments": {"expression": "6 * 7"}}\n</tool_call>'


def offer(visit: Visit, tool: str = "calculate_math") -> None:
    visit.tab.get_by_role("button", name="Tools", exact=True).click()
    visit.tab.get_by_role("checkbox", name=tool).check()
    visit.tab.get_by_role("button", name="Close").click()


def test_an_answer_streams(site: Site, visit: Visit) -> None:
    site.server.say("hello there, hello world", pause=0.06)
    visit.ask("hi")
    body = visit.tab.locator(".assistant > .body")
    expect(body).to_have_text(re.compile("^hello"))
    assert body.inner_text() != "hello there, hello world"
    expect(visit.tab.get_by_role("button", name="Stop")).to_be_visible()
    assert visit.answers() == ["hello there, hello world"]
    expect(visit.tab.locator("[aria-live]").first).to_contain_text("Answer complete. hello there")


def test_who_asks_before_the_models_are_known_waits_for_them(site: Site, visit: Visit) -> None:
    held: list[Any] = []
    visit.tab.route("**/v1/models", lambda route: held.append(route))
    visit.tab.reload()
    site.server.say("here I am")
    visit.ask("hi")
    visit.tab.wait_for_timeout(200)
    assert visit.posted("/v1/chat/completions") == []
    held[0].continue_()
    assert visit.answers() == ["here I am"]
    assert visit.posted("/v1/chat/completions")[0]["model"] == "scripted"


def test_what_is_selected_or_unfolded_stays_so_while_an_answer_comes(site: Site, visit: Visit) -> None:
    visit.tab.get_by_role("button", name="Think", exact=True).click()
    site.server.say("reasons " * 6 + "</think>hello there " + "world " * 8, pause=0.06)
    visit.ask("hi")
    visit.tab.locator(".assistant summary").click()
    select = "node => getSelection().setBaseAndExtent(node, 0, node, 5)"
    selected = "getSelection().toString()"
    thought, body = visit.tab.locator(".assistant .thinking > .text"), visit.tab.locator(".assistant > .body")
    expect(thought).to_have_text(re.compile("^reasons"))
    thought.evaluate(f"node => ({select})(node.firstChild)")
    expect(thought).to_have_text(re.compile("reasons reasons reasons"))
    assert visit.tab.evaluate(selected) == "reaso"
    expect(body).to_have_text(re.compile("^hello there"))
    body.evaluate(f"node => ({select})(node.firstChild.firstChild)")
    expect(body).to_have_text(re.compile("world world"))
    assert visit.tab.evaluate(selected) == "hello"
    visit.wait_idle()
    assert visit.tab.evaluate(selected) == "hello"
    expect(thought).to_be_visible()


def test_a_token_that_is_looked_at_stays_so_while_more_come(site: Site, visit: Visit) -> None:
    visit.tab.get_by_role("button", name="Tokens", exact=True).click()
    site.server.say("hello " * 10, pause=0.06)
    visit.ask("hi")
    visit.tab.locator(".token").first.focus()
    expect(visit.tab.locator(".token").nth(9)).to_be_visible()
    expect(visit.tab.locator(".token").first).to_be_focused()
    visit.wait_idle()
    expect(visit.tab.locator(".tip tr.chosen")).to_be_visible()


def test_text_is_laid_out_from_its_own_side(site: Site, visit: Visit) -> None:
    hebrew = "\u05e9\u05dc\u05d5\u05dd (hello)."
    site.server.say(f"{hebrew}\nan English line\n\u05d5 `f(x)`\n```\n{hebrew}\n```")
    visit.tab.locator(".question").fill(hebrew)
    direction = "node => getComputedStyle(node).direction"
    assert visit.tab.locator(".question").evaluate(direction) == "rtl"
    visit.ask(hebrew)
    visit.wait_idle()
    for part in (".title", ".user > .body", ".assistant > .body > div"):
        assert visit.tab.locator(part).evaluate(direction) == "rtl", part
    for part in ("pre", "div code"):
        assert visit.tab.locator(f".assistant > .body {part}").evaluate(direction) == "ltr", part
    # Each line stands at its own side: how far the first one and the second begin from the left.
    starts = """node => [0, 13].map((at) => {
      const range = document.createRange();
      range.setStart(node.firstChild, at);
      range.setEnd(node.firstChild, at + 13);
      return range.getBoundingClientRect().left - node.getBoundingClientRect().left;
    })"""
    first, second = visit.tab.locator(".assistant > .body > div").evaluate(starts)
    assert first > 100 and second < 2
    visit.tab.locator(".user").hover()
    visit.tab.get_by_role("button", name="Edit").click()
    assert visit.tab.get_by_role("textbox", name="Edit").evaluate(direction) == "rtl"


def test_escape_stops_and_keeps_what_has_come(site: Site, visit: Visit) -> None:
    site.server.say("hello " * 500, pause=0.02)
    visit.ask("hi")
    expect(visit.tab.locator(".assistant > .body")).to_have_text(re.compile("hello"))
    visit.tab.keyboard.press("Escape")
    visit.wait_idle()
    expect(visit.tab.locator(".assistant .note")).to_have_text("Stopped")
    text = visit.answers()[0]
    visit.tab.reload()
    assert 0 < len(text) < 2000 and visit.answers() == [text]
    assert site.server.service.runner.num_open == 0


def test_an_answer_is_given_again(site: Site, visit: Visit) -> None:
    site.server.say("first", "second")
    visit.ask("hi")
    assert visit.answers() == ["first"]
    visit.tab.get_by_role("button", name="Answer again").click()
    assert visit.answers() == ["second"]
    first, second = visit.posted("/v1/chat/completions")
    assert first["messages"] == second["messages"] == [{"role": "user", "content": "hi"}]


def test_an_edited_question_replaces_what_follows(site: Site, visit: Visit) -> None:
    site.server.say("one", "two", "three")
    visit.ask("first question")
    visit.wait_idle()
    visit.ask("second question")
    assert visit.answers() == ["one", "two"]
    visit.tab.locator(".user").first.hover()
    visit.tab.get_by_role("button", name="Edit").first.click()
    visit.tab.get_by_role("textbox", name="Edit").fill("another question\nwith two lines")
    visit.tab.get_by_role("textbox", name="Edit").press("Enter")
    assert visit.answers() == ["three"]
    expect(visit.tab.locator(".user > .body")).to_have_text("another question\nwith two lines")


def test_an_edit_is_left_with_escape(site: Site, visit: Visit) -> None:
    site.server.say("one")
    visit.ask("question")
    visit.wait_idle()
    visit.tab.get_by_role("button", name="Edit").click()
    visit.tab.get_by_role("textbox", name="Edit").fill("other")
    visit.tab.get_by_role("textbox", name="Edit").press("Escape")
    expect(visit.tab.locator(".user > .body")).to_have_text("question")


def test_enter_sends_and_with_shift_begins_a_line(site: Site, visit: Visit) -> None:
    site.server.say("one")
    question = visit.tab.locator(".question")
    question.press_sequentially("a")
    question.press("Shift+Enter")
    question.press_sequentially("b")
    question.press("Enter")
    visit.wait_idle()
    assert visit.posted("/v1/chat/completions")[0]["messages"][0]["content"] == "a\nb"


def test_an_answer_is_copied(site: Site, visit: Visit) -> None:
    visit.tab.context.grant_permissions(["clipboard-read", "clipboard-write"])
    site.server.say("hello **there**")
    visit.ask("hi")
    visit.wait_idle()
    visit.tab.locator(".assistant").get_by_role("button", name="Copy").click()
    expect(visit.tab.locator(".assistant").get_by_role("button", name="Copied")).to_be_visible()
    assert visit.tab.evaluate("navigator.clipboard.readText()") == "hello **there**"


def test_code_is_copied_without_its_fence_and_each_answer_names_its_model(site: Site, visit: Visit) -> None:
    visit.tab.context.grant_permissions(["clipboard-read", "clipboard-write"])
    site.server.say("so:\n```python\nx = 1\n  y\n```\nand\n```\nz\n```", pause=0.02)
    visit.ask("hi")
    visit.wait_idle()
    expect(visit.tab.locator(".assistant figcaption small")).to_have_text(["python", ""])
    visit.tab.get_by_role("button", name="Copy this code").first.click()
    assert visit.tab.evaluate("navigator.clipboard.readText()") == "x = 1\n  y"
    expect(visit.tab.locator(".assistant .actions small")).to_have_text(re.compile(r"^scripted · \d+ tokens in "))
    visit.tab.reload()
    expect(visit.tab.locator(".assistant .actions small")).to_have_text(re.compile("^scripted · "))


def test_reloading_keeps_conversations_and_deleting_does_not(site: Site, visit: Visit) -> None:
    site.server.say("one", "two")
    visit.ask("first")
    visit.wait_idle()
    visit.tab.get_by_role("button", name="New chat").click()
    visit.ask("second")
    visit.wait_idle()
    visit.tab.reload()
    assert visit.answers() == ["two"]
    visit.tab.get_by_role("button", name="first").click()
    assert visit.answers() == ["one"]
    visit.tab.locator(".current").get_by_role("button", name="Delete").click()
    visit.tab.reload()
    expect(visit.tab.locator(".title")).to_have_text(["second"])


def test_two_tabs_do_not_overwrite_each_others_conversations(site: Site, visit: Visit) -> None:
    other = visit.tab.context.new_page()
    other.goto(site.url)
    site.server.say("one", "two")
    visit.ask("first")
    visit.wait_idle()
    expect(other.locator(".title")).to_have_text(["first"])
    other.locator(".question").fill("second")
    other.locator(".question").press("Enter")
    expect(other.locator(".assistant > .body")).to_have_text("two")
    expect(visit.tab.locator(".title")).to_have_text(["second", "first"])
    other.reload()
    expect(other.locator(".title")).to_have_text(["second", "first"])
    assert visit.answers() == ["one"]


def test_an_answer_goes_on_while_its_reader_looks_elsewhere(site: Site, visit: Visit) -> None:
    site.server.say("hello there, hello world", pause=0.06)
    visit.ask("hi")
    expect(visit.tab.locator(".assistant > .body")).to_have_text(re.compile("^hello"))
    visit.tab.get_by_role("link", name="Tokenizer").click()
    visit.tab.get_by_role("link", name="Chat").click()
    visit.tab.get_by_role("button", name="New chat").click()
    visit.tab.get_by_role("button", name="hi", exact=True).click()
    assert visit.answers() == ["hello there, hello world"]


def test_exported_conversations_are_chat_data_and_come_back(site: Site, visit: Visit, tmp_path: Path) -> None:
    offer(visit)
    site.server.say(f"let me see\n{CALL}", "it is 42")
    visit.ask("what is 6 * 7?")
    visit.tab.get_by_role("button", name="Run").click()
    expect(visit.tab.locator(".assistant > .body")).to_have_text(["let me see", "it is 42"])
    visit.wait_idle()
    with visit.tab.expect_download() as download:
        visit.tab.get_by_role("button", name="Export").click()
    path = tmp_path / "chats.jsonl"
    download.value.save_as(path)
    chat = Conversation.parse(json.loads(path.read_text(encoding="utf-8")), "here")
    assert [message.role for message in chat.messages] == ["user", "assistant", "tool", "assistant"]
    assert chat.messages[2].content == '{"result": 42}'
    visit.tab.locator(".current").get_by_role("button", name="Delete").click()
    expect(visit.tab.locator(".title")).to_have_count(0)
    visit.tab.locator("input[type=file]").set_input_files(path)
    expect(visit.tab.locator(".title")).to_have_text(["what is 6 * 7?"])
    expect(visit.tab.locator(".assistant > .body")).to_have_text(["let me see", "it is 42"])
    expect(visit.tab.locator(".call .result pre")).to_have_text('{ "result": 42 }')


def test_a_tool_runs_only_after_consent_and_the_model_goes_on(site: Site, visit: Visit) -> None:
    offer(visit)
    site.server.say(CALL, "it is 42")
    visit.ask("what is 6 * 7?")
    card = visit.tab.locator(".call")
    expect(card).to_contain_text("The model wants to use")
    expect(card.locator("code")).to_have_text("calculate_math")
    visit.tab.wait_for_timeout(300)
    assert visit.posted("/page/tool") == []
    card.get_by_role("button", name="Run").click()
    expect(visit.tab.locator(".assistant > .body").last).to_have_text("it is 42")
    visit.wait_idle()
    assert visit.posted("/page/tool") == [{"name": "calculate_math", "arguments": {"expression": "6 * 7"}}]
    first, second = visit.posted("/v1/chat/completions")
    assert [tool["function"]["name"] for tool in first["tools"]] == ["calculate_math"]
    assert [message["role"] for message in second["messages"]] == ["user", "assistant", "tool"]
    assert second["messages"][2]["content"] == '{"result": 42}'


def test_a_declined_tool_does_not_run_and_the_model_is_told(site: Site, visit: Visit) -> None:
    offer(visit)
    site.server.say(CALL, "then not")
    visit.ask("what is 6 * 7?")
    visit.tab.get_by_role("button", name="Decline").click()
    expect(visit.tab.locator(".assistant > .body").last).to_have_text("then not")
    visit.wait_idle()
    expect(visit.tab.locator(".call")).to_contain_text("You declined this call.")
    assert visit.posted("/page/tool") == []
    assert "declined" in visit.posted("/v1/chat/completions")[1]["messages"][2]["content"]


def test_each_of_several_calls_is_asked_for(site: Site, visit: Visit) -> None:
    offer(visit)
    site.server.say(f"{CALL}\n{CALL}", "done")
    visit.ask("twice")
    expect(visit.tab.locator(".call")).to_have_count(2)
    visit.tab.get_by_role("button", name="Decline").nth(1).click()
    expect(visit.tab.get_by_role("button", name="Run")).to_have_count(1)
    assert len(visit.posted("/v1/chat/completions")) == 1
    visit.tab.get_by_role("button", name="Run").click()
    expect(visit.tab.locator(".assistant > .body").last).to_have_text("done")
    results = [row["content"] for row in visit.posted("/v1/chat/completions")[1]["messages"] if row["role"] == "tool"]
    assert results[0] == '{"result": 42}' and "declined" in results[1]


def test_a_call_under_way_is_not_run_twice(site: Site, visit: Visit) -> None:
    offer(visit)
    held: list[Any] = []
    visit.tab.route("**/page/tool", lambda route: held.append(route))
    site.server.say(f"{CALL}\n{CALL}", "done")
    visit.ask("twice")
    runs = visit.tab.get_by_role("button", name="Run")
    runs.nth(1).click()
    runs.nth(0).click()
    expect(runs.nth(0)).to_be_disabled()
    held[1].continue_()
    # The first call has its result; the second one still waits, also for who looked elsewhere meanwhile.
    expect(visit.tab.locator(".call .result")).to_have_count(1)
    expect(runs).to_be_disabled()
    visit.tab.get_by_role("button", name="New chat").click()
    visit.tab.get_by_role("button", name="twice").click()
    expect(runs).to_be_disabled()
    held[0].continue_()
    expect(visit.tab.locator(".assistant > .body").last).to_have_text("done")
    visit.wait_idle()
    assert len(visit.posted("/page/tool")) == 2


def test_a_call_that_failed_may_be_run_again(site: Site, visit: Visit) -> None:
    offer(visit)
    visit.tab.route("**/page/tool", lambda route: route.fulfill(status=200, body="{"), times=1)
    site.server.say(CALL, "done")
    visit.ask("once")
    visit.tab.get_by_role("button", name="Run").click()
    expect(visit.tab.locator(".notice .error")).to_be_visible()
    visit.tab.get_by_role("button", name="Run").click()
    expect(visit.tab.locator(".call .result pre")).to_have_text('{ "result": 42 }')
    visit.wait_idle()


def test_a_call_of_a_tool_that_is_not_there_can_only_be_declined(site: Site, visit: Visit, tmp_path: Path) -> None:
    call = {"type": "function", "function": {"name": "rm", "arguments": "{}"}}
    messages = [{"role": "user", "content": "go"}, {"role": "assistant", "content": "", "tool_calls": [call]}]
    path = tmp_path / "chats.jsonl"
    path.write_text(json.dumps({"messages": messages}))
    visit.tab.locator("input[type=file]").set_input_files(path)
    expect(visit.tab.locator(".call")).to_contain_text("This server has no such tool.")
    expect(visit.tab.get_by_role("button", name="Run")).to_have_count(0)
    site.server.say("well")
    visit.ask("never mind")
    assert visit.answers() == ["well"]
    assert "declined" in visit.posted("/v1/chat/completions")[0]["messages"][2]["content"]


def test_thinking_is_folded(site: Site, visit: Visit) -> None:
    visit.tab.get_by_role("button", name="Think", exact=True).click()
    site.server.say("hidden reasons\n</think>\n\nthe answer")
    visit.ask("why?")
    assert visit.answers() == ["the answer"]
    assert visit.posted("/v1/chat/completions")[0]["chat_template_kwargs"] == {"enable_thinking": True}
    expect(visit.tab.get_by_text("hidden reasons")).to_be_hidden()
    visit.tab.locator(".assistant summary").click()
    expect(visit.tab.get_by_text("hidden reasons")).to_be_visible()


def test_each_token_shows_its_probability_and_what_else_was_likely(site: Site, visit: Visit) -> None:
    visit.tab.get_by_role("button", name="Tokens", exact=True).click()
    site.server.say("hello\n你")
    visit.ask("hi")
    visit.wait_idle()
    tokens = visit.tab.locator(".token")
    # A character that is cut shows its bytes.
    assert "".join(tokens.all_inner_texts()).startswith("hello↵")
    assert visit.posted("/v1/chat/completions")[0]["top_logprobs"] == 5
    tip = visit.tab.locator(".tip")
    tokens.first.hover()
    expect(tip.locator("tr")).to_have_count(5)
    expect(tip.locator(".chosen")).to_contain_text("100.0 %")
    first = tip.locator(".chosen code").inner_text()
    tokens.first.focus()
    tokens.first.press("ArrowRight")
    expect(tokens.nth(1)).to_be_focused()
    expect(tip.locator(".chosen code")).not_to_have_text(first)


def test_settings_are_sent_and_kept_and_empty_ones_left_out(site: Site, visit: Visit) -> None:
    site.server.say("one")
    visit.tab.get_by_role("button", name="Settings").click()
    visit.tab.get_by_label("Temperature").fill("0.3")
    visit.tab.get_by_label("System message").fill("be brief")
    visit.tab.reload()
    visit.ask("hi")
    visit.wait_idle()
    body = visit.posted("/v1/chat/completions")[0]
    assert body["temperature"] == 0.3 and "top_p" not in body and "tools" not in body
    assert body["messages"][0] == {"role": "system", "content": "be brief"}


def test_what_the_server_refuses_is_told_in_its_words(site: Site, visit: Visit) -> None:
    visit.tab.get_by_role("button", name="Settings").click()
    visit.tab.get_by_label("Temperature").fill("3")
    visit.ask("hi")
    visit.wait_idle()
    visit.wrong = [line for line in visit.wrong if "400 (Bad Request)" not in line]
    expect(visit.tab.locator(".assistant .error")).to_contain_text("temperature: Input should be less than")


def test_code_and_bold_are_shown_and_all_else_as_it_was_written(site: Site, visit: Visit) -> None:
    site.server.say("a  **b** `c`\n  d # e\n```py\nx = 1\n  y\n```\nend <b>f</b>")
    visit.ask("hi")
    visit.wait_idle()
    body = visit.tab.locator(".assistant > .body")
    expect(body.locator("pre")).to_have_text("x = 1\n  y")
    expect(body.locator("figcaption small")).to_have_text("py")
    expect(body.locator("strong")).to_have_text("b")
    assert body.locator("div").first.text_content() == "a  b c\n  d # e"
    assert body.locator("div").last.text_content() == "end <b>f</b>"
