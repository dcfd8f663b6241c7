"""What tests of the training stages share: a tiny model on disk, and a command line."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.stages.tiny_runs import REWARDS
from tests.tiny import write_rows

from minimind.cli import main
from minimind.model import ModelConfig, Transformer
from minimind.storage.checkpoint import save_checkpoint
from minimind.text.tokenizer import Tokenizer
from minimind.tools.builtin import TOOLS

QUICK = {"train.dtype": "float32", "train.device": "cpu", "train.compile": "off", "train.warmup_steps": 1}


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model of 30 thousand parameters whose tokenizer knows digits and a few words."""
    folder = tmp_path_factory.mktemp("tiny") / "model"
    tokenizer = Tokenizer.train(["what is one plus two? the answer is three. 1 2 3 4 5 6 7 8 9 0 " * 9], 316)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    torch.manual_seed(0)
    model = Transformer(ModelConfig(vocab_size=tokenizer.vocab_size, head_dim=8, intermediate_size=64, **shape))
    save_checkpoint(folder, model, tokenizer)
    return folder


@pytest.fixture(scope="session")
def command() -> Callable[..., int]:
    """`command("dpo", {"run": ..., "train.steps": 3})` is `minimind dpo --run ... --train.steps 3`."""

    def run(verb: str, options: dict[str, Any]) -> int:
        words: list[str] = []
        for name, value in {**QUICK, **options}.items():
            words += [f"--{name}", *(map(str, value) if isinstance(value, list) else [str(value)])]
        return main([verb, *words])

    return run


@pytest.fixture(scope="session")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [
        {
            "conversations": [
                {"role": "system", "content": "", "tools": json.dumps([TOOLS["calculate_math"].schema])},
                {"role": "user", "content": f"what is {number} plus one?"},
                {"role": "assistant", "content": ""},
            ],
            "gt": [str(number + 1)],
        }
        for number in range(9)
    ]
    return write_rows(tmp_path_factory.mktemp("prompts") / "prompts.jsonl", rows)


@pytest.fixture(scope="session")
def rewards(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`tiny_rewards`, a module of rewards that can be imported."""
    folder = tmp_path_factory.mktemp("rewards")
    (folder / "tiny_rewards.py").write_text(REWARDS)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield "tiny_rewards"
