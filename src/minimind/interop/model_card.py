"""README.md of a published model, from what its run recorded: shape, data, figures, recipe. Nothing is invented.

Which licence and which intended use is for whoever publishes to say; the card leaves a line for each.
"""

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from minimind.errors import RunError
from minimind.model import Transformer
from minimind.storage.provenance import without_home
from minimind.storage.run import RunReader
from minimind.text.chat_template import THINK_MARKS, TOOL_MARKS
from minimind.text.tokenizer import Tokenizer

__all__ = ["find_run", "model_card"]

# A run's figures that say how good a model is, or what it cost, in the words of a card.
FIGURES = {
    "bits_per_byte": "bits per byte, held-out text",
    "valid_loss": "loss, held-out text (nats per token)",
    "reward": "reward",
    "accuracy": "accuracy",
    "loss": "training loss at the end",
    "step": "steps",
    "tokens": "tokens trained on",
    "seconds": "seconds of training",
}
# How each library uses the folder NAME.
USES = {
    "transformers": """## Use

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("NAME")
model = AutoModelForCausalLM.from_pretrained("NAME")
messages = [{"role": "user", "content": "Hello"}]
inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=64)[0]))
```""",
    "transformers.js": """## Use

```js
import {pipeline} from "@huggingface/transformers";

const generate = await pipeline("text-generation", "NAME", {dtype: "fp32"});
const answer = await generate([{role: "user", content: "Hello"}], {max_new_tokens: 64});
console.log(answer[0].generated_text.at(-1).content);
```""",
}


def find_run(folder: Path) -> RunReader | None:
    """The run that a model folder belongs to: itself, or the one that it is a checkpoint of."""
    checkpoint = folder.resolve()
    for place in (folder, checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else folder):
        with suppress(RunError):
            return RunReader.open(place)
    return None


def model_card(
    name: str,
    model: Transformer,
    tokenizer: Tokenizer,
    run: RunReader | None,
    dtype: str,
    *,
    library: Literal["transformers", "transformers.js"] = "transformers",
) -> str:
    """Markdown with the front matter that the hub reads.

    run:      None for a model that was not trained here
    dtype:    of the weights, as in "bfloat16"
    library:  that reads the folder
    """
    config = model.config
    total = sum(parameter.numel() for parameter in model.parameters())
    experts = f", {config.num_experts} experts of which a token takes {config.num_experts_per_tok}"
    knows = [
        what
        for what, names in (("thinking", THINK_MARKS), ("tools", TOOL_MARKS))
        if tokenizer.control_names >= {*names}
    ]
    parts = [
        "---\n# license: choose one; it has to fit the data below\n"
        f"library_name: {library}\n"
        "pipeline_tag: text-generation\ntags: [minimind]\n---",
        f"# {name}",
        f"{total / 1e6:.1f}M parameters in {dtype}: {config.num_hidden_layers} layers, width {config.hidden_size}, "
        f"{config.num_attention_heads} heads ({config.num_key_value_heads} for keys and values) of "
        f"{config.head_dim}{experts if config.num_experts else ''}; context {config.max_position_embeddings:,} tokens. "
        f"Vocabulary: {tokenizer.vocab_size:,} tokens, byte-level BPE, split as {tokenizer.pattern}; "
        f"chat template with {' and '.join(knows) or 'neither thinking nor tools'}.",
        USES[library].replace("NAME", name),
        *(_about_run(run) if run else ["## Training\n\nNot recorded: this model was not trained in a run folder."]),
        "## Intended use and limits\n\nTo be written by whoever publishes it.",
    ]
    return "\n\n".join(parts) + "\n"


def _about_run(run: RunReader) -> Iterable[str]:
    environment, config = run.environment(), run.config()
    stage = str(environment.get("stage", "training"))
    figures = _last_figures(run.metrics())
    table = [f"| {FIGURES[key]} | {_number(value)} |" for key, value in figures.items()]
    table += [f"| {name} | {_number(value)} |" for name, value in _evaluation(run.folder)]
    yield "\n".join(["## Figures\n", "| figure | value |", "|---|---|", *(table or ["| none recorded | |"])])
    data = config.get("data")
    sources = data.get("source") if isinstance(data, dict) else None
    named = [
        f"- {without_home(str(source))}" for source in (sources if isinstance(sources, list) else [sources]) if source
    ]
    yield "\n".join(["## Data\n", *(named or ["- not recorded"])])
    machine = ", ".join(str(environment[key]) for key in ("cpu", "system") if environment.get(key))
    versions = environment.get("versions") or {}
    torch_version = versions.get("torch", "unknown") if isinstance(versions, dict) else "unknown"
    recipe = without_home((run.folder / "recipe.toml").read_text(encoding="utf-8"))
    yield (
        f"## Recipe\n\nStage `{stage}`, torch {torch_version}, {machine or 'machine unknown'}. "
        f"`minimind {stage} recipe.toml` starts the same run again.\n\n```toml\n{recipe.strip()}\n```"
    )


def _last_figures(rows: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """The last value of each figure that was recorded at all."""
    last: dict[str, float] = {}
    for row in rows:
        last |= {key: row[key] for key in FIGURES if isinstance(row.get(key), int | float)}
    return {key: last[key] for key in FIGURES if key in last}


def _evaluation(folder: Path) -> list[tuple[str, float]]:
    """What `minimind evaluate` left in the run."""
    path = folder / "evaluation.json"
    if not path.is_file():
        return []
    try:
        figures = json.loads(path.read_bytes()).get("figures", {})
        return [(str(name), value) for name, value in figures.items() if isinstance(value, int | float)]
    except (ValueError, AttributeError) as error:
        raise RunError(f"{path}: not what `minimind evaluate` writes: {error}; remove it or evaluate again") from None


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"
