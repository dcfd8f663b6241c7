"""A model in a GGUF file is the model: read back here, by transformers and by llama.cpp, with the same ids."""

import json
import os
import shutil
import subprocess
import warnings
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import pytest
import torch
from tests.interop.hostile_lines import hostile_lines
from tests.interop.tiny_models import SHAPES, tiny_model, trained_model
from tests.text.template_cases import TEMPLATES, made

from minimind.errors import CheckpointError
from minimind.generation.completions import complete
from minimind.generation.sampling import Sampling
from minimind.interop.gguf_file import GgufFile
from minimind.interop.gguf_weights import load_gguf
from minimind.interop.gguf_writer import NUMBER_BYTES, STEPS, export_gguf, gguf_architecture, write_gguf
from minimind.text.tokenizer import PATTERNS, Tokenizer
from minimind.variants import VariantConfig

pytest.importorskip("gguf")
LINES = hostile_lines()
YARN = {"rope_type": "yarn", "factor": 2.3, "original_max_position_embeddings": 40}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
TOKENS = torch.tensor([[1, 50, 60, 70, 71, 200, 310, 2], [0, 1, 2, 3, 100, 101, 102, 329]])


@pytest.mark.parametrize("architecture", SHAPES)
def test_f32_comes_back_to_the_bit(architecture: str, tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = tiny_model(tokenizer, architecture)

    written = export_gguf(tmp_path / "tiny", model, tokenizer, kind="F32")

    assert written.difference == 0
    assert [file.name for file in written.files] == ["tiny-F32.gguf", "Modelfile"]
    found = load_gguf(tmp_path / "tiny" / "tiny-F32.gguf")
    assert (found.architecture, found.model.config) == (architecture, model.config)
    assert all(torch.equal(weight, found.model.state_dict()[name]) for name, weight in model.state_dict().items())
    assert found.tokenizer.fingerprint == tokenizer.fingerprint


@pytest.mark.parametrize(
    ("architecture", "scaling"),
    [
        ("qwen3", YARN),
        ("qwen3moe", YARN | {"beta_fast": 8.0, "beta_slow": 2.0, "attention_factor": 1.25}),
        ("qwen2", YARN | {"factor": 0.5}),
        ("qwen2", {"rope_type": "yarn", "factor": 4.0}),
        ("llama", {"rope_type": "linear", "factor": 2.5}),
        ("llama", LLAMA3),
        ("llama", LLAMA3 | {"factor": 32.0, "original_max_position_embeddings": 8192}),
        ("llama", LLAMA3 | {"original_max_position_embeddings": 17}),
    ],
)
def test_scaled_positions_come_back_to_the_bit(
    architecture: str, scaling: dict[str, Any], tokenizer: Tokenizer, tmp_path: Path
) -> None:
    shape: dict[str, Any] = {"head_dim": 64} if scaling.get("rope_type") == "llama3" else {}
    model = tiny_model(tokenizer, architecture, rope_scaling=scaling, rope_theta=5e5, **shape)

    assert export_gguf(tmp_path / "tiny", model, tokenizer, kind="F32").difference == 0

    found = load_gguf(tmp_path / "tiny" / "tiny-F32.gguf").model
    assert found.config.rope_scaling == {"original_max_position_embeddings": 128} | scaling or "linear" in str(scaling)
    with torch.no_grad():
        torch.testing.assert_close(found(TOKENS), model(TOKENS), rtol=0, atol=1e-6)
    plain = tiny_model(tokenizer, architecture, rope_theta=5e5, **shape)
    assert not torch.allclose(plain(TOKENS), model(TOKENS), atol=1e-3)


def test_biases_of_a_llama_come_back_to_the_bit(tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = tiny_model(tokenizer, "llama", attention_bias=True, output_bias=True)

    assert export_gguf(tmp_path / "tiny", model, tokenizer, kind="F32").difference == 0


@pytest.mark.parametrize("architecture", SHAPES)
def test_the_same_model_gives_the_same_bytes_again_and_after_a_round_trip(
    architecture: str, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    first, second = tmp_path / "first.gguf", tmp_path / "second.gguf"
    write_gguf(first, tiny_model(tokenizer, architecture), tokenizer, kind="F32", name="tiny")
    found = load_gguf(first)
    write_gguf(second, found.model, found.tokenizer, kind="F32", name="tiny")

    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("architecture", SHAPES)
@pytest.mark.parametrize(("kind", "bound"), [("F16", 0.002), ("BF16", 0.02), ("Q8_0", 0.1)])
def test_rounded_weights_think_nearly_the_same(
    architecture: str, kind: Any, bound: float, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    model = tiny_model(tokenizer, architecture)

    written = export_gguf(tmp_path / "tiny", model, tokenizer, kind=kind)

    assert 0 < written.difference < bound
    kinds = {tensor.kind.name for tensor in GgufFile.open(tmp_path / "tiny" / written.files[0].name).tensors.values()}
    assert kinds == {kind, "F32"}


@pytest.mark.parametrize(("kind", "bound"), [("Q5_1", 0.3), ("Q5_0", 0.4), ("Q4_1", 0.6), ("Q4_0", 0.8)])
def test_few_bits_think_nearly_the_same_and_take_less_room(
    kind: Any, bound: float, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    model = tiny_model(tokenizer, "llama")

    written = export_gguf(tmp_path / "tiny", model, tokenizer, kind=kind)

    assert 0 < written.difference < bound
    tensors = GgufFile.open(tmp_path / "tiny" / f"tiny-{kind}.gguf").tensors
    assert {tensor.kind.name for tensor in tensors.values()} == {kind, "F32"}
    weights = sum(weight.numel() for weight in model.state_dict().values())
    eight_bits = export_gguf(tmp_path / "eight", model, tokenizer, kind="Q8_0").files[0].num_bytes
    saved = (NUMBER_BYTES["Q8_0"] - NUMBER_BYTES[kind]) * weights
    assert abs(eight_bits - written.files[0].num_bytes - saved) < 0.1 * saved


def test_a_weight_that_moved_further_than_its_kind_rounds_is_found(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(STEPS, "Q4_0", STEPS["Q5_1"])

    with pytest.raises(CheckpointError, match=r"\.weight came back"):
        export_gguf(tmp_path / "tiny", tiny_model(tokenizer), tokenizer, kind="Q4_0")


def test_norms_biases_and_routers_are_never_rounded(tokenizer: Tokenizer, tmp_path: Path) -> None:
    for architecture in ("qwen2", "qwen3moe"):
        path = tmp_path / f"{architecture}.gguf"
        write_gguf(path, tiny_model(tokenizer, architecture), tokenizer, kind="Q8_0", name="tiny")
        for name, tensor in GgufFile.open(path).tensors.items():
            is_exact = name.endswith(("norm.weight", "bias", "ffn_gate_inp.weight"))
            assert tensor.kind.name == ("F32" if is_exact else "Q8_0"), name


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_1"])
def test_rows_that_are_no_whole_blocks_are_f16(kind: Any, tokenizer: Tokenizer, tmp_path: Path) -> None:
    path = tmp_path / "odd.gguf"
    write_gguf(path, tiny_model(tokenizer, intermediate_size=88), tokenizer, kind=kind, name="odd")

    tensors = GgufFile.open(path).tensors
    assert tensors["blk.0.ffn_down.weight"].kind.name == "F16"
    assert tensors["blk.0.ffn_up.weight"].kind.name == kind


def test_spare_rows_of_the_embedding_are_kept(tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = tiny_model(tokenizer, vocab_size=352)

    export_gguf(tmp_path / "tiny", model, tokenizer, kind="F32")

    found = load_gguf(tmp_path / "tiny" / "tiny-F32.gguf")
    assert found.model.config.vocab_size == 352 and found.tokenizer.vocab_size == tokenizer.vocab_size


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"attention_bias": True}, "attention_bias together with qk_norm"),
        ({"output_bias": True}, "output_bias together with qk_norm"),
        ({"rope_scaling": LLAMA3}, "rope_scaling 'llama3' in another shape than Llama's"),
        ({"rope_scaling": LLAMA3 | {"low_freq_factor": 2.0}, "qk_norm": False}, "'llama3' from 2.0 to 4.0 turns"),
        ({"num_experts": 4, "num_experts_per_tok": 2}, "norm_topk_prob off"),
        ({"num_experts": 4, "num_experts_per_tok": 2, "qk_norm": False}, "num_experts without qk_norm"),
    ],
)
def test_what_the_format_cannot_say_is_refused(
    changes: dict[str, Any], words: str, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=words):
        export_gguf(tmp_path / "tiny", tiny_model(tokenizer, **changes), tokenizer)
    assert not list(tmp_path.iterdir())


def test_another_family_is_refused_by_its_name() -> None:
    with pytest.raises(CheckpointError, match="a GGUF file is not written for a granite; export it with --format hf"):
        gguf_architecture(VariantConfig(model_type="granite"))


def test_experts_that_are_all_taken_need_no_switch(tokenizer: Tokenizer) -> None:
    config = tiny_model(tokenizer, num_experts=2, num_experts_per_tok=2, moe_intermediate_size=32).config
    assert gguf_architecture(config) == "qwen3moe"


def test_a_prefix_space_is_refused_as_llama_cpp_would_drop_it(tmp_path: Path) -> None:
    tokenizer = Tokenizer.train(["some words " * 20], 300, pattern="gpt2", add_prefix_space=True)

    with pytest.raises(CheckpointError, match="add_prefix_space is on"):
        export_gguf(tmp_path / "tiny", tiny_model(tokenizer), tokenizer)


def test_weights_beyond_f16_are_refused(tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = tiny_model(tokenizer)
    with torch.no_grad():
        model.layers[0].mlp.up_proj.weight[0, 0] = 1e5

    with pytest.raises(CheckpointError, match=r"blk.0.ffn_up.weight has weights beyond 65504"):
        export_gguf(tmp_path / "tiny", model, tokenizer, kind="F16")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (b"qwen3moe.expert_count", b"qwen3moe.expert_cnt__", "qwen3moe.expert_cnt__ is 4; expected no such value"),
        (b"ffn_gate_inp", b"ffn_gate_out", "tensors are missing: blk.0.ffn_gate_inp.weight"),
        (b"ffn_up_exps", b"ffn_up_expz", "tensors are missing: blk.0.ffn_up_exps.weight"),
        (b"expert_used_count\x04\0\0\0\x02", b"expert_used_count\x04\0\0\0\x09", "num_experts_per_tok is 9"),
        (
            b"expert_count\x04\0\0\0\x04",
            b"expert_count\x04\0\0\0\x03",
            "ffn_gate_inp.weight is [4, 64] and not [3, 64]",
        ),
        (b"expert_count\x04\0\0\0\x04\0", b"expert_count\x04\0\0\0\x04\x09", "expert_count is 2308; expected a whole"),
    ],
)
def test_a_mixture_that_contradicts_itself_is_refused(
    old: bytes, new: bytes, words: str, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    path = tmp_path / "tiny.gguf"
    write_gguf(path, tiny_model(tokenizer, "qwen3moe"), tokenizer, kind="F32", name="tiny")
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new))

    with pytest.raises(CheckpointError) as error:
        load_gguf(path)

    assert str(path) in str(error.value) and words in str(error.value)


@pytest.mark.parametrize("architecture", SHAPES)
def test_transformers_reads_the_same_logits_from_the_file(
    architecture: str, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers")
    path, model = tmp_path / "tiny.gguf", tiny_model(tokenizer, architecture)
    write_gguf(path, model, tokenizer, kind="F32", name="tiny")

    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        theirs = transformers.AutoModelForCausalLM.from_pretrained(
            tmp_path, gguf_file=path.name, dtype=torch.float32, attn_implementation="eager"
        ).eval()
        torch.testing.assert_close(model(TOKENS), theirs(TOKENS).logits, rtol=1e-5, atol=1e-5)


def test_ids_are_the_same_here_in_tokenizers_and_in_transformers_from_the_file(tmp_path: Path) -> None:
    transformers, tokenizers = pytest.importorskip("transformers"), pytest.importorskip("tokenizers")
    tokenizer = Tokenizer.train(LINES, 700)
    path = tmp_path / "tiny.gguf"
    write_gguf(path, tiny_model(tokenizer), tokenizer, kind="F32", name="tiny")
    tokenizer.save(tmp_path / "tokenizer")

    plain = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer" / "tokenizer.json"))
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path, gguf_file=path.name)

    assert len(LINES) > 2400
    for line in LINES:
        expected = tokenizer.encode(line)
        assert plain.encode(line).ids == expected, line
        assert theirs(line)["input_ids"] == expected, line


@pytest.fixture(scope="module")
def llama_cpp(repository: Path) -> Path:
    """The folder in which npm installed node-llama-cpp: $MINIMIND_LLAMA_CPP, or where `make llama` puts it."""
    named, installed = os.environ.get("MINIMIND_LLAMA_CPP"), repository / ".venv" / "llama"
    if not shutil.which("node") or not (named or (installed / "node_modules").is_dir()):
        pytest.skip("no llama.cpp; `make llama` installs it on Linux with npm")
    return Path(named or installed)


def ask_llama_cpp(folder: Path, file: Path, work: Path, lines: list[str], prompts: list[list[int]]) -> dict[str, Any]:
    """Ids of the lines and 64 greedy ids after each prompt."""
    (work / "questions.json").write_text(json.dumps({"lines": lines, "prompts": prompts}))
    script = Path(__file__).with_name("llama_cpp.mjs")
    words = ["node", str(script), str(folder), str(file), str(work / "questions.json"), str(work / "answers.json")]
    subprocess.run(words, check=True, timeout=100, capture_output=True, text=True)
    return json.loads((work / "answers.json").read_text())


@pytest.mark.parametrize("pattern", PATTERNS)
def test_llama_cpp_gives_the_same_ids(pattern: str, llama_cpp: Path, tmp_path: Path) -> None:
    tokenizer = Tokenizer.train(LINES, 700, pattern=pattern)
    path = tmp_path / "tiny.gguf"
    write_gguf(path, tiny_model(tokenizer), tokenizer, kind="F32", name="tiny")

    found = ask_llama_cpp(llama_cpp, path, tmp_path, LINES, [])

    wrong = [line for line, ids in zip(LINES, found["ids"], strict=True) if ids != tokenizer.encode(line)]
    assert wrong == []


@pytest.mark.parametrize("architecture", SHAPES)
def test_llama_cpp_writes_the_same_greedy_text(architecture: str, llama_cpp: Path, tmp_path: Path) -> None:
    texts = [line for page in sorted(topics.values())[:30] for line in page.split("\n\n") if len(line) > 40]
    tokenizer = Tokenizer.train(texts, 500)
    model = trained_model(tokenizer, texts, architecture)
    path = tmp_path / "tiny.gguf"
    write_gguf(path, model, tokenizer, kind="F32", name="tiny")
    prompts = [[tokenizer.bos_id, *tokenizer.encode(text)[:12]] for text in texts[:50]]

    found = ask_llama_cpp(llama_cpp, path, tmp_path, [], prompts)

    ours = complete(model, tokenizer, prompts, Sampling(temperature=0, max_tokens=64), stop_ids=())
    assert [answer.ids for answer in ours] == found["answers"]


def test_a_chat_template_from_elsewhere_is_written_and_read_back(tmp_path: Path) -> None:
    tokenizer = made("plain")
    export_gguf(tmp_path / "tiny", tiny_model(tokenizer), tokenizer, kind="F32")
    [path] = (tmp_path / "tiny").glob("*.gguf")
    found = load_gguf(path).tokenizer
    assert found.template is not None and found.template.texts == {"default": TEMPLATES["plain"]}
    assert found.end_names == tokenizer.end_names
