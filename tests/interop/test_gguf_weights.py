"""A model comes out of a GGUF file as it went in, thinks what transformers reads from the same file, or is refused."""

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from minimind.errors import CheckpointError
from minimind.generation.completions import complete
from minimind.generation.sampling import Sampling
from minimind.interop.gguf_weights import load_gguf
from minimind.model import Transformer
from minimind.storage.checkpoint import load_model, save_checkpoint
from minimind.text.conversation import Message, render_prompt
from minimind.text.tokenizer import Tokenizer

Write = Callable[..., Path]
# A mixture of experts is read back where it is written, in test_gguf_writer.py.
ARCHITECTURES = ("llama", "qwen2", "qwen3")
TOKENS = torch.tensor([[1, 50, 60, 70, 71, 200, 310, 2], [0, 1, 2, 3, 100, 101, 102, 329]])


def logits_of_transformers(path: Path, tokens: Tensor) -> Tensor:
    transformers = pytest.importorskip("transformers")
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        theirs = transformers.AutoModelForCausalLM.from_pretrained(
            path.parent, gguf_file=path.name, dtype=torch.float32, attn_implementation="sdpa"
        )
        return theirs.eval()(tokens).logits


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_model_is_read_back_to_the_bit(
    architecture: str, write_gguf: Write, make_model: Callable[[str], Transformer], tokenizer: Tokenizer
) -> None:
    found = load_gguf(write_gguf(architecture))

    expected = make_model(architecture)
    assert found.model.config == expected.config
    assert all(torch.equal(weight, found.model.state_dict()[name]) for name, weight in expected.state_dict().items())
    assert found.tokenizer.fingerprint == tokenizer.fingerprint
    assert (found.architecture, [*found.numbers]) == (architecture, ["F32"])
    assert not found.model.training


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("kind", ["F16", "Q8_0", "Q4_1"])
def test_weights_come_back_as_near_as_their_kind_allows(
    architecture: str, kind: str, write_gguf: Write, make_model: Callable[[str], Transformer]
) -> None:
    found = load_gguf(write_gguf(architecture, kind))

    for name, weight in make_model(architecture).state_dict().items():
        error = (found.model.state_dict()[name] - weight).abs()
        if weight.ndim == 1:
            assert not error.any()
        elif kind == "F16":
            assert (error <= weight.abs() * 2**-11 + 2**-25).all()
        else:
            # Half a step of the block's scale, and what rounding the scale to float16 moves its ends by.
            blocks = weight.view(-1, 32)
            largest, width = blocks.abs().amax(1), blocks.amax(1) - blocks.amin(1)
            step = largest / 127 if kind == "Q8_0" else width / 15
            assert (error.view(-1, 32).amax(1) <= step / 2 + 2 * largest * 2**-10).all()
    assert set(found.numbers) == {kind, "F32"}
    assert sum(found.numbers.values()) == sum(weight.numel() for weight in found.model.parameters())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("kind", ["F32", "F16", "Q8_0", "Q4_1"])
def test_logits_are_those_of_transformers_reading_the_same_file(
    architecture: str, kind: str, write_gguf: Write
) -> None:
    path = write_gguf(architecture, kind)

    with torch.no_grad():
        ours = load_gguf(path).model(TOKENS)

    torch.testing.assert_close(ours, logits_of_transformers(path, TOKENS), rtol=1e-5, atol=1e-5)


def test_what_was_imported_is_saved_and_loaded_as_any_model(write_gguf: Write, tmp_path: Path) -> None:
    found = load_gguf(write_gguf("llama", "Q4_1"))
    save_checkpoint(tmp_path / "model", found.model, found.tokenizer)

    model, tokenizer = load_model(tmp_path / "model")

    with torch.no_grad():
        assert torch.equal(model(TOKENS), found.model(TOKENS))
    assert model.config == found.model.config and tokenizer.fingerprint == found.tokenizer.fingerprint


def test_more_rows_than_tokens_are_kept(write_gguf: Write) -> None:
    rows = np.random.default_rng(0).normal(size=(352, 64))
    path = write_gguf(values={"llama.vocab_size": None}, tensors={"token_embd.weight": rows})

    found = load_gguf(path)

    assert found.model.config.vocab_size == 352 and found.tokenizer.vocab_size == 330
    assert torch.equal(found.model.embed_tokens.weight, torch.tensor(rows, dtype=torch.float32))


def test_what_a_file_leaves_out_is_what_llama_cpp_takes_for_it(write_gguf: Write) -> None:
    names = ("rope.freq_base", "attention.key_length", "attention.value_length", "rope.dimension_count", "vocab_size")
    config = load_gguf(write_gguf(values={f"llama.{name}": None for name in names})).model.config

    assert (config.rope_theta, config.head_dim, config.vocab_size) == (1e4, 16, 330)


# Number and value types as the format counts them.
NUMBER, REAL, TEXT, LIST = 4, 6, 8, 9
REFUSED: list[tuple[str, Any, str]] = [
    ("llama.block_count", None, "llama.block_count is missing; expected a whole number from 1 to 512"),
    ("llama.block_count", (NUMBER, 2**31), "llama.block_count is 2147483648"),
    ("llama.block_count", (NUMBER, 3), "tensors are missing: blk.2.attn_k.weight"),
    ("llama.block_count", (NUMBER, 1), "tensors this model has no place for: blk.1.attn_k.weight"),
    ("llama.block_count", (TEXT, "2"), "llama.block_count is '2'"),
    ("llama.embedding_length", (NUMBER, 0), "llama.embedding_length is 0"),
    ("llama.embedding_length", (NUMBER, 128), "tensors do not fit the values: token_embd.weight is [330, 64] and not"),
    ("llama.attention.head_count", (NUMBER, 0), "llama.attention.head_count is 0"),
    ("llama.attention.head_count", (NUMBER, 3), "num_attention_heads is 3; expected a multiple"),
    ("llama.attention.head_count", (LIST, [4, 4]), "llama.attention.head_count is [4, 4]"),
    ("llama.attention.head_count_kv", (NUMBER, 1), "attn_k.weight is [32, 64] and not [16, 64]"),
    ("llama.attention.key_length", (NUMBER, 32), "llama.attention.value_length is 16; expected 32"),
    ("llama.attention.layer_norm_rms_epsilon", None, "layer_norm_rms_epsilon is missing; expected a number above 0"),
    ("llama.attention.layer_norm_rms_epsilon", (REAL, float("nan")), "layer_norm_rms_epsilon is nan"),
    ("llama.rope.dimension_count", (NUMBER, 8), "llama.rope.dimension_count is 8; expected 16"),
    ("llama.rope.freq_base", (REAL, -1.0), "llama.rope.freq_base is -1.0"),
    ("llama.rope.scaling.type", (TEXT, "longrope"), "rope.scaling.type is 'longrope'; expected one of none, linear, "),
    ("llama.rope.scaling.type", (LIST, [1]), "rope.scaling.type is [1]; expected one of none"),
    ("llama.rope.scaling.type", (TEXT, "yarn"), "llama.rope.scaling.factor is missing; expected a number above 0"),
    ("llama.rope.scaling.attn_factor", (REAL, 0.5), "rope.scaling.attn_factor is 0.5; expected 1, the only value"),
    ("llama.rope.scaling.yarn_log_multiplier", (REAL, 0.1), "yarn_log_multiplier is 0.10000000149011612; expected no"),
    ("llama.attention.sliding_window", (NUMBER, 64), "llama.attention.sliding_window is 64; expected no such value"),
    ("llama.expert_count", (NUMBER, 4), "llama.expert_count is 4; expected 0"),
    ("llama.vocab_size", (NUMBER, 331), "llama.vocab_size is 331; expected 330"),
    ("split.count", (NUMBER, 2), "split.count is 2; expected a whole model in one file"),
]


@pytest.mark.parametrize(("name", "given", "words"), REFUSED)
def test_values_that_are_not_understood_are_refused(name: str, given: Any, words: str, write_gguf: Write) -> None:
    gguf = pytest.importorskip("gguf")
    path = write_gguf(values={name: given and (gguf.GGUFValueType(given[0]), given[1])})

    with pytest.raises(CheckpointError) as error:
        load_gguf(path)

    assert str(error.value).startswith(f"{path}: ") and words in str(error.value)


def test_an_architecture_that_only_looks_like_one_is_refused(write_gguf: Write) -> None:
    path = write_gguf()
    path.write_bytes(path.read_bytes().replace(b"llama", b"gemma"))

    with pytest.raises(CheckpointError, match=r"general.architecture is 'gemma'; expected one of llama, qwen2, "):
        load_gguf(path)


@pytest.mark.parametrize(
    ("name", "shape", "words"),
    [
        ("token_embd.weight", None, "token_embd.weight is missing or no matrix"),
        ("token_embd.weight", (330,), "token_embd.weight is missing or no matrix"),
        ("token_embd.weight", (200, 64), "tokenizer.ggml.tokens has 330 items and token_embd.weight 200 rows"),
        ("blk.0.attn_q.weight", None, "tensors are missing: blk.0.attn_q.weight"),
        ("blk.0.attn_q.weight", (64, 32), "blk.0.attn_q.weight is [64, 32] and not [64, 64]"),
        ("blk.0.attn_q.weight", (1, 64, 64), "blk.0.attn_q.weight is [1, 64, 64] and not [64, 64]"),
        ("blk.0.attn_q.bias", (64,), "tensors are missing: blk.0.attn_k.bias, blk.0.attn_v.bias"),
        ("blk.0.attn_k.bias", (64,), "tensors this model has no place for: blk.0.attn_k.bias"),
        ("rope_freqs.weight", (8,), "rope_freqs.weight has 0; expected 1 to 10,000"),
        ("rope_freqs.weight", (4,), "rope_freqs.weight is [4]; expected none but in a Llama 3"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(name: str, shape: Any, words: str, write_gguf: Write) -> None:
    path = write_gguf(values={"llama.vocab_size": None}, tensors={name: shape and np.zeros(shape)})

    with pytest.raises(CheckpointError) as error:
        load_gguf(path)

    assert str(error.value).startswith(f"{path}: ") and words in str(error.value)


def test_frequencies_that_no_llama_3_has_are_refused(write_gguf: Write) -> None:
    for factors in ([1, 1, 8, 8, 1, 8, 8, 8], [1, 1, 2, 3, 4, 5, 6, 7], [8] * 8, [1, 2, 3, np.nan, 1, 1, 1, 1]):
        with pytest.raises(CheckpointError, match=r"rope_freqs\.weight (are not a Llama 3's|has NaN)"):
            load_gguf(write_gguf(tensors={"rope_freqs.weight": np.array(factors, dtype=np.float32)}))


def test_weights_larger_than_the_memory_are_refused_before_they_are_read(
    write_gguf: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_gguf()
    monkeypatch.setattr("os.sysconf", {"SC_PHYS_PAGES": 10, "SC_PAGE_SIZE": 4096}.__getitem__)

    with pytest.raises(CheckpointError, match=r"its weights take .* GB in float32 and this machine has 0.0 GB"):
        load_gguf(path)


@pytest.fixture(scope="module")
def real(smollm2: Path) -> Iterator[tuple[Transformer, Tokenizer]]:
    found = load_gguf(smollm2)
    assert (found.architecture, [*found.numbers]) == ("llama", ["Q4_1", "Q8_0", "F32"])
    yield found.model, found.tokenizer


PROMPTS = ["The capital of France is", "def fibonacci(n):\n    ", "In 2024, 17 + 25 =", "Once upon a time"]


def test_a_real_model_gives_the_logits_of_transformers(real: tuple[Transformer, Tokenizer], smollm2: Path) -> None:
    model, tokenizer = real
    rows = [tokenizer.encode(prompt) for prompt in PROMPTS]
    tokens = torch.tensor([(row * 8)[:16] for row in rows])

    with torch.no_grad():
        ours = model(tokens)

    theirs = logits_of_transformers(smollm2, tokens)
    # Equal to the bit where both call the same attention kernel; with transformers' "eager" they are 5e-5 apart, of 38.
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    assert torch.equal(ours.argmax(-1), theirs.argmax(-1))


def test_a_real_model_answers(real: tuple[Transformer, Tokenizer]) -> None:
    model, tokenizer = real
    prompt = render_prompt([Message("user", "What is the capital of France?")], (), tokenizer)

    [answer] = complete(model, tokenizer, [prompt], Sampling(temperature=0, max_tokens=24))

    assert "Paris" in answer.text
