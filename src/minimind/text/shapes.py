"""The shapes in which chat data comes: one table of what is known, and by which columns each is recognised.

A row is an object of a file, columns that are null left out. The first shape of the table whose columns are all there
is the row's. Whoever wants one kind (conversations for `sft`, pairs for `dpo`) asks for the first shape of that kind,
so that columns of the other kinds beside it do not matter. `messages.py` reads what is found here.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

__all__ = [
    "INPUTS",
    "MESSAGE_LISTS",
    "PROMPTS",
    "REASONING",
    "ROW_FLAGS",
    "SHAPES",
    "SYSTEMS",
    "TEXT",
    "Kind",
    "RowShape",
    "find_shape",
    "may_matter",
    "present",
    "shape_of",
    "unread_columns",
]

Kind = Literal["conversation", "text", "pair", "judged", "prompt", "choice", "minimal pair", "ids"]

# Columns that hold a whole conversation.
MESSAGE_LISTS = ("messages", "conversations", "conversation")
# Columns that hold a question where no list of messages does, what belongs to it, and the system prompt before it.
PROMPTS = ("prompt", "instruction", "question", "query", "problem")
INPUTS = ("input", "context")
SYSTEMS = ("system", "system_prompt")
# What was thought before an answer, on a message or beside an answer in a column of its own.
REASONING = ("reasoning_content", "reasoning", "thinking", "thought")
# Columns by which a whole row can be left out; see `flags.py`.
ROW_FLAGS = ("weight", "train", "training", "loss", "mask")
TOOLS = ("tools", "functions")


@dataclass(frozen=True)
class RowShape:
    """A public layout of rows.

    known_from:  who writes it
    needs:       columns that are all there
    reads:       columns that are read where they are there
    question, answer:  the columns of a single turn; "" where messages stand in lists
    is_it:       looks closer, where names alone do not tell
    """

    name: str
    kind: Kind
    known_from: str
    needs: tuple[str, ...]
    reads: tuple[str, ...] = ()
    question: str = ""
    answer: str = ""
    is_it: Callable[[Mapping[str, Any]], bool] = lambda row: True

    def fits(self, row: Mapping[str, Any]) -> bool:
        return all(name in row for name in self.needs) and self.is_it(row)

    @property
    def columns(self) -> frozenset[str]:
        """All columns that are read."""
        return frozenset((*self.needs, *self.reads))


def _has_messages(row: Mapping[str, Any]) -> bool:
    """Something is said in one of the lists; an empty one is what is left where data sets were put together."""
    return any(row.get(name) for name in MESSAGE_LISTS)


def _is_judged(row: Mapping[str, Any]) -> bool:
    label = row.get("label", row.get("kto_tag"))
    return isinstance(label, bool) and ("completion" in row or "response" in row or _has_messages(row))


def _is_stepwise(row: Mapping[str, Any]) -> bool:
    return isinstance(row["completions"], list) and isinstance(row["labels"], list)


def _has_choices(row: Mapping[str, Any]) -> bool:
    return "choices" in row or "options" in row or ("A" in row and "B" in row)


def _is_pair_of_words(row: Mapping[str, Any]) -> bool:
    return isinstance(row["good"], str) and isinstance(row["bad"], str)


def _turn(name: str, known_from: str, question: str, answer: str, *reads: str) -> RowShape:
    more = (*reads, *SYSTEMS, *REASONING, *TOOLS, "history", *ROW_FLAGS)
    return RowShape(name, "conversation", known_from, (question, answer), more, question, answer)


_BESIDE_MESSAGES = (*SYSTEMS, *TOOLS, *ROW_FLAGS)
_PAIR = (*PROMPTS, *INPUTS, *SYSTEMS, *TOOLS, *MESSAGE_LISTS, *ROW_FLAGS, "history")

# The name of its column is an option, so `shape_of` looks for it by hand.
TEXT = RowShape("text", "text", "any corpus", ("text",), ROW_FLAGS)

SHAPES: tuple[RowShape, ...] = (
    RowShape("judged answers", "judged", "KTO: TRL, LLaMA-Factory, ms-swift", (), is_it=_is_judged),
    RowShape("judged steps", "judged", "TRL's stepwise supervision", ("completions", "labels"), is_it=_is_stepwise),
    RowShape("messages", "conversation", "OpenAI, Hugging Face, MiniMind, ShareGPT, Capybara", (),
          (*MESSAGE_LISTS, *_BESIDE_MESSAGES), is_it=_has_messages),
    _turn("Alpaca", "Stanford Alpaca, LLaMA-Factory", "instruction", "output", "input"),
    TEXT,
    RowShape("OpenAI preference", "pair", "OpenAI", ("input", "preferred_output", "non_preferred_output"), ROW_FLAGS),
    RowShape("pair", "pair", "TRL, HH-RLHF, Intel, argilla, LLaMA-Factory", ("chosen", "rejected"), _PAIR),
    RowShape("argilla pair", "pair", "argilla", ("chosen_response", "rejected_response"), _PAIR),
    RowShape("messages and rejected answer", "pair", "ms-swift", ("rejected_response",), _PAIR, is_it=_has_messages),
    RowShape("messages and rejected messages", "pair", "ms-swift", ("rejected_messages",), _PAIR, is_it=_has_messages),
    RowShape("multiple choice", "choice", "C-Eval, CMMLU, ARC, MMLU", ("question",), is_it=_has_choices),
    RowShape("multiple choice", "choice", "HellaSwag", ("ctx", "endings")),
    RowShape("multiple choice", "choice", "OpenBookQA", ("question_stem", "choices")),
    RowShape("multiple choice", "choice", "PIQA", ("goal", "sol1", "sol2")),
    RowShape("multiple choice", "choice", "WinoGrande", ("sentence", "option1", "option2")),
    RowShape("minimal pair", "minimal pair", "this project", ("good", "bad"), is_it=_is_pair_of_words),
    RowShape("minimal pair", "minimal pair", "BLiMP", ("sentence_good", "sentence_bad")),
    _turn("prompt and completion", "TRL, OpenAI", "prompt", "completion"),
    _turn("prompt and response", "many", "prompt", "response"),
    _turn("Dolly", "Databricks", "instruction", "response", "context", "input"),
    _turn("query and response", "ms-swift", "query", "response"),
    _turn("OpenOrca", "OpenOrca", "question", "response", "context", "input"),
    _turn("question and answer", "GSM8K and others", "question", "answer", "context", "input"),
    _turn("prompt and answer", "verifiable tasks", "prompt", "answer", "context", "input"),
    _turn("instruction and answer", "many", "instruction", "answer", "context", "input"),
    _turn("query and answer", "many", "query", "answer", "context", "input"),
    _turn("problem and solution", "NuminaMath", "problem", "solution"),
    _turn("problem and answer", "mathematics", "problem", "answer"),
    _turn("input and output", "FLAN and others", "input", "output"),
    _turn("inputs and targets", "T5, P3", "inputs", "targets"),
    *(RowShape("prompt", "prompt", "verl, TRL", (name,), (*INPUTS, *SYSTEMS, *TOOLS)) for name in PROMPTS),
    RowShape("token ids", "ids", "prepared elsewhere", ("input_ids",)),
)  # fmt: skip

# Columns and keys of messages that say where a row is from, or what it is about: no answer is other for them.
# fmt: off
HARMLESS = frozenset((
    "id", "idx", "index", "uid", "uuid", "key", "name", "title", "source", "sources", "src", "origin", "url",
    "link", "lang", "language", "languages", "locale", "category", "categories", "subject", "topic", "topics",
    "tag", "tags", "license", "licence", "date", "created", "created_at", "timestamp", "time", "updated_at",
    "author", "user", "user_id", "model", "model_name", "generator", "dataset", "data_source", "split", "hash",
    "sha", "meta", "metadata", "extra_info", "info", "type", "task", "task_type", "task_name", "domain",
    "ability", "difficulty", "level", "score", "rating", "quality", "length", "num_tokens", "token_count",
    "tokens", "num_turns", "turn", "turns", "turn_id", "style", "kind", "version", "gt", "ground_truth",
    "reward_model", "agent_name", "parallel_tool_calls", "toxic", "toxicity", "redacted", "moderation",
    "openai_moderation", "prompt_id", "message_id", "parent_id", "conversation_id", "conversation_hash",
    "country", "state", "hashed_ip", "header", "refusal", "annotations", "audio",
))
# fmt: on
# What stands in a text's row beside the text is about it, unless its name speaks of learning.
_OF_LEARNING = ("train", "loss", "mask", "weight", "learn", "label", "ignore")


def present(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """A row without its nulls, which are what an absent column looks like where data sets were put together."""
    return {name: value for name, value in row.items() if value is not None} if None in row.values() else row


def shape_of(row: Mapping[str, Any], text_column: str = "text") -> RowShape | None:
    """The first shape that fits."""
    return next((shape for shape in SHAPES if _fits(shape, row, text_column)), None)


def find_shape(row: Mapping[str, Any], *kinds: Kind) -> RowShape | None:
    """The first shape of these kinds that fits."""
    return next((shape for shape in SHAPES if shape.kind in kinds and shape.fits(row)), None)


def unread_columns(row: Mapping[str, Any], shape: RowShape | None, text_column: str = "text") -> Iterator[str]:
    """The columns that say something and are not read as this shape is."""
    columns = shape.columns if shape else frozenset()
    is_text = shape is not None and shape.kind == "text"
    return (name for name in row.keys() - columns if not (is_text and name == text_column))


def may_matter(name: str, kind: Kind) -> bool:
    """Could it change what is learnt that a column or a message's key of this name is not read?"""
    plain = name.rpartition(".")[2].lower()
    if kind == "text":
        return any(word in plain for word in _OF_LEARNING)
    return plain not in HARMLESS and not plain.endswith(("_id", "_ids", "_hash", "_url", "_score"))


def _fits(shape: RowShape, row: Mapping[str, Any], text_column: str) -> bool:
    return text_column in row if shape.kind == "text" else shape.fits(row)
