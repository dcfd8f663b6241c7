"""An exported adapter is what PEFT reads, with the name of a base that others can find."""

from pathlib import Path

import pytest
import torch
from tests.interop.tiny_models import tiny_model

from minimind.errors import CheckpointError
from minimind.interop.hf_export import export_hf
from minimind.interop.peft_export import export_peft
from minimind.lora import LoraConfig, add_lora, lora_weights
from minimind.model import Transformer
from minimind.storage.adapters import fingerprint, read_adapter, save_adapter
from minimind.text.tokenizer import Tokenizer

TOKENS = torch.tensor([[1, 50, 60, 70, 71, 200, 310, 2]])


def adapted(tokenizer: Tokenizer, folder: Path, targets: tuple[str, ...] = ()) -> Transformer:
    model, config = tiny_model(tokenizer, head_dim=16), LoraConfig(rank=4, alpha=8.0, targets=targets)
    base = fingerprint(model)
    add_lora(model, config, seed=0)
    with torch.no_grad():
        for weight in lora_weights(model).values():
            weight.normal_(0, 0.1)
    known = {"base_fingerprint": base, "tokenizer_fingerprint": tokenizer.fingerprint}
    save_adapter(folder, model, base="runs/base", config=config, **known)
    return model


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_peft_gives_the_logits_of_the_adapted_model(tokenizer: Tokenizer, tmp_path: Path) -> None:
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    model = adapted(tokenizer, tmp_path / "adapter")
    export_hf(tmp_path / "base", tiny_model(tokenizer, head_dim=16), tokenizer, card="", dtype="float32")

    written = export_peft(tmp_path / "out", tmp_path / "adapter", base="someone/base")

    assert [file.name for file in written.files] == ["adapter_model.safetensors", "adapter_config.json"]
    base = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    theirs = peft.PeftModel.from_pretrained(base, tmp_path / "out").eval()
    with torch.no_grad():
        torch.testing.assert_close(model(TOKENS), theirs(TOKENS).logits, rtol=1e-5, atol=1e-5)


def test_the_base_is_the_one_given_or_the_one_it_names(tokenizer: Tokenizer, tmp_path: Path) -> None:
    adapted(tokenizer, tmp_path / "adapter")

    export_peft(tmp_path / "named", tmp_path / "adapter", base="someone/base")
    export_peft(tmp_path / "same", tmp_path / "adapter")

    assert [read_adapter(tmp_path / name).base for name in ("named", "same")] == ["someone/base", "runs/base"]


def test_a_model_is_no_adapter(tokenizer: Tokenizer, tmp_path: Path) -> None:
    export_hf(tmp_path / "model", tiny_model(tokenizer), tokenizer, card="")

    with pytest.raises(CheckpointError, match=r"has no adapter_config.json"):
        export_peft(tmp_path / "out", tmp_path / "model")
