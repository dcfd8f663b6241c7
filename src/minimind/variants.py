"""What other published families do differently: the second chapter of the model, read after `model.py`.

`model.py` is Qwen3's shape, with switches for Llama's and Qwen2's. A family that departs further is a `VariantConfig`,
which puts its own parts in: Mistral looks back no further than a window, SmolLM3 turns the vectors of some layers not
at all, Granite scales what flows, OLMo 2 normalises what a part adds and not what it reads, Gemma 3 does both and looks
far in every sixth layer only. Fields and parameters have Hugging Face's names where they have one. What a config.json
says of a family is read by `storage/families.py`; what is neither here nor there is refused by name.
"""

from dataclasses import dataclass, replace
from typing import Annotated, Literal, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minimind.model import (
    Attend,
    Attention,
    Block,
    FeedForward,
    ModelConfig,
    RMSNorm,
    Transformer,
    WithinDocuments,
    attend_to_earlier,
    rotary_frequencies,
    rotate,
)

__all__ = [
    "GatedGelu",
    "Near",
    "NormAfterBlock",
    "NormAroundBlock",
    "OffsetNorm",
    "ScaledEmbedding",
    "ScaledNorm",
    "VariantAttention",
    "VariantBlock",
    "VariantConfig",
    "is_near",
]


@dataclass(frozen=True, kw_only=True)
class VariantConfig(ModelConfig):
    """The shape of a model of another family. A default leaves the part as `model.py` has it."""

    model_type: Annotated[str, "the family, by the name that its config.json has"]
    sliding_window: Annotated[int | None, "positions that a query sees, its own included"] = None
    no_rope_layers: Annotated[
        tuple[int, ...], "for each layer 1, or 0 where nothing is turned; empty is 1 for all"
    ] = ()
    embedding_multiplier: Annotated[float, "times what an id becomes"] = 1.0
    attention_multiplier: Annotated[float | None, "times q·k, in place of 1 / √K"] = None
    residual_multiplier: Annotated[float, "times what a part adds to the stream"] = 1.0
    logits_scaling: Annotated[float, "what logits are divided by"] = 1.0
    norms: Annotated[Literal["before", "after", "around"], "normalise what a part reads, what it adds, or both"] = (
        "before"
    )
    norm_offset: Annotated[bool, "a norm's learnt factor is 1 + its weight"] = False
    hidden_act: Annotated[Literal["silu", "gelu_pytorch_tanh"], "of the feed-forward part's gate"] = "silu"
    layer_types: Annotated[
        tuple[str, ...], "for each layer, which attention; empty is the window, if any, for all"
    ] = ()
    rope_local_base_freq: Annotated[
        float | None, "rope_theta of layers with a window; their positions are not scaled"
    ] = None
    qk_norm_across_heads: Annotated[bool, "normalise queries and keys over all heads at once"] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_experts:
            raise ValueError(f"num_experts is {self.num_experts}; expected 0 in a {self.model_type}")
        if self.sliding_window is not None and self.sliding_window < 1:
            raise ValueError(f"sliding_window is {self.sliding_window}; expected at least 1")
        if self.no_rope_layers and len(self.no_rope_layers) < self.num_hidden_layers:
            raise ValueError(f"no_rope_layers has {len(self.no_rope_layers)} items; expected {self.num_hidden_layers}")

    def has_window(self, index: int) -> bool:
        """Does a layer look back no further than a window?"""
        return self.sliding_window is not None and (
            not self.layer_types or self.layer_types[index] == "sliding_attention"
        )

    def feed_forward(self) -> FeedForward:
        part = GatedGelu if self.hidden_act == "gelu_pytorch_tanh" else FeedForward
        return part(self.hidden_size, self.intermediate_size)

    def norm(self, width: int) -> RMSNorm:
        return (OffsetNorm if self.norm_offset else RMSNorm)(width, self.rms_norm_eps)

    def vary(self, model: Transformer) -> None:
        block = {"before": VariantBlock, "after": NormAfterBlock, "around": NormAroundBlock}[self.norms]
        model.layers = nn.ModuleList(block(self, index) for index in range(self.num_hidden_layers))
        model.norm = self.norm(self.hidden_size)
        if self.rope_local_base_freq is not None:
            model.frequencies = _two_frequencies
        if self.embedding_multiplier != 1:
            model.embed_tokens = ScaledEmbedding(self)
        if self.logits_scaling != 1:
            model.norm = ScaledNorm(self)


class ScaledEmbedding(nn.Embedding):
    """Ids -> vectors that are longer than the ones that logits are compared with."""

    def __init__(self, config: VariantConfig) -> None:
        super().__init__(config.vocab_size, config.hidden_size)
        self.multiplier = config.embedding_multiplier

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) * self.multiplier


class ScaledNorm(RMSNorm):
    """The last norm. Logits are linear in what it gives, so theirs is the place to divide them all."""

    def __init__(self, config: VariantConfig) -> None:
        super().__init__(config.hidden_size, config.rms_norm_eps)
        self.divisor = config.logits_scaling

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) / self.divisor


class OffsetNorm(RMSNorm):
    """A norm that begins with weights of 0: what is learnt is added to a factor of 1."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__(width, eps)
        nn.init.zeros_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        y = F.rms_norm(x.float(), self.weight.shape, 1 + self.weight.float(), self.eps)
        device = x.device.type
        return y.to(torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype)


class GatedGelu(FeedForward):
    """The feed-forward part with another gate: GELU by its tanh formula (Hendrycks & Gimpel 2016, arXiv:1606.08415)."""

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.gelu(self.gate_proj(x), approximate="tanh") * self.up_proj(x))


class VariantBlock(Block):
    """A block whose parts may add less than they gave."""

    def __init__(self, config: VariantConfig, index: int) -> None:
        super().__init__(config)
        self.self_attn = VariantAttention(config, index)
        self.mlp = config.feed_forward()
        self.input_layernorm, self.post_attention_layernorm = (config.norm(config.hidden_size) for _ in range(2))
        self.residual_multiplier = config.residual_multiplier

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor], attend: Attend) -> tuple[Tensor, None]:
        x = x + self.self_attn(self.input_layernorm(x), rotation, attend) * self.residual_multiplier
        return x + self.mlp(self.post_attention_layernorm(x)) * self.residual_multiplier, None


class NormAfterBlock(VariantBlock):
    """A block whose parts read the stream as it is; what they add is normalised."""

    def __init__(self, config: VariantConfig, index: int) -> None:
        super().__init__(config, index)
        del self.input_layernorm
        self.post_feedforward_layernorm = config.norm(config.hidden_size)

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor], attend: Attend) -> tuple[Tensor, None]:
        x = x + self.post_attention_layernorm(self.self_attn(x, rotation, attend)) * self.residual_multiplier
        return x + self.post_feedforward_layernorm(self.mlp(x)) * self.residual_multiplier, None


class NormAroundBlock(VariantBlock):
    """A block whose parts read a normalised copy of the stream, and what they add is normalised again."""

    def __init__(self, config: VariantConfig, index: int) -> None:
        super().__init__(config, index)
        self.pre_feedforward_layernorm = config.norm(config.hidden_size)
        self.post_feedforward_layernorm = config.norm(config.hidden_size)

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor], attend: Attend) -> tuple[Tensor, None]:
        y = self.post_attention_layernorm(self.self_attn(self.input_layernorm(x), rotation, attend))
        x = x + y * self.residual_multiplier
        y = self.post_feedforward_layernorm(self.mlp(self.pre_feedforward_layernorm(x)))
        return x + y * self.residual_multiplier, None


class VariantAttention(Attention):
    """Attention that may look back no further than a window, leave queries and keys unturned, or scale otherwise."""

    def __init__(self, config: VariantConfig, index: int) -> None:
        super().__init__(config)
        self.window = config.sliding_window if config.has_window(index) else None
        self.has_two_frequencies = config.rope_local_base_freq is not None
        if config.norm_offset and config.qk_norm:
            self.q_norm, self.k_norm = config.norm(config.head_dim), config.norm(config.head_dim)
        self.is_turned = not config.no_rope_layers or bool(config.no_rope_layers[index])
        self.norms_across_heads = config.qk_norm_across_heads
        if config.qk_norm_across_heads:
            self.q_norm = RMSNorm(config.num_attention_heads * config.head_dim, config.rms_norm_eps)
            self.k_norm = RMSNorm(config.num_key_value_heads * config.head_dim, config.rms_norm_eps)
        # Attention itself divides by √K.
        multiplier = config.attention_multiplier
        self.query_scale = None if multiplier is None else multiplier * config.head_dim**0.5

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor], attend: Attend) -> Tensor:
        heads = (*x.shape[:2], -1, self.head_dim)
        q, k = self.q_proj(x), self.k_proj(x)
        if self.norms_across_heads:
            q, k = self.q_norm(q).view(heads), self.k_norm(k).view(heads)
        else:
            q, k = self.q_norm(q.view(heads)), self.k_norm(k.view(heads))
        # q [B, T, H, K], k [B, T, G, K]
        v = self.v_proj(x).view(heads)  # [B, T, G, K]
        if self.has_two_frequencies:
            rotation = _half(rotation, is_local=self.window is not None)
        if self.is_turned:
            q, k = rotate(q, rotation), rotate(k, rotation)
        if self.query_scale is not None:
            q = q * self.query_scale
        y = attend(q, k, v) if self.window is None else _attend_near(attend, q, k, v, self.window)  # pyright: ignore[reportCallIssue]
        return self.o_proj(y.flatten(2))


def _two_frequencies(config: ModelConfig, device: torch.device | str = "cpu") -> tuple[Tensor, float]:
    """Those of layers that see all, then those of layers with a window, [K]."""
    local = cast(VariantConfig, config).rope_local_base_freq
    assert local is not None
    plain = replace(config, rope_theta=local, rope_scaling=None)
    far, scale = rotary_frequencies(config, device)
    assert scale == 1, f"positions scaled by {config.rope_scaling}: both halves would be multiplied by {scale}"
    return torch.cat([far, rotary_frequencies(plain, device)[0]]), 1.0


def _half(rotation: tuple[Tensor, Tensor], *, is_local: bool) -> tuple[Tensor, Tensor]:
    cos, sin = (part.chunk(2, dim=-1)[is_local] for part in rotation)
    return cos, sin


class Near(Protocol):
    """What a cache gives as its way to attend: it knows how far the stored tokens are away."""

    def near(self, q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor: ...


def is_near(queries: Tensor, keys: Tensor, window: int) -> Tensor:
    """Which keys each query sees, True where it does: itself and window - 1 before. Positions [..., T, 1], [S]."""
    return (keys <= queries) & (keys > queries - window)


# As `WithinDocuments`: compiled code would be made anew for each batch's lengths.
@torch.compiler.disable
def _attend_near(attend: Attend, q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    """The same as `attend`, but that what is further away is not seen."""
    if attend is attend_to_earlier:
        return _attend_near_in_row(q, k, v, window)
    if not isinstance(attend, WithinDocuments):
        return cast(Near, attend).near(q, k, v, window)
    if max(attend.lengths) <= window:
        return cast(Attend, attend)(q, k, v)
    parts = zip(*(x.flatten(0, 1).unsqueeze(0).split(attend.lengths, dim=1) for x in (q, k, v)), strict=True)
    return torch.cat([_attend_near_in_row(*part, window=window) for part in parts], dim=1).view(q.shape)


def _attend_near_in_row(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    if q.shape[1] <= window:
        return attend_to_earlier(q, k, v)
    places = torch.arange(q.shape[1], device=q.device)
    return attend_to_earlier(q, k, v, is_near(places[:, None], places, window)[None, None])
