"""`minimind import` turns a GGUF or .pth file into a model folder, says what it read, and overwrites nothing."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from minimind.cli import main, parse
from minimind.errors import CheckpointError, ConfigError, UserError
from minimind.model import ModelConfig, Transformer
from minimind.stages import load_stage
from minimind.storage.checkpoint import load_model
from minimind.storage.verify import verify_folder
from minimind.text.chat_template import THINK_MARKS, TOOL_MARKS
from minimind.text.tokenizer import Tokenizer


def foreign() -> Tokenizer:
    """A vocabulary that has never heard of thinking or of tools."""
    known = Tokenizer.train(["hello world"], 295, pattern="gpt2")._vocabulary
    tokens = tuple(token for token in known.tokens if token not in (*THINK_MARKS, *TOOL_MARKS))
    control = {token: index for index, token in enumerate(tokens) if token in known.control}
    return Tokenizer(replace(known, tokens=tokens, control=control, special=frozenset(control)))


TOKENIZER = foreign()


def run_import(*words: str) -> None:
    load_stage("import")[1](parse("import", words))


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """model.gguf: a qwen3 of one block whose every weight is 1/64."""
    gguf = pytest.importorskip("gguf")
    monkeypatch.chdir(tmp_path)
    writer = gguf.GGUFWriter("model.gguf", "qwen3")
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(64)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(TOKENIZER.tokens)
    known = TOKENIZER._vocabulary
    writer.add_token_types([3 if token in known.control else 1 for token in known.tokens])
    writer.add_token_merges([" ".join(merge) for merge in TOKENIZER.merges])
    shapes = {
        **{"token_embd": (289, 32), "output_norm": (32,), "blk.0.attn_norm": (32,), "blk.0.ffn_norm": (32,)},
        **{"blk.0.attn_q": (32, 32), "blk.0.attn_k": (16, 32), "blk.0.attn_v": (16, 32), "blk.0.attn_output": (32, 32)},
        **{"blk.0.attn_q_norm": (16,), "blk.0.attn_k_norm": (16,)},
        **{"blk.0.ffn_gate": (64, 32), "blk.0.ffn_up": (64, 32), "blk.0.ffn_down": (32, 64)},
    }
    for name, shape in shapes.items():
        kind = gguf.GGMLQuantizationType.Q8_0 if len(shape) == 2 else gguf.GGMLQuantizationType.F32
        data = gguf.quants.quantize(np.full(shape, 1 / 64, dtype=np.float32), kind)
        writer.add_tensor(f"{name}.weight", data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return "model.gguf"


def test_the_folder_is_a_model_that_every_verb_reads(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    run_import(file, "--out", "models/mine")

    said = capsys.readouterr().out
    model, tokenizer = load_model("models/mine")
    total = sum(parameter.numel() for parameter in model.parameters())
    assert f"model.gguf: qwen3, {total / 1e6:.1f}M parameters (99.3% Q8_0, 0.7% F32)" in said
    assert "tokenizer: 289 tokens, split pattern gpt2, no tokens for think block or tools\n" in said
    assert "models/mine: written in float32; talk with it: minimind chat models/mine" in said
    assert tokenizer.fingerprint == TOKENIZER.fingerprint and verify_folder(Path("models/mine"))
    for weight in model.parameters():
        torch.testing.assert_close(weight, torch.full_like(weight, 1 / 64), rtol=1e-3, atol=0)


def test_a_model_without_think_tokens_chats_and_says_that_it_cannot_think(
    file: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_import(file, "--out", "mine")
    chat = ["chat", "mine", "--sampling.max_tokens", "3"]
    monkeypatch.setattr("sys.stdin", io.StringIO("hello\n/save talk.jsonl\n"))
    assert main(chat) == 0
    assert "talk.jsonl" in capsys.readouterr().out and Path("talk.jsonl").is_file()

    monkeypatch.setattr("sys.stdin", io.StringIO("hello\n"))
    main([*chat, "--thinking"])
    assert "the vocabulary has no '<think>'" in "".join(capsys.readouterr())


def test_nothing_is_overwritten(file: str) -> None:
    Path("there").mkdir()

    with pytest.raises(ConfigError, match="there exists already; choose another --out"):
        run_import(file, "--out", "there")

    assert [*Path("there").iterdir()] == []


def test_a_folder_needs_no_import(file: str) -> None:
    with pytest.raises(ConfigError, match=r"\.: a folder; expected a GGUF file, a Hugging Face folder needs no import"):
        run_import(".", "--out", "models/mine")
    assert not Path("models").exists()


def test_a_file_that_is_refused_leaves_nothing(file: str) -> None:
    Path(file).write_bytes(Path(file).read_bytes()[:-64])

    with pytest.raises(CheckpointError, match=r"model\.gguf: .* the file has only"):
        run_import(file, "--out", "models/mine")
    assert not Path("models").exists()


def test_help_says_what_needs_no_import(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import", "--help"]) == 0
    assert "A Hugging Face folder needs no import" in " ".join(capsys.readouterr().out.split())


@pytest.fixture
def upstream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Transformer:
    """full.pth, lora.pth and tokenizer.json of a tiny model, as MiniMind's scripts would leave them."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1}
    model = Transformer(ModelConfig(vocab_size=295, head_dim=16, intermediate_size=64, **shape)).eval()
    weights = {f"model.{name}": tensor.half() for name, tensor in model.state_dict().items()}
    torch.save(weights | {"lm_head.weight": weights["model.embed_tokens.weight"]}, "full.pth")
    layer = "model.layers.0.self_attn.q_proj.lora"
    torch.save({f"{layer}.A.weight": torch.ones(2, 32) / 8, f"{layer}.B.weight": torch.ones(32, 2) / 8}, "lora.pth")
    TOKENIZER.save("tokenizer")
    return model


def test_a_pth_file_and_a_tokenizer_become_a_model_folder(
    upstream: Transformer, capsys: pytest.CaptureFixture[str]
) -> None:
    run_import("full.pth", "--tokenizer", "tokenizer", "--out", "mine", "--shape.rope_theta", "10000")

    said = capsys.readouterr().out
    model, tokenizer = load_model("mine")
    assert f"full.pth: MiniMind, dense, {sum(p.numel() for p in model.parameters()) / 1e6:.1f}M parameters" in said
    assert model.config == replace(upstream.config, rope_theta=1e4)
    assert tokenizer.fingerprint == TOKENIZER.fingerprint and verify_folder(Path("mine"))
    expected = upstream.half().float().state_dict()
    assert all(torch.equal(weight, expected[name]) for name, weight in model.state_dict().items())


def test_an_adapters_pth_becomes_an_adapter_of_its_base(
    upstream: Transformer, capsys: pytest.CaptureFixture[str]
) -> None:
    run_import("full.pth", "--tokenizer", "tokenizer/tokenizer.json", "--out", "base")
    run_import("lora.pth", "--base", "base", "--out", "lora")

    assert "lora.pth: an adapter of rank 2 for q_proj" in capsys.readouterr().out
    merged, base = (load_model(folder)[0].layers[0].self_attn.q_proj.weight for folder in ("lora", "base"))
    torch.testing.assert_close(merged - base, torch.full((32, 32), 2 / 64))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["full.pth"], "a .pth file has no tokenizer; give --tokenizer"),
        (["lora.pth", "--tokenizer", "tokenizer"], "lora.pth: holds an adapter (LoRA); say with --base"),
        (["model.gguf", "--tokenizer", "tokenizer"], "--tokenizer is for a .pth file"),
        (["full.pth", "--tokenizer", "large"], "large has 300 tokens and full.pth 295 rows"),
    ],
)
def test_what_a_pth_file_lacks_is_asked_for(words: list[str], says: str, upstream: Transformer) -> None:
    Tokenizer.train(["hello wide world"], 300, pattern="gpt2").save("large")

    with pytest.raises(UserError) as error:
        run_import(*words, "--out", "mine")

    assert says in str(error.value) and not Path("mine").exists()
