"""How a run trains: the `train` section of every recipe."""

from typing import Literal

from minimind.config import Config, Device, option

__all__ = ["TrainConfig", "UpdateConfig"]


class UpdateConfig(Config):
    """How the weights are updated. What is known of the defaults is in docs/experiments/time-to-loss.md."""

    steps: int | None = option(None, "optimiser updates; unset: as many as `epochs` takes", ge=1)
    epochs: float | None = option(
        None, "passes over the data, when `steps` is unset; unset: 1, more of little data", gt=0
    )
    accumulate: int = option(1, "micro-batches of a step: less memory, the same loss", kind="free", ge=1)
    optimizer: Literal["muon", "adamw"] = option("muon", "muon: Muon for matrices, AdamW for the rest")
    muon_lr: float = option(0.02, "peak rate of Muon", gt=0)
    lr: float = option(0.01, "peak rate of AdamW for norms and biases, and for matrices without Muon", gt=0)
    embedding_lr: float = option(0.01, "peak rate of AdamW for the embedding and the head", gt=0)
    weight_decay: float = option(0.0, "decoupled decay of matrices", ge=0)
    beta1: float = option(0.8, "AdamW's memory of the gradient", ge=0, lt=1)
    beta2: float = option(0.95, "AdamW's memory of its square", ge=0, lt=1)
    momentum: float = option(0.95, "Muon's memory of the gradient", ge=0, lt=1)
    schedule: Literal["linear", "cosine"] = option("linear", "shape of the cool-down")
    warmup_steps: int | None = option(
        None, "updates over which the rates rise from 0; unset: a tenth of them, 40 at most", ge=0
    )
    cooldown: float = option(0.65, "share of the run over which the rates fall", ge=0, le=1)
    final_scale: float = option(0.05, "rates at the end, as a share of their peak", ge=0, le=1)
    clip: float = option(1.0, "largest norm of the gradient", gt=0)
    router_coefficient: float = option(0.01, "weight of the experts' balance (mixtures only)", ge=0)
    seed: int = option(0, "of weights and data order", ge=0)
    dtype: Literal["auto", "float32", "bfloat16"] = option(
        "auto", "of matrix products; auto: bfloat16 where a short probe finds it faster"
    )
    compile: Literal["auto", "on", "off"] = option("auto", "torch.compile; auto: where it pays for itself")
    recompute: bool = option(False, "recompute blocks in the backward pass: less memory, a third slower", kind="free")
    device: Device = option("auto", "where to train", kind="free")
    log_every: int = option(10, "steps between rows of metrics.jsonl", kind="free", ge=1)
    valid_every: int = option(250, "steps between validations", kind="free", ge=1)
    checkpoint_every: int = option(1000, "steps between checkpoints", kind="free", ge=1)
    checkpoint_minutes: float = option(
        10.0, "minutes after which a checkpoint is due, too; 0 is never", kind="free", ge=0
    )
    keep_checkpoints: int = option(2, "newest checkpoints kept", kind="free", ge=1)


class TrainConfig(UpdateConfig):
    """Settings for packed rows, where a step is measured in tokens."""

    batch_tokens: int | None = option(
        None, "tokens of a step, over all ranks and micro-batches; unset: 4096, fewer of little data", ge=2
    )
