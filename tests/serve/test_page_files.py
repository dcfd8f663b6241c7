"""Conversations from files in a real browser: all of a file or nothing, and not called imported unless it is kept."""

import json
from pathlib import Path
from typing import Any

from playwright.sync_api import expect
from tests.serve.browser import Site, Visit

# As many letters as there is room for.
FILL = """() => {
  for (let size = 2 ** 22; size >= 1; size /= 2) {
    try {
      localStorage.setItem(`filled ${size}`, "x".repeat(size));
    } catch { continue; }
  }
}"""


def import_chats(visit: Visit, path: Path, *chats: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps({"messages": messages}) + "\n" for messages in chats), encoding="utf-8")
    visit.tab.locator("input[type=file]").set_input_files(path)


def test_a_broken_file_is_refused_whole_and_nothing_is_lost(site: Site, visit: Visit, tmp_path: Path) -> None:
    site.server.say("one")
    visit.ask("mine")
    visit.wait_idle()
    sound = json.dumps({"messages": [{"role": "user", "content": "theirs"}]})
    broken = {
        "cut.jsonl": (f"{sound}\n{sound[:-5]}\n", 2),
        "role.jsonl": (f"{sound}\n\n" + sound.replace("user", "root"), 3),
        "content.jsonl": (sound.replace('"theirs"', "{}"), 1),
        "tool.jsonl": (sound.replace("user", "tool"), 1),
        "empty.jsonl": ("\n", 1),
        "image.png": ("\x89PNG\x00", 1),
    }
    for name, (text, line) in broken.items():
        path = tmp_path / name
        path.write_text(text, encoding="latin-1")
        visit.tab.locator("input[type=file]").set_input_files(path)
        expect(visit.tab.locator(".notice")).to_have_text(f"Nothing was imported: line {line} is not a conversation.")
        visit.tab.get_by_role("button", name="mine").click()
    expect(visit.tab.locator(".title")).to_have_text(["mine"])
    assert visit.answers() == ["one"]


def test_who_imports_without_room_is_told_and_not_that_it_went_well(site: Site, visit: Visit, tmp_path: Path) -> None:
    chats = [[{"role": "user", "content": f"{name} {'x' * 500}"}] for name in ("one", "two")]
    visit.tab.evaluate(FILL)
    import_chats(visit, tmp_path / "chats.jsonl", *chats)
    expect(visit.tab.locator(".notice")).to_contain_text("storage is full")
    # Room for one of them is not enough.
    visit.tab.evaluate("localStorage.removeItem('filled 1024')")
    import_chats(visit, tmp_path / "others.jsonl", *chats)
    expect(visit.tab.locator(".title")).to_have_count(4)
    expect(visit.tab.locator(".notice")).to_contain_text("storage is full")
    visit.tab.evaluate("localStorage.clear()")
    import_chats(visit, tmp_path / "chats.jsonl", *chats)
    expect(visit.tab.locator(".notice")).to_have_text("Conversations imported: 2")
    visit.tab.reload()
    expect(visit.tab.locator(".title")).to_have_count(2)


def test_what_is_imported_twice_is_there_once(visit: Visit, tmp_path: Path) -> None:
    chats = [[{"role": "user", "content": name}] for name in ("one", "two", "one")]
    import_chats(visit, tmp_path / "chats.jsonl", *chats)
    expect(visit.tab.locator(".notice")).to_have_text("Conversations imported: 2")
    import_chats(visit, tmp_path / "again.jsonl", *chats)
    expect(visit.tab.locator(".notice")).to_have_text("All of these conversations are here already.")
    import_chats(visit, tmp_path / "more.jsonl", *chats, [{"role": "user", "content": "three"}])
    expect(visit.tab.locator(".title")).to_have_count(3)


def test_an_imported_conversation_keeps_its_own_system_message(site: Site, visit: Visit, tmp_path: Path) -> None:
    own = {"role": "system", "content": "You are a pirate."}
    question = {"role": "user", "content": "hi"}
    visit.tab.get_by_role("button", name="Settings").click()
    visit.tab.get_by_label("System message").fill("be brief")
    import_chats(visit, tmp_path / "chats.jsonl", [own, question], [question])
    site.server.say("aye", "and again", "yes")
    visit.ask("who are you?")
    visit.wait_idle()
    visit.tab.reload()
    visit.ask("really?")
    visit.wait_idle()
    visit.tab.get_by_text("own system message").click()
    expect(visit.tab.get_by_text(own["content"])).to_be_visible()
    visit.tab.locator("li:not(.current) .title").click()
    expect(visit.tab.get_by_text("own system message")).to_have_count(0)
    visit.ask("and you?")
    visit.wait_idle()
    with visit.tab.expect_download() as download:
        visit.tab.get_by_role("button", name="Export").click()
    exported = [json.loads(line)["messages"][0] for line in download.value.path().read_text().splitlines()]
    asked = [body["messages"][0] for body in visit.posted("/v1/chat/completions")]
    assert asked == [own, own, {"role": "system", "content": "be brief"}]
    assert exported == [asked[2], own]


def test_an_imported_question_without_an_answer_may_be_changed(site: Site, visit: Visit, tmp_path: Path) -> None:
    import_chats(visit, tmp_path / "chats.jsonl", [{"role": "user", "content": "hi"}])
    visit.tab.reload()
    expect(visit.tab.get_by_label("Model")).to_have_value("scripted")
    visit.tab.locator(".user").hover()
    visit.tab.get_by_role("button", name="Edit").click()
    site.server.say("yes")
    visit.tab.get_by_role("textbox", name="Edit").fill("hello?")
    visit.tab.get_by_role("textbox", name="Edit").press("Enter")
    assert visit.answers() == ["yes"]
    expect(visit.tab.locator(".user > .body")).to_have_text("hello?")
