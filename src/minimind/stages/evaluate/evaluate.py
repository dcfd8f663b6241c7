"""`minimind evaluate`: how well a model predicts text it has not seen, and how many tasks it does rightly."""

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from minimind.config import REQUIRED, Config, option
from minimind.errors import ConfigError
from minimind.generation.sampling import Sampling
from minimind.terminal.notes import note

if TYPE_CHECKING:
    from minimind.stages.evaluate.evaluation import Evaluation

__all__ = ["EvaluateConfig", "run"]

TASKS = ("text", "questions", "answers", "tool_calls", "pairs", "choices")


class EvaluateConfig(Config):
    """Bits per byte beside what counting words reaches, answers, tool calls, minimal pairs and multiple choice.

    Each figure has a standard error, and --baseline says whether the difference to another model exceeds noise.
    """

    positional: ClassVar[str] = "model"

    model: Path = option(REQUIRED, "A run folder, a checkpoint, or a Hugging Face model folder.")
    adapter: Path | None = option(None, "A LoRA run or a PEFT folder, to use with the model.")
    text: list[str] = option(
        [],
        "Held-out text: a folder that `minimind prepare` wrote (its validation part is scored, and its "
        "training part feeds the baselines), or files, folders, globs, hf://owner/name.",
    )
    questions: list[str] = option([], 'Rows {"conversations", "answer", "kind"}: files, or builtin://questions.')
    answers: list[str] = option(
        [], "Conversations whose last message, gt or answer is right: answered --samples times, for pass@k."
    )
    tool_calls: list[str] = option(
        [], "Conversations with tools and recorded calls: each call is asked for again, greedily."
    )
    samples: int = option(8, "Answers drawn to each question of --answers.", ge=1, le=1000)
    sampling: Sampling = option(Sampling(), "How --answers are drawn; max_tokens bounds --tool_calls, too.")
    pairs: list[str] = option(
        [], 'Rows {"good", "bad", "field"}: which sentence does the model find likelier? As BLiMP.'
    )
    choices: list[str] = option(
        [],
        'Rows {"question", "choices", "answer", "subject"}, or as in C-Eval, CMMLU, ARC, HellaSwag: asked '
        "by letter and by continuation.",
    )
    max_documents: int = option(2000, "Score at most this many documents.", ge=1)
    max_tokens: int = option(1024, "Score at most this many tokens of a document.", ge=2)
    baseline: Path | None = option(
        None, "An evaluation.json to compare with: the differences, and which of them exceed noise.", kind="free"
    )
    out: Path | None = option(
        None, "The file to write; by default evaluation.json where MODEL, or the adapter, is a run folder.", kind="free"
    )


def run(config: EvaluateConfig) -> None:
    """Measure, print, and write what `minimind report` shows."""
    from minimind.report.baseline import comparison_table, read_baseline
    from minimind.stages.evaluate.evaluation import check_writable

    if not any(getattr(config, task) for task in TASKS):
        raise ConfigError(f"nothing to measure; give one or more of {', '.join(f'--{task}' for task in TASKS)}")
    # Before anything is measured: a baseline may be the very file that will be written.
    baseline = read_baseline(config.baseline) if config.baseline else None
    measured = config.adapter or config.model
    out = config.out or (measured / "evaluation.json" if (measured / "checkpoints").is_dir() else None)
    if out is not None:
        check_writable(out)
    found = _measure(config)
    if baseline is not None:
        table = comparison_table(f"Compared with {config.baseline}", found.figures, found.measured, *baseline)
        found.show(table.title, table.columns, table.rows)
    if out is not None:
        found.write(out)
        note(f"written to {out}")


def _measure(config: EvaluateConfig) -> "Evaluation":
    from minimind.stages.evaluate.answers import call_tools, draw_answers
    from minimind.stages.evaluate.evaluation import Evaluation
    from minimind.stages.evaluate.tasks import ask_choices, ask_questions, compare_pairs
    from minimind.stages.evaluate.text import score_text
    from minimind.storage.checkpoint import load_model

    model, tokenizer = load_model(config.model, adapter=config.adapter)
    found = Evaluation()
    if config.text:
        limits = {"max_documents": config.max_documents, "max_tokens": config.max_tokens}
        score_text(found, model, tokenizer, config.text, **limits)
    if config.questions:
        ask_questions(found, model, tokenizer, config.questions)
    if config.answers:
        draw_answers(found, model, tokenizer, config.answers, samples=config.samples, sampling=config.sampling)
    if config.tool_calls:
        call_tools(found, model, tokenizer, config.tool_calls, max_tokens=config.sampling.max_tokens)
    if config.pairs:
        compare_pairs(found, model, tokenizer, config.pairs)
    if config.choices:
        ask_choices(found, model, tokenizer, config.choices)
    return found
