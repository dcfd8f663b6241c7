"""The parts of `minimind evaluate` that set tasks: questions to answer, pairs to tell apart, answers to choose from."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from minimind.data.corpus import read_rows
from minimind.evals.choices import multiple_choice
from minimind.evals.exact_answers import exact_answers
from minimind.evals.minimal_pairs import CHANCE, minimal_pairs
from minimind.model import Transformer
from minimind.stages.evaluate.evaluation import Evaluation, percent
from minimind.text.tokenizer import Tokenizer

__all__ = ["ask_choices", "ask_questions", "compare_pairs", "placed_rows"]


def ask_questions(found: Evaluation, model: Transformer, tokenizer: Tokenizer, sources: Sequence[str]) -> None:
    """Exact answers by kind of question, and some of the wrong ones."""
    result = exact_answers(model, tokenizer, placed_rows(sources))
    found.add("exact_answers", result.overall)
    rows = [
        [kind, int(sum(share.amounts)), len(share.amounts), percent(share)]
        for kind, share in {**result.by_kind, "all": result.overall}.items()
    ]
    found.show("Exact answers to held-out questions", ["kind", "right", "of", "share"], rows)
    wrong = ((a.kind, a.question, a.expected, a.got) for a in result.answers if not a.is_right)
    found.show_mistakes("Some of the wrong answers", wrong)


def compare_pairs(found: Evaluation, model: Transformer, tokenizer: Tokenizer, sources: Sequence[str]) -> None:
    """Minimal pairs by field."""
    result = minimal_pairs(model, tokenizer, placed_rows(sources))
    found.add("minimal_pairs", result.overall)
    rows = [[field, len(share.amounts), percent(share)] for field, share in result.by_field.items()]
    rows.append(["all", len(result.overall.amounts), percent(result.overall)])
    title = f"Minimal pairs: the good sentence is likelier (chance {CHANCE:.0%})"
    found.show(title, ["field", "pairs", "right"], rows)


def ask_choices(found: Evaluation, model: Transformer, tokenizer: Tokenizer, sources: Sequence[str]) -> None:
    """Multiple choice by letter and by continuation."""
    result = multiple_choice(model, tokenizer, placed_rows(sources))
    for method, share in result.by_method.items():
        found.add(f"choices, {method}", share)
    subjects = {**(result.by_subject if len(result.by_subject) > 1 else {}), "all": result.by_method}
    rows = [
        [subject, len(shares["letter"].amounts), *map(percent, shares.values())] for subject, shares in subjects.items()
    ]
    title = f"Multiple choice: the right answer is likeliest (chance {result.chance:.1%})"
    found.show(title, ["subject", "questions", *result.by_method], rows)


def placed_rows(sources: Sequence[str]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each row with its `path:line`."""
    for row in read_rows(sources):
        yield f"{row.path}:{row.line}", row.value
