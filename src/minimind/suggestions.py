"""The name that somebody meant who wrote another: by its last part, by what other programs call it, by its spelling."""

import difflib
from collections.abc import Iterable

__all__ = ["MEANINGS", "nearest"]

# What it is called elsewhere -> what it is called here; of several, the first that a verb has.
_STEP = ("train.batch_tokens", "data.batch_pairs", "rollout.prompts")
_LENGTH = ("data.context", "context", "max_tokens")
_ADAPTER = {"r": "lora.rank", "lora_r": "lora.rank", "lora_rank": "lora.rank", "target_modules": "lora.targets"}
MEANINGS: dict[str, tuple[str, ...]] = {
    **{name: (here,) for name, here in _ADAPTER.items()},
    **dict.fromkeys(("batch_size", "batch_tokens", "batch_pairs", "per_device_train_batch_size"), _STEP),
    **dict.fromkeys(("max_length", "max_seq_len", "max_seq_length", "block_size", "seq_len", "n_ctx"), _LENGTH),
    **dict.fromkeys(("max_new_tokens", "max_completion_length"), ("sampling.max_tokens", "rollout.max_tokens")),
    **dict.fromkeys(("learning_rate", "max_lr", "peak_lr"), ("train.lr",)),
    **dict.fromkeys(("num_train_epochs", "num_epochs", "n_epochs"), ("train.epochs",)),
    **dict.fromkeys(("max_steps", "num_steps", "max_iters", "train_steps", "iterations"), ("train.steps",)),
    **dict.fromkeys(("warmup_ratio", "warmup", "warmup_iters", "num_warmup_steps"), ("train.warmup_steps",)),
    **dict.fromkeys(("gradient_accumulation_steps", "accumulation_steps", "grad_accum"), ("train.accumulate",)),
    **dict.fromkeys(("max_grad_norm", "grad_clip", "gradient_clip", "clip_grad"), ("train.clip",)),
    **dict.fromkeys(("lr_scheduler", "lr_scheduler_type", "scheduler"), ("train.schedule",)),
    **dict.fromkeys(("optim", "optimizer_type"), ("train.optimizer",)),
    **dict.fromkeys(("adam_beta1", "adam_beta_1"), ("train.beta1",)),
    **dict.fromkeys(("adam_beta2", "adam_beta_2"), ("train.beta2",)),
    **dict.fromkeys(("logging_steps", "log_interval"), ("train.log_every",)),
    **dict.fromkeys(("eval_steps", "eval_interval", "eval_every"), ("train.valid_every",)),
    **dict.fromkeys(("save_steps", "save_interval", "save_every"), ("train.checkpoint_every",)),
    "save_total_limit": ("train.keep_checkpoints",),
    **dict.fromkeys(("bf16", "fp16", "mixed_precision", "torch_dtype"), ("train.dtype", "precision", "dtype")),
    **dict.fromkeys(("gradient_checkpointing", "activation_checkpointing"), ("train.recompute",)),
    **dict.fromkeys(("torch_compile", "use_compile"), ("train.compile",)),
    **dict.fromkeys(("random_seed", "random_state"), ("train.seed", "sampling.seed")),
    **dict.fromkeys(("output_dir", "save_dir", "output", "save_path", "out_dir"), ("run", "out")),
    **dict.fromkeys(("model_name_or_path", "model_name", "model_path", "checkpoint", "load_from"), ("base", "model")),
    **dict.fromkeys(("data_path", "dataset", "train_data", "train_file", "data_dir"), ("data.source", "source")),
    **dict.fromkeys(("tokenizer_path", "tokenizer_name"), ("tokenizer",)),
    **dict.fromkeys(("n_layer", "n_layers", "num_layers", "depth"), ("model.num_hidden_layers",)),
    **dict.fromkeys(("n_head", "n_heads", "num_heads"), ("model.num_attention_heads",)),
    **dict.fromkeys(("n_embd", "d_model", "dim", "embed_dim", "width"), ("model.hidden_size",)),
    **dict.fromkeys(("use_moe", "n_routed_experts"), ("model.num_experts",)),
    **dict.fromkeys(("num_generations", "group_size", "num_return_sequences"), ("rollout.group", "samples")),
    **dict.fromkeys(("reward_funcs", "reward_model", "reward_fn"), ("rollout.rewards",)),
    **dict.fromkeys(("kl_coef", "kl_beta", "init_kl_coef"), ("grpo.kl_coefficient", "ppo.kl_coefficient")),
    "system_prompt": ("system",),
}


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The name meant: the same last part first (`steps` -> `train.steps`), then the same meaning, then the spelling."""
    names = list(names)
    by_tail = {candidate.rpartition(".")[2]: candidate for candidate in reversed(names)}
    tail = name.rpartition(".")[2]
    if tail in by_tail:
        return by_tail[tail]
    if meant := next((here for here in MEANINGS.get(tail.lower(), ()) if here in names), None):
        return meant
    close = difflib.get_close_matches(name, names, 1) or difflib.get_close_matches(tail, by_tail, 1)
    return by_tail.get(close[0], close[0]) if close else None
