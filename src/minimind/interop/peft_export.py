"""An adapter -> a folder as the PEFT library writes it: the two files it reads, and the name of a base it can find."""

from pathlib import Path

from minimind.errors import CheckpointError
from minimind.interop.exported import Exported, write_export
from minimind.storage.adapters import CONFIG, WEIGHTS, read_adapter
from minimind.storage.tensor_files import write_json
from minimind.storage.verify import read_json

__all__ = ["export_peft"]


def export_peft(out: Path, adapter: Path, *, base: str | None = None) -> Exported:
    """Write the folder `out`; the weights are the adapter's to the bit.

    base:    where others find the base model, such as a name on the hub; as it is in the adapter unless given
    Errors:  CheckpointError for a folder that holds no adapter
    """
    info = read_adapter(adapter)
    base = base or info.base
    if not base:
        raise CheckpointError(f"{adapter}: names no base model; give --base, the model that it is for")
    weights = (adapter / WEIGHTS).read_bytes()

    def fill(place: Path) -> None:
        write_json(place / CONFIG, read_json(adapter / CONFIG) | {"base_model_name_or_path": base})
        (place / WEIGHTS).write_bytes(weights)
        found = read_adapter(place)
        if found.config != info.config or found.base != base or (place / WEIGHTS).read_bytes() != weights:
            raise CheckpointError(f"{out}: not written, the adapter came back different")

    files = write_export(out, fill, need_bytes=len(weights))
    return Exported(files, 0.0, (f'peft: PeftModel.from_pretrained(model, "{out}"), where model is {base}',))
