"""A name that other programs use is answered with the one that means the same here."""

import pytest

from minimind.config import options
from minimind.stages import VERBS, load_stage
from minimind.suggestions import MEANINGS, nearest

NAMES = {verb: [option.name for option in options(load_stage(verb)[0])] for verb in VERBS}


@pytest.mark.parametrize(
    ("verb", "elsewhere", "here"),
    [
        ("pretrain", "learning_rate", "train.lr"),
        ("pretrain", "epochs", "train.epochs"),
        ("sft", "num_train_epochs", "train.epochs"),
        ("sft", "batch_size", "train.batch_tokens"),
        ("dpo", "batch_size", "data.batch_pairs"),
        ("dpo", "data.batch_tokens", "data.batch_pairs"),
        ("pretrain", "max_seq_len", "data.context"),
        ("pretrain", "block_size", "data.context"),
        ("sft", "warmup_ratio", "train.warmup_steps"),
        ("sft", "output_dir", "run"),
        ("export", "output_dir", "out"),
        ("sft", "gradient_accumulation_steps", "train.accumulate"),
        ("grpo", "num_generations", "rollout.group"),
        ("distill", "model_path", "base"),
        ("sft", "model_path", "model"),
        ("chat", "max_new_tokens", "sampling.max_tokens"),
    ],
)
def test_names_of_other_programs_are_understood(verb: str, elsewhere: str, here: str) -> None:
    assert nearest(elsewhere, NAMES[verb]) == here


def test_every_suggestion_is_an_option_of_some_verb() -> None:
    every = {name for names in NAMES.values() for name in names}
    assert {here for meant in MEANINGS.values() for here in meant} - every == set()


def test_the_nearest_name_prefers_the_same_last_part() -> None:
    assert nearest("lr", ["train.lr", "lrs"]) == "train.lr"
    assert nearest("train.stpes", ["train.steps", "run"]) == "train.steps"
    assert nearest("zzz", ["train.lr"]) is None
