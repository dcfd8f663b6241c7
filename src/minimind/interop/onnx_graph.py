"""The model as a graph of ONNX operators, written out one by one: `model.py` is to be read beside it.

torch's exporter would trace the forward pass. But that pass writes into a cache, and asks the router how many tokens
each expert gets: traced, attention and mixture would have to be a second model anyway, with two more packages to turn
it into this. So the operators are here, with the weights under their own names, and keys and values of earlier tokens
go in and come out. That the graph is the model is not believed: `onnx_export.py` asks both, and compares.

Legend: as in `model.py`, with R = H/G query heads to a key/value head, and S positions, earlier and new.
Operators: those of opset 18, which every runtime of the last years has; names of inputs and outputs are optimum's.
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from minimind.model import ModelConfig, Transformer, rotary_frequencies

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

__all__ = ["build_onnx"]

OPSET = 18
# The version of the file format that came with the opset; readers refuse a file newer than themselves.
IR_VERSION = 8
# The numbers of types in the format.
FLOAT, BOOL = 1, 9
# What is not seen has this score. Not -inf: a row of padding sees nothing, and would be 0/0.
UNSEEN = float(np.finfo(np.float32).min)


def build_onnx(model: Transformer) -> "ModelProto":
    """The graph, in float32. In: ids and positions [B, T], a mask [B, S], keys and values [B, G, S-T, K] of each layer.

    Out: logits [B, T, V], and keys and values [B, G, S, K].
    """
    from onnx import TensorProto, helper

    config, graph = model.config, _Graph(model.state_dict())
    x = graph.add("Gather", graph.weight("embed_tokens.weight"), "input_ids")  # [B, T, D]
    rotation, visible = _rotation(graph, config), _visible(graph)
    for index in range(config.num_hidden_layers):
        x = _block(graph, x, config, index, rotation, visible)
    x = graph.norm(x, "norm.weight", config)
    # Gemm reads the matrix as it lies, so that a tied embedding is stored once.
    head = graph.weight("embed_tokens.weight" if config.tie_word_embeddings else "lm_head.weight")
    scores = graph.add("Gemm", graph.add("Reshape", x, [-1, config.hidden_size]), head, transB=1)  # [B*T, V]
    shape = graph.add("Concat", graph.add("Shape", "input_ids"), [config.vocab_size], axis=0)
    graph.add("Reshape", scores, shape, name="logits")

    new, past, total = ["batch", "sequence"], "past_sequence", "total_sequence"
    tokens = {"input_ids": new, "attention_mask": ["batch", total], "position_ids": new}
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, dims) for name, dims in tokens.items()]
    inputs += [_cache_info(f"past_key_values.{name}", past, config) for name in _cache_names(config)]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [*new, config.vocab_size])]
    outputs += [_cache_info(f"present.{name}", total, config) for name in _cache_names(config)]
    return helper.make_model(
        helper.make_graph(graph.nodes, "minimind", inputs, outputs, list(graph.weights.values())),
        producer_name="minimind",
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )


class _Graph:
    """Operators and weights so far. A value is known by its name."""

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        self.nodes: list[NodeProto] = []
        self.weights: dict[str, TensorProto] = {}
        self.state = state

    def add(self, kind: str, *inputs: Any, name: str | None = None, **attributes: Any) -> str:
        """One operator. An input that is no name is a constant: whole numbers, or a float."""
        return self.add_several(kind, *inputs, names=[name or f"{kind}.{len(self.nodes)}"], **attributes)[0]

    def add_several(self, kind: str, *inputs: Any, names: list[str], **attributes: Any) -> list[str]:
        """One operator with several outputs."""
        from onnx import helper

        values = [value if isinstance(value, str) else self._constant(value) for value in inputs]
        self.nodes.append(helper.make_node(kind, values, names, name=f"{kind}.{len(self.nodes)}", **attributes))
        return names

    def weight(self, name: str) -> str:
        """A parameter as it is."""
        return self.keep(name, self.state[name].detach().to("cpu").float().numpy())

    def linear(self, x: str, name: str) -> str:
        """x W^T, and a bias where there is one. The matrix is stored turned: tools that quantize look for that."""
        matrix = self.state[f"{name}.weight"].detach().to("cpu").float().T.contiguous()
        y = self.add("MatMul", x, self.keep(f"{name}.weight", matrix.numpy()))
        return self.add("Add", y, self.weight(f"{name}.bias")) if f"{name}.bias" in self.state else y

    def norm(self, x: str, name: str, config: ModelConfig) -> str:
        """RMSNorm, in the steps that onnxruntime knows to be one."""
        mean = self.add("ReduceMean", self.add("Pow", x, 2.0), [-1])
        root = self.add("Sqrt", self.add("Add", mean, config.rms_norm_eps))
        return self.add("Mul", self.add("Div", x, root), self.weight(name))

    def keep(self, name: str, array: np.ndarray) -> str:
        """A tensor of the file, stored once under its name."""
        from onnx import numpy_helper

        if name not in self.weights:
            self.weights[name] = numpy_helper.from_array(array, name)
        return name

    def _constant(self, value: Any) -> str:
        array = np.asarray(value)
        array = array.astype(np.int64 if array.dtype.kind == "i" else np.float32)
        return self.keep(f"{array.dtype}.{value}", array)


def _block(graph: _Graph, x: str, config: ModelConfig, index: int, rotation: tuple[str, str], visible: str) -> str:
    name = f"layers.{index}"
    y = graph.norm(x, f"{name}.input_layernorm.weight", config)
    x = graph.add("Add", x, _attention(graph, y, config, index, rotation, visible))
    y = graph.norm(x, f"{name}.post_attention_layernorm.weight", config)
    part = _mixture(graph, y, config, f"{name}.mlp") if config.num_experts else _feed_forward(graph, y, f"{name}.mlp")
    return graph.add("Add", x, part)


def _rotation(graph: _Graph, config: ModelConfig) -> tuple[str, str]:
    """Cosines and sines of each position's angles, [B, 1, 1, T, K/2]."""
    frequencies, scale = rotary_frequencies(config)
    positions = graph.add("Unsqueeze", graph.add("Cast", "position_ids", to=FLOAT), [1, 2, 4])
    angles = graph.add("Mul", positions, graph.keep("rotary_frequencies", frequencies.numpy()))
    cos, sin = (graph.add(kind, angles) for kind in ("Cos", "Sin"))
    return (cos, sin) if scale == 1 else (graph.add("Mul", cos, scale), graph.add("Mul", sin, scale))


def _visible(graph: _Graph) -> str:
    """Which positions a new token sees, [B, 1, 1, T, S]: those up to its own that are no padding."""
    total, new = (graph.add("Squeeze", graph.add("Shape", name, start=1)) for name in ("attention_mask", "input_ids"))
    places = graph.add("Range", 0, total, 1)  # [S]
    own = graph.add("Unsqueeze", graph.add("Range", graph.add("Sub", total, new), total, 1), [1])  # [T, 1]
    real = graph.add("Unsqueeze", graph.add("Cast", "attention_mask", to=BOOL), [1, 2, 3])  # [B, 1, 1, 1, S]
    return graph.add("And", graph.add("LessOrEqual", places, own), real)


def _attention(graph: _Graph, x: str, config: ModelConfig, index: int, rotation: tuple[str, str], visible: str) -> str:
    """[B, T, D] -> [B, T, D]. Query heads that share keys stand in a dimension of their own, so no key is repeated."""
    name, groups = f"layers.{index}.self_attn", config.num_key_value_heads
    q = _turned_heads(graph, x, config, f"{name}.q", config.num_attention_heads // groups, rotation)  # [B, G, R, T, K]
    k = graph.add("Squeeze", _turned_heads(graph, x, config, f"{name}.k", 1, rotation), [2])  # [B, G, T, K]
    v = graph.add("Reshape", graph.linear(x, f"{name}.v_proj"), [0, 0, groups, config.head_dim])
    v = graph.add("Transpose", v, perm=[0, 2, 1, 3])  # [B, G, T, K]
    k, v = (
        graph.add("Concat", f"past_key_values.{index}.{kind}", new, axis=2, name=f"present.{index}.{kind}")
        for kind, new in (("key", k), ("value", v))
    )  # [B, G, S, K]
    k = graph.add("Unsqueeze", graph.add("Transpose", k, perm=[0, 1, 3, 2]), [2])  # [B, G, 1, K, S]
    scores = graph.add("MatMul", graph.add("Mul", q, 1 / math.sqrt(config.head_dim)), k)  # [B, G, R, T, S]
    shares = graph.add("Softmax", graph.add("Where", visible, scores, UNSEEN), axis=-1)
    y = graph.add("MatMul", shares, graph.add("Unsqueeze", v, [2]))  # [B, G, R, T, K]
    y = graph.add("Reshape", graph.add("Transpose", y, perm=[0, 3, 1, 2, 4]), [0, 0, -1])  # [B, T, H*K]
    return graph.linear(y, f"{name}.o_proj")


def _turned_heads(
    graph: _Graph, x: str, config: ModelConfig, name: str, repeats: int, rotation: tuple[str, str]
) -> str:
    """Queries or keys, normalised and turned: [B, T, D] -> [B, G, repeats, T, K]."""
    shape = [0, 0, config.num_key_value_heads, repeats, config.head_dim]
    x = graph.add("Reshape", graph.linear(x, f"{name}_proj"), shape)
    x = graph.norm(x, f"{name}_norm.weight", config) if config.qk_norm else x
    x = graph.add("Transpose", x, perm=[0, 2, 3, 1, 4])
    cos, sin = rotation
    halves = [f"{name}.first", f"{name}.second"]
    a, b = graph.add_several("Split", x, names=halves, axis=-1, num_outputs=2)
    first = graph.add("Sub", graph.add("Mul", a, cos), graph.add("Mul", b, sin))
    second = graph.add("Add", graph.add("Mul", b, cos), graph.add("Mul", a, sin))
    return graph.add("Concat", first, second, axis=-1)


def _feed_forward(graph: _Graph, x: str, name: str) -> str:
    gate = graph.linear(x, f"{name}.gate_proj")
    gate = graph.add("Mul", gate, graph.add("Sigmoid", gate))
    return graph.linear(graph.add("Mul", gate, graph.linear(x, f"{name}.up_proj")), f"{name}.down_proj")


def _mixture(graph: _Graph, x: str, config: ModelConfig, name: str) -> str:
    """[B, T, D] -> [B, T, D]. Each expert reads the tokens that chose it, however many those are, and none too."""
    flat = graph.add("Reshape", x, [-1, config.hidden_size])  # [N, D]
    shares = graph.add("Softmax", graph.linear(flat, f"{name}.gate"), axis=-1)  # [N, E]
    names = [f"{name}.weights", f"{name}.chosen"]
    weights, chosen = graph.add_several("TopK", shares, [config.num_experts_per_tok], names=names)  # [N, k]
    if config.norm_topk_prob:
        weights = graph.add("Div", weights, graph.add("ReduceSum", weights, [-1]))
    y = graph.add("ConstantOfShape", graph.add("Shape", flat))
    for expert in range(config.num_experts):
        places = graph.add("NonZero", graph.add("Equal", chosen, expert))  # [2, n]: tokens, and which choice of theirs
        places = graph.add("Transpose", places, perm=[1, 0])
        weight = graph.add("Unsqueeze", graph.add("GatherND", weights, places), [1])  # [n, 1]
        rows = graph.add("Slice", places, [0], [1], [1])  # [n, 1]
        output = _feed_forward(graph, graph.add("GatherND", flat, rows), f"{name}.experts.{expert}")
        y = graph.add("ScatterND", y, rows, graph.add("Mul", output, weight), reduction="add")
    return graph.add("Reshape", y, graph.add("Shape", x))


def _cache_names(config: ModelConfig) -> list[str]:
    return [f"{index}.{kind}" for index in range(config.num_hidden_layers) for kind in ("key", "value")]


def _cache_info(name: str, length: str, config: ModelConfig) -> Any:
    from onnx import TensorProto, helper

    shape = ["batch", config.num_key_value_heads, length, config.head_dim]
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
