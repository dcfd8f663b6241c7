"""How a run trains: the `train` section of every recipe."""

from typing import Literal

from pydantic import Field

from minimind.config import FREE, Config

__all__ = ["TrainConfig", "UpdateConfig"]


class UpdateConfig(Config):
    """How the weights are updated. What is known of the defaults is in docs/experiments/time-to-loss.md."""

    steps: int | None = Field(default=None, ge=1, description="optimiser updates; unset: as many as `epochs` takes")
    epochs: float = Field(default=1.0, gt=0, description="passes over the data, when `steps` is unset")
    accumulate: int = Field(
        default=1, ge=1, json_schema_extra=FREE, description="micro-batches of a step: less memory, the same loss"
    )
    optimizer: Literal["muon", "adamw"] = Field(
        default="muon", description="muon: Muon for matrices, AdamW for the rest"
    )
    muon_lr: float = Field(default=0.02, gt=0, description="peak rate of Muon")
    lr: float = Field(
        default=0.01, gt=0, description="peak rate of AdamW for norms and biases, and for matrices without Muon"
    )
    embedding_lr: float = Field(default=0.01, gt=0, description="peak rate of AdamW for the embedding and the head")
    weight_decay: float = Field(default=0.0, ge=0, description="decoupled decay of matrices")
    beta1: float = Field(default=0.8, ge=0, lt=1, description="AdamW's memory of the gradient")
    beta2: float = Field(default=0.95, ge=0, lt=1, description="AdamW's memory of its square")
    momentum: float = Field(default=0.95, ge=0, lt=1, description="Muon's memory of the gradient")
    schedule: Literal["linear", "cosine"] = Field(default="linear", description="shape of the cool-down")
    warmup_steps: int = Field(default=40, ge=0, description="updates over which the rates rise from 0")
    cooldown: float = Field(default=0.65, ge=0, le=1, description="share of the run over which the rates fall")
    final_scale: float = Field(default=0.05, ge=0, le=1, description="rates at the end, as a share of their peak")
    clip: float = Field(default=1.0, gt=0, description="largest norm of the gradient")
    router_coefficient: float = Field(default=0.01, ge=0, description="weight of the experts' balance (mixtures only)")
    seed: int = Field(default=0, ge=0, description="of weights and data order")
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto", description="of matrix products; auto: bfloat16 where a short probe finds it faster"
    )
    compile: Literal["auto", "on", "off"] = Field(
        default="auto", description="torch.compile; auto: where it pays for itself"
    )
    recompute: bool = Field(
        default=False,
        json_schema_extra=FREE,
        description="recompute blocks in the backward pass: less memory, a third slower",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", json_schema_extra=FREE, description="where to train")
    log_every: int = Field(default=10, ge=1, json_schema_extra=FREE, description="steps between rows of metrics.jsonl")
    valid_every: int = Field(default=250, ge=1, json_schema_extra=FREE, description="steps between validations")
    checkpoint_every: int = Field(default=1000, ge=1, json_schema_extra=FREE, description="steps between checkpoints")
    keep_checkpoints: int = Field(default=2, ge=1, json_schema_extra=FREE, description="newest checkpoints kept")


class TrainConfig(UpdateConfig):
    """Settings for packed rows, where a step is measured in tokens."""

    batch_tokens: int = Field(default=4096, ge=2, description="tokens of a step, over all ranks and micro-batches")
