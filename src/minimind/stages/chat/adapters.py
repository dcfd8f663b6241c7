"""Several adapters beside one base model, of which one at most is in use: what `/adapter` switches in a chat."""

from collections.abc import Sequence
from pathlib import Path

from minimind.errors import ConfigError
from minimind.lora import add_lora, has_lora, load_lora_weights, remove_lora
from minimind.model import Transformer
from minimind.storage.adapters import AdapterInfo, read_adapter, read_adapter_weights
from minimind.storage.checkpoint import find_checkpoint
from minimind.suggestions import nearest
from minimind.text.tokenizer import Tokenizer

__all__ = ["NO_ADAPTER", "Adapters"]

NO_ADAPTER = "none"


class Adapters:
    """Puts adapters into a model and takes them out again; they are not merged, so the base stays as it is bit for bit.

    names:   what they are called: the last part of a path, or all of it where two end alike
    active:  the name of the one in use; at first that of the first, NO_ADAPTER without any
    Errors:  CheckpointError for a folder that holds no adapter, or one for another base or tokenizer.
    """

    def __init__(self, model: Transformer, tokenizer: Tokenizer, folders: Sequence[Path]) -> None:
        self._model = model
        self._infos: dict[str, AdapterInfo] = {}
        for folder in folders:
            alike = [other for other in folders if other.name == folder.name]
            name = folder.name if len(alike) == 1 and folder.name not in ("", NO_ADAPTER) else str(folder)
            self._infos[name] = read_adapter(find_checkpoint(folder))
        # All are read before the first question, so that a wrong one is found then.
        self._weights = {
            name: read_adapter_weights(info, model, tokenizer.fingerprint) for name, info in self._infos.items()
        }
        self.active = NO_ADAPTER
        if folders:
            self.use(self.names[0])

    @property
    def names(self) -> list[str]:
        return list(self._infos)

    def use(self, name: str) -> None:
        """Answer with this adapter from now on, or with the base alone. Errors: ConfigError for an unknown name"""
        if name not in (*self.names, NO_ADAPTER):
            close = nearest(name, self.names)
            hint = f"did you mean {close}?" if close else f"there are {', '.join([*self.names, NO_ADAPTER])}"
            raise ConfigError(f"no adapter is called {name!r}; {hint}")
        if has_lora(self._model):
            remove_lora(self._model)
        if name != NO_ADAPTER:
            add_lora(self._model, self._infos[name].config, seed=0)
            load_lora_weights(self._model, self._weights[name])
        self.active = name
