"""The language model: a Qwen3-shaped decoder, dense or mixture of experts, to be read from the top as a chapter.

Ids become vectors (`embed_tokens`), pass through a stack of `Block`s, each of which lets every position look at the
ones before it (`Attention`) and then think on its own (`FeedForward` or `MixtureOfExperts`), and are compared with each
vector of the vocabulary to give a score for the next id (`logits`). Nothing here knows of losses, sampling or files.

Legend: B batch, T time, D width, H query heads, G key/value heads, K head width, V vocabulary, E experts.
Names of fields and parameters are those of Hugging Face's Qwen3, so that a checkpoint needs no translation.
This file needs torch alone. Next: `interfaces.py`, then `training/trainer.py`, then `training/fit.py`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

__all__ = [
    "Attend",
    "Attention",
    "Block",
    "Cache",
    "FeedForward",
    "HiddenStates",
    "MixtureOfExperts",
    "ModelConfig",
    "RMSNorm",
    "Transformer",
    "WithinDocuments",
    "attend_to_earlier",
    "rotary_frequencies",
    "rotate",
]

# Up to this length, scores of all pairs at once are small enough to be faster than a kernel that never holds them.
LONGEST_PLAIN_PRODUCT = 1024

# How positions may be scaled, and the numbers that each needs.
SCALINGS = {
    "default": (),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
    "yarn": ("factor",),
}

# Queries [B, T, H, K], keys and values [B, T, G, K] -> what each query gathers, [B, T, H, K].
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The shape of a model. Defaults are the 26M preset; field names are Hugging Face's.

    qk_norm off and attention_bias off is Llama's shape; qk_norm off and attention_bias on is Qwen2's.
    """

    vocab_size: Annotated[int, "rows of the embedding; 6400 stands for as many as the tokenizer has"] = 6400
    hidden_size: Annotated[int, "width of the stream, D"] = 512
    num_hidden_layers: Annotated[int, "blocks"] = 8
    num_attention_heads: Annotated[int, "query heads, H"] = 8
    num_key_value_heads: Annotated[int, "key/value heads, G; each serves H / G query heads"] = 4
    head_dim: Annotated[int, "width of a head, K"] = 64
    intermediate_size: Annotated[int, "inner width of the feed-forward part"] = 1408
    max_position_embeddings: Annotated[int, "longest context"] = 32768
    rope_theta: Annotated[float, "base of the rotary frequencies"] = 1e6
    rope_scaling: Annotated[dict[str, Any] | None, "a table with rope_type (yarn, llama3, linear) and factor"] = None
    rms_norm_eps: Annotated[float, "keeps a norm from dividing by zero"] = 1e-6
    tie_word_embeddings: Annotated[bool, "the embedding is the output matrix, too"] = True
    qk_norm: Annotated[bool, "normalise queries and keys"] = True
    attention_bias: Annotated[bool, "add a bias to queries, keys and values"] = False
    output_bias: Annotated[bool, "and one to what attention gives, as Llama and Qwen3 do"] = False
    num_experts: Annotated[int, "feed-forward parts of a mixture, E; 0 is a dense model"] = 0
    num_experts_per_tok: Annotated[int, "experts that a token takes"] = 1
    moe_intermediate_size: Annotated[int, "inner width of an expert"] = 1408
    # Where a token takes one expert alone, the router could not learn then.
    norm_topk_prob: Annotated[bool, "the chosen experts' weights sum to 1; not with one expert a token"] = False

    def __post_init__(self) -> None:
        sizes = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
        for name in (*sizes, "head_dim", "intermediate_size", "moe_intermediate_size", "max_position_embeddings"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected at least 1")
        heads, groups = self.num_attention_heads, self.num_key_value_heads
        if heads % groups:
            raise ValueError(f"num_attention_heads is {heads}; expected a multiple of num_key_value_heads ({groups})")
        if self.head_dim % 2:
            raise ValueError(f"head_dim is {self.head_dim}; expected an even number, rotary positions turn pairs")
        if self.num_experts and not 1 <= self.num_experts_per_tok <= self.num_experts:
            raise ValueError(f"num_experts_per_tok is {self.num_experts_per_tok}; expected 1 to {self.num_experts}")
        scaling = self.rope_scaling or {}
        needed = SCALINGS.get(scaling.get("rope_type", "default"))
        if needed is None or not all(isinstance(scaling.get(name), int | float) for name in needed):
            needs = f"the numbers {', '.join(needed)}" if needed else f"a rope_type of {', '.join(SCALINGS)}"
            raise ValueError(f"rope_scaling is {scaling}; expected {needs}")

    def vary(self, model: "Transformer") -> None:
        """Put in what another family has in place of the parts below: `variants.py`. This one's are as they stand."""


class Cache(Protocol):
    """Keys and values of earlier tokens: `generation/cache.py` has one.

    lengths: [B] int64, the tokens stored of each row
    """

    lengths: Tensor

    def layer(self, index: int, positions: Tensor) -> Attend: ...


class HiddenStates(NamedTuple):
    """What the stack of blocks gives.

    states:        [B, T, D] after the last norm, ready for `Transformer.logits`
    router_logits: one [B*T, E] per layer, for a loss that balances the experts; empty when dense
    """

    states: Tensor
    router_logits: tuple[Tensor, ...]


class Transformer(nn.Module):
    """Ids -> hidden states -> logits."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.frequencies = rotary_frequencies
        config.vary(self)
        self.lm_head = None if config.tie_word_embeddings else nn.Linear(config.hidden_size, config.vocab_size, False)
        # Recompute each block in the backward pass instead of keeping its activations: less memory, a third more time.
        self.recompute_blocks = False
        self.initialise()

    @torch.no_grad()
    def initialise(self) -> None:
        """Small normal weights; zero where a block writes to the residual stream, so that depth starts harmless."""
        for name, parameter in self.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight", "bias")):
                parameter.zero_()
            elif parameter.ndim == 2:
                nn.init.normal_(parameter, std=0.02)

    @property
    def output_weight(self) -> Tensor:
        """[V, D]: the vectors that hidden states are compared with; the embedding itself when tied."""
        return self.embed_tokens.weight if self.lm_head is None else self.lm_head.weight

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, T] ids -> [B, T, V] logits, in float32."""
        return self.logits(self.hidden_states(tokens).states)

    def logits(self, states: Tensor) -> Tensor:
        """[..., D] hidden states -> [..., V] logits, in float32."""
        return F.linear(states, self.output_weight).float()

    def hidden_states(
        self, tokens: Tensor, lengths: tuple[int, ...] | None = None, cache: "Cache | None" = None
    ) -> HiddenStates:
        """[B, T] ids -> hidden states [B, T, D].

        lengths: of the documents packed in the rows, in reading order, summing to B*T; none then sees another.
                 None makes each row one document.
        cache:   keys and values of earlier tokens; the new ones are stored behind them, at each row's own length.
        """
        positions = _positions(tokens, lengths, cache)
        frequencies, scale = self.frequencies(self.config, tokens.device)
        angles = positions[..., None] * frequencies
        rotation = (angles.cos() * scale, angles.sin() * scale)

        x, router_logits = self.embed_tokens(tokens), []
        attend: Attend = attend_to_earlier if lengths is None else cast(Attend, WithinDocuments(lengths))
        for index, block in enumerate(self.layers):
            if cache is not None:
                attend = cache.layer(index, positions)
            if self.recompute_blocks and torch.is_grad_enabled():
                x, router = checkpoint(block, x, rotation, attend, use_reentrant=False)
            else:
                x, router = block(x, rotation, attend)
            router_logits += [] if router is None else [router]
        return HiddenStates(self.norm(x), tuple(router_logits))


class Block(nn.Module):
    """Attention, then a feed-forward part; each reads a normalised copy of the stream and adds to it."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.input_layernorm = RMSNorm(width, config.rms_norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(width, config.rms_norm_eps)
        self.mlp = MixtureOfExperts(config) if config.num_experts else FeedForward(width, config.intermediate_size)

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor], attend: Attend) -> tuple[Tensor, Tensor | None]:
        """[B, T, D] -> ([B, T, D], a mixture's router logits [B*T, E])."""
        x = x + self.self_attn(self.input_layernorm(x), rotation, attend)
        y = self.post_attention_layernorm(x)
        if isinstance(self.mlp, MixtureOfExperts):
            y, router_logits = self.mlp(y)
            return x + y, router_logits
        return x + self.mlp(y), None


class Attention(nn.Module):
    """Each position gathers values from positions before it, weighted by how well its query fits their keys.

    Several query heads share one key/value head (grouped-query attention, Ainslie et al. 2023, arXiv:2305.13245).
    Queries and keys are normalised per head before they are turned (Qwen3), which keeps the scores bounded.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, head_dim, bias = config.hidden_size, config.head_dim, config.attention_bias
        self.head_dim = head_dim
        self.q_proj = nn.Linear(width, config.num_attention_heads * head_dim, bias)
        self.k_proj = nn.Linear(width, config.num_key_value_heads * head_dim, bias)
        self.v_proj = nn.Linear(width, config.num_key_value_heads * head_dim, bias)
        self.o_proj = nn.Linear(config.num_attention_heads * head_dim, width, config.output_bias)
        self.q_norm = RMSNorm(head_dim, config.rms_norm_eps) if config.qk_norm else nn.Identity()
        self.k_norm = RMSNorm(head_dim, config.rms_norm_eps) if config.qk_norm else nn.Identity()

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor], attend: Attend) -> Tensor:
        heads = (*x.shape[:2], -1, self.head_dim)
        q = rotate(self.q_norm(self.q_proj(x).view(heads)), rotation)  # [B, T, H, K]
        k = rotate(self.k_norm(self.k_proj(x).view(heads)), rotation)  # [B, T, G, K]
        v = self.v_proj(x).view(heads)  # [B, T, G, K]
        return self.o_proj(attend(q, k, v).flatten(2))  # [B, T, D]


class FeedForward(nn.Module):
    """SwiGLU: a gate decides how much of each feature passes (Shazeer 2020, arXiv:2002.05202)."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(width, inner, False)
        self.up_proj = nn.Linear(width, inner, False)
        self.down_proj = nn.Linear(inner, width, False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))  # [..., D]


class MixtureOfExperts(nn.Module):
    """Several feed-forward parts, of which a router picks the best few for each token (Qwen3-MoE's semantics)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.num_chosen, self.norm_topk_prob = config.num_experts_per_tok, config.norm_topk_prob
        self.gate = nn.Linear(config.hidden_size, config.num_experts, False)
        inner = config.moe_intermediate_size
        self.experts = nn.ModuleList(FeedForward(config.hidden_size, inner) for _ in range(config.num_experts))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[B, T, D] -> ([B, T, D], router logits [B*T, E])."""
        flat = x.flatten(0, 1)
        logits = self.gate(flat).float()  # [N, E]
        weights, chosen = logits.softmax(-1).topk(self.num_chosen)  # [N, k]
        if self.norm_topk_prob:
            weights = weights / weights.sum(-1, keepdim=True)
        # Sorting by expert turns the choice into one plain matrix product per expert.
        order = chosen.flatten().argsort(stable=True)
        rows = order // self.num_chosen
        counts = torch.bincount(chosen.flatten(), minlength=len(self.experts)).tolist()
        parts = flat[rows].split(counts)
        # An expert without tokens still runs, on zero rows, so that each parameter always has a gradient.
        outputs = torch.cat([expert(part) for expert, part in zip(self.experts, parts, strict=True)])
        weighted = outputs * weights.flatten()[order, None].to(outputs.dtype)
        y = torch.zeros_like(flat, dtype=weighted.dtype).index_add(0, rows, weighted)
        return y.view(x.shape), logits


class RMSNorm(nn.Module):
    """Scale each vector to root mean square 1, then by a learnt factor (Zhang & Sennrich 2019, arXiv:1910.07467)."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        # Under autocast the stream stays in float32 and its normalised copies are what the products take.
        device = x.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
        y = x.float()
        return (y * torch.rsqrt(y.square().mean(-1, keepdim=True) + self.eps) * self.weight).to(dtype)  # [..., D]


def rotary_frequencies(config: ModelConfig, device: torch.device | str = "cpu") -> tuple[Tensor, float]:
    """Radians per position of each pair of coordinates, [K/2], and a factor on the turned vectors.

    For a context that is longer than the one trained with, slow pairs are slowed by rope_scaling's factor and fast ones
    kept: by how often they turn in that context (Llama 3), or with a ramp over the pairs (YaRN); linear slows all.
    Source:  Su et al. 2021, arXiv:2104.09864; YaRN: Peng et al. 2023, arXiv:2309.00071; Llama 3: arXiv:2407.21783.
    """
    half = config.head_dim // 2
    frequencies = 1 / config.rope_theta ** (torch.arange(half, dtype=torch.float32, device=device) / half)
    scaling = config.rope_scaling or {}
    kind, factor = scaling.get("rope_type", "default"), scaling.get("factor", 1.0)
    if kind in ("default", "linear"):
        return frequencies / factor, 1.0
    context = scaling.get("original_max_position_embeddings") or config.max_position_embeddings
    if kind == "llama3":
        low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
        kept, attention_factor = (context * frequencies / (2 * math.pi) - low) / (high - low), 1.0
    else:
        # The pairs that make so many full turns within the original context; the ramp lies between the two.
        turns = [scaling.get("beta_fast") or 32, scaling.get("beta_slow") or 1]
        fast, slow = (half * math.log(context / (times * 2 * math.pi)) / math.log(config.rope_theta) for times in turns)
        low, high = max(math.floor(fast), 0), min(math.ceil(slow), config.head_dim - 1)
        kept = 1 - (torch.arange(half, device=device) - low) / max(high - low, 0.001)
        attention_factor = scaling.get("attention_factor") or 0.1 * math.log(max(factor, 1)) + 1
    kept = kept.clamp(0, 1)
    return frequencies / factor * (1 - kept) + frequencies * kept, attention_factor


def rotate(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Turn each pair (x[i], x[i + K/2]) by its position's angle, so that q·k depends only on relative position.

    x:        [B, T, heads, K]
    rotation: cosines and sines of the angles, each [T, K/2] or [B, T, K/2]
    Source:   Su et al. 2021, arXiv:2104.09864, eq. 34; the half-split pairing of HF Llama, not the paper's.
    """
    cos, sin = (part.unsqueeze(-2).to(x.dtype) for part in rotation)
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)


def attend_to_earlier(q: Tensor, k: Tensor, v: Tensor, visible: Tensor | None = None) -> Tensor:
    """Each row is one document: every query sees its own position and those before it.

    visible: [B, 1, T, S] replaces that rule when keys and values are S stored positions.
    """
    if visible is None and q.dtype == torch.bfloat16 and not q.is_cuda and q.shape[1] <= LONGEST_PLAIN_PRODUCT:
        return _attend_by_plain_products(q, k, v)
    q, k, v = (part.transpose(1, 2) for part in (q, k, v))
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=visible, is_causal=visible is None, enable_gqa=True)
    return y.transpose(1, 2)


def _attend_by_plain_products(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The same as one formula, softmax(q·k / √K) v: twice as fast as the kernel on a CPU that multiplies bfloat16."""
    batch, time, heads, width = q.shape
    groups = k.shape[2]
    q = q.transpose(1, 2).reshape(batch, groups, -1, width) * width**-0.5  # [B, G, H/G*T, K]
    k, v = k.transpose(1, 2), v.transpose(1, 2)  # [B, G, T, K]
    scores = (q @ k.mT).view(batch, heads, time, time)
    scores += torch.full((time, time), -math.inf, dtype=q.dtype, device=q.device).triu(1)
    shares = scores.softmax(-1).view(batch, groups, -1, time)
    return (shares @ v).view(batch, heads, time, width).transpose(1, 2)


class WithinDocuments:
    """Rows hold several documents: the same, for each on its own. No mask, and no work across documents.

    lengths: of the documents in reading order, summing to B*T
    """

    def __init__(self, lengths: tuple[int, ...]) -> None:
        self.lengths = lengths

    # Compiled code would look at the lengths, which differ from batch to batch, and be made anew for each.
    @torch.compiler.disable
    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        flat = [x.flatten(0, 1) for x in (q, k, v)]  # [B*T, heads, K]
        return _attend_apart(*flat, self.lengths).view(q.shape)  # pyright: ignore[reportCallIssue]


def _attend_apart(q: Tensor, k: Tensor, v: Tensor, lengths: tuple[int, ...]) -> Tensor:
    """q [N, H, K], k and v [N, G, K] of documents one after the other -> [N, H, K]."""
    if q.is_cuda and q.dtype in (torch.bfloat16, torch.float16):
        from torch.nn.attention.varlen import varlen_attn

        ends = torch.tensor((0, *lengths), device=q.device).cumsum(0, dtype=torch.int32)
        sizes = (ends, ends, max(lengths), max(lengths))
        return cast(Tensor, varlen_attn(q, k, v, *sizes, window_size=(-1, 0), enable_gqa=True))
    # One `split` has one backward; slicing would zero and add a full-size gradient for each document.
    parts = zip(*(x.unsqueeze(0).split(lengths, dim=1) for x in (q, k, v)), strict=True)
    return torch.cat([attend_to_earlier(*part) for part in parts], dim=1)


def _positions(tokens: Tensor, lengths: tuple[int, ...] | None, cache: Cache | None) -> Tensor:
    """[T], or [B, T] where rows differ: each token's place in its own document."""
    time = torch.arange(tokens.shape[1], device=tokens.device)
    if cache is not None:
        return cache.lengths[:, None] + time
    if lengths is None:
        return time
    assert sum(lengths) == tokens.numel(), f"lengths sum to {sum(lengths)}, tokens are {tuple(tokens.shape)}"
    counts = torch.tensor(lengths, device=tokens.device)
    starts = counts.cumsum(0) - counts
    flat = torch.arange(tokens.numel(), device=tokens.device)
    return (flat - starts.repeat_interleave(counts, output_size=tokens.numel())).view(tokens.shape)
