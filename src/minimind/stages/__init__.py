"""The verbs of the command line. Verb `pretrain` is the module `pretrain.py`: a `PretrainConfig` and a `run`.

Stages are where the parts meet: they open files, build a model, a source and an objective, and hand them on. Nothing
is imported until its verb is called. A new verb is a new module and a row in this table. The other modules here are
what verbs share:

    training      fit.py, rows.py, trained.py; policy.py where a model learns from its own answers
    evaluate      evaluation.py, evaluation_text.py, evaluation_tasks.py, evaluation_answers.py
    plan          planned.py, probe.py
    chat          dialogue.py, local_answers.py, remote_answers.py, storage/adapters.py
    generate      prompts.py, continuations.py, answer_file.py
    the terminal  terminal.py, tables.py
"""

import importlib
import keyword
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minimind.config import Config

__all__ = ["VERBS", "Verb", "load_stage"]


@dataclass(frozen=True)
class Verb:
    """What a verb does in a line, and commands to copy."""

    summary: str
    examples: tuple[str, ...]


VERBS = {
    "tokenizer": Verb(
        "learn a vocabulary from text",
        (
            "minimind tokenizer quickstart/1-tokenizer.toml",
            "minimind tokenizer --source texts/ --out runs/mine/tokenizer --vocab_size 6400",
        ),
    ),
    "prepare": Verb(
        "clean, deduplicate and split text or conversations, and store them as token ids",
        (
            "minimind prepare quickstart/2-prepare-texts.toml",
            "minimind prepare --source texts/ --tokenizer runs/mine/tokenizer --out data/mine",
        ),
    ),
    "pretrain": Verb(
        "train a new model to predict the next token of prepared text",
        (
            "minimind pretrain quickstart/3-pretrain.toml",
            "minimind pretrain --data.source data/mine --tokenizer runs/mine/tokenizer --run runs/mine/pretrain",
        ),
    ),
    "plan": Verb(
        "what a recipe will take, before it is started: memory, operations, time, disk, cost",
        (
            "minimind plan 26m/3-pretrain.toml --tokens 9000000",
            "minimind plan 26m/5-sft.toml --memory_gb 8 --hours 2 --price_per_hour 0.5",
        ),
    ),
    "sft": Verb(
        "teach a pretrained model to answer, from conversations",
        (
            "minimind sft quickstart/5-sft.toml",
            "minimind sft --data.source chats.jsonl --model runs/mine/pretrain --run runs/mine/sft",
        ),
    ),
    "dpo": Verb(
        "teach a fine-tuned model which of two answers people prefer",
        (
            "minimind dpo --data.source pairs.jsonl --model runs/mine/sft --run runs/mine/dpo",
            "minimind dpo --data.source pairs.jsonl --model runs/mine/sft --run runs/mine/dpo-lora --lora.rank 8",
        ),
    ),
    "distill": Verb(
        "train a small model to think what a larger one thinks",
        (
            "minimind distill --teacher.model runs/large --data.source data/mine --run runs/mine/student",
            "minimind distill --teacher.model runs/large --base runs/mine/sft --data.source a.jsonl --run runs/small",
        ),
    ),
    "synthesize": Verb(
        "let a teacher write conversations to fine-tune on",
        (
            "minimind synthesize --model runs/large --source chats.jsonl --out answers.jsonl",
            "minimind synthesize --endpoint.url https://host/v1 --endpoint.name NAME --source a.jsonl --out b.jsonl",
        ),
    ),
    "grpo": Verb(
        "let a model learn from its own answers, compared in groups (GRPO, Dr. GRPO, DAPO, CISPO)",
        (
            "minimind grpo sums/2-grpo.toml",
            "minimind grpo sums/2-grpo.toml --run runs/mine/cispo --grpo.loss cispo --grpo.clip_high 3",
        ),
    ),
    "ppo": Verb(
        "let a model learn from its own answers, compared with what a critic expects",
        (
            "minimind ppo sums/3-ppo.toml",
            "minimind ppo --data.source sums.jsonl --model runs/mine/sft --run runs/mine/ppo",
        ),
    ),
    "agent": Verb(
        "let a model learn to use tools, from dialogues in which it calls them",
        (
            "minimind agent --data.source tasks.jsonl --model runs/mine/sft --run runs/mine/agent",
            "minimind agent --data.source tasks.jsonl --model runs/mine/sft --run runs/mine/agent --max_turns 5",
        ),
    ),
    "evaluate": Verb(
        "measure a model on held-out text and tasks",
        (
            "minimind evaluate runs/quickstart/sft --questions builtin://questions",
            "minimind evaluate runs/mine/pretrain --text data/mine --pairs blimp.jsonl --choices cmmlu.jsonl",
            "minimind evaluate runs/mine/sft --answers math.jsonl --samples 8 --tool_calls tools.jsonl",
            "minimind evaluate runs/mine/sft --text data/mine --baseline runs/mine/pretrain/evaluation.json",
        ),
    ),
    "inspect": Verb(
        "look into a checkpoint, prepared data, a tokenizer, or data files",
        (
            "minimind inspect runs/mine/sft",
            "minimind inspect data/mine --document 7",
            "minimind inspect chats.jsonl",
        ),
    ),
    "generate": Verb(
        "continue a text, or answer a file of prompts; a stopped run goes on",
        (
            "minimind generate runs/quickstart/pretrain --prompt 'The sun' '今天'",
            "minimind generate runs/mine/sft --source questions.jsonl --out answers.jsonl",
        ),
    ),
    "chat": Verb(
        "talk with a model or a server in the terminal",
        (
            "minimind chat runs/quickstart/sft",
            "minimind chat --url http://127.0.0.1:8000/v1",
            "minimind chat runs/mine/sft --thinking --sampling.temperature 0.3",
        ),
    ),
    "serve": Verb(
        "answer OpenAI's clients, and a browser, with a model",
        (
            "minimind serve runs/quickstart/sft",
            "minimind serve runs/mine/sft --adapters runs/mine/lora --port 8080 --precision bf16",
        ),
    ),
    "import": Verb(
        "read a GGUF file or MiniMind's .pth, and write it as a model folder",
        (
            "minimind import SmolLM2-135M-Instruct.Q4_1.gguf --out models/smollm2",
            "minimind import full_sft_768.pth --tokenizer minimind/model --out models/minimind-3",
        ),
    ),
    "export": Verb(
        "write a model in the format of another program, and check it",
        (
            "minimind export runs/mine/sft --out models/mine --dtype bf16",
            "minimind export runs/mine/sft --format gguf --dtype q8_0 --out models/mine-gguf",
        ),
    ),
    "merge": Verb(
        "add a LoRA adapter to its base model, as one model folder",
        (
            "minimind merge runs/mine/lora --out models/mine",
            "minimind merge adapters/medical --model models/base --out models/medical",
        ),
    ),
    "average": Verb(
        "average the weights of several checkpoints, as one model folder",
        (
            "minimind average runs/mine/pretrain --out models/mine",
            "minimind average runs/first runs/second --out models/both --weights exponential",
        ),
    ),
    "compare": Verb(
        "two runs or models side by side: settings, curves, bits per byte, samples",
        (
            "minimind compare runs/first runs/second --text held-out.jsonl",
            "minimind compare runs/mine/sft models/other --prompts 'The sun' '今天'",
        ),
    ),
    "report": Verb(
        "write one HTML page with the curves, tables and samples of runs",
        (
            "minimind report runs/quickstart",
            "minimind report runs/first runs/second --out compare.html",
        ),
    ),
    "run": Verb(
        "run a folder of recipes in order",
        (
            "minimind run quickstart",
            "minimind run quickstart --from evaluate",
        ),
    ),
    "completion": Verb(
        "print a script with which a shell completes verbs and options",
        (
            "minimind completion bash",
            "minimind completion fish",
        ),
    ),
}


def load_stage(verb: str) -> "tuple[type[Config], Callable[[Any], None]]":
    """The config class and the `run` of a verb; this imports its module."""
    # `import` is a word of Python's own.
    module = importlib.import_module(f"minimind.stages.{verb}{'_' * keyword.iskeyword(verb)}")
    return getattr(module, f"{verb.capitalize()}Config"), module.run
