"""Where rollouts come from: this process with the live weights, or a vLLM or SGLang server fed with model folders.

Token ids go in and token ids come out, each with its log-probability. A text is never sent or taken: the same text has
many tokenizations, and the policy's gradient is that of the one it sampled.

A server must give the ids it sampled, the end of the answer included, and must be told when the weights have changed:

    vLLM    `VLLM_SERVER_DEV_MODE=1 vllm serve FOLDER --logprobs-mode processed_logprobs`, 0.14 or newer, for
            `return_token_ids` and for /collective_rpc's `reload_weights` with a path
    SGLang  `python -m sglang.launch_server --model-path FOLDER`, for /generate and /update_weights_from_disk

Both control routes change the served model: keep the server on a network that is yours alone.
`rollouts.py` makes dialogues of what comes back.
"""

import json
import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Literal, Protocol

from minimind.errors import TrainingError
from minimind.generation.completions import Completion, complete
from minimind.generation.sampling import Sampling
from minimind.model import Transformer
from minimind.remote.endpoint import open_request
from minimind.text.tokenizer import Tokenizer

__all__ = ["InProcess", "RolloutBackend", "ServerBackend"]

WHY_IDS = "rollouts learn from the very ids that were sampled, and encoding their text again could give others"
# A server batches what is in flight by itself; more threads than this only wait.
MAX_IN_FLIGHT = 64


class RolloutBackend(Protocol):
    """Continues prompts with a policy."""

    def generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, streams: Sequence[int]
    ) -> list[Completion]:
        """One completion per prompt, a final stop id included; `streams` number the rows' random streams."""
        ...

    def refresh(self, step: int) -> None:
        """Told before sampling at `step` that the weights may have changed."""
        ...


class InProcess:
    """Sampling from the model that is being trained: the next prompt takes the place of an answer that has ended.

    batch_size: answers computed at once; what one says does not depend on the others
    context:    ids of a prompt and its answer, if fewer than the model takes
    precision:  makes the context to compute in; give the run's own, so that what is sampled from is what is trained.
                Without one, sampling is in the precision of the weights, float32.
    """

    def __init__(
        self,
        model: Transformer,
        tokenizer: Tokenizer,
        batch_size: int = 64,
        precision: Callable[[], AbstractContextManager[Any]] = nullcontext,
        context: int | None = None,
    ) -> None:
        self.model, self.tokenizer, self.batch_size, self.precision = model, tokenizer, batch_size, precision
        self.context = context

    def generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, streams: Sequence[int]
    ) -> list[Completion]:
        # Entered anew each time: autocast keeps rounded copies of the weights until it is left.
        with self.precision():
            return complete(
                self.model,
                self.tokenizer,
                prompts,
                sampling,
                streams=streams,
                batch_size=self.batch_size,
                context=self.context,
            )

    def refresh(self, step: int) -> None:
        """The weights are the live ones."""


class ServerBackend:
    """Sampling by a server, which loads a folder with the policy's weights whenever they have changed.

    A server belongs to one process: several ranks need a server and a folder each.

    url:         of the server, such as http://localhost:8000
    model_name:  what the server calls the model
    folder:      where models are handed over; the server must see the same path
    save:        writes the policy as a model folder at the path it is given
    context:     ids of a prompt and its answer, at most the model's
    api_key_env: the environment variable that holds the server's key
    """

    def __init__(
        self,
        url: str,
        model_name: str,
        tokenizer: Tokenizer,
        *,
        folder: Path,
        save: Callable[[Path], None],
        context: int,
        server: Literal["vllm", "sglang"] = "vllm",
        api_key_env: str = "OPENAI_API_KEY",
        timeout_seconds: float = 600,
    ) -> None:
        self.url, self.model_name, self.server = url.rstrip("/").removesuffix("/v1"), model_name, server
        self.folder, self.save, self.context, self.timeout_seconds = folder, save, context, timeout_seconds
        self.num_ids, self.stop_ids = tokenizer.vocab_size, sorted(tokenizer.end_ids)
        self.headers = {"Content-Type": "application/json"}
        if key := os.environ.get(api_key_env):
            self.headers["Authorization"] = f"Bearer {key}"

    def generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, streams: Sequence[int]
    ) -> list[Completion]:
        """Errors: TrainingError when the server is gone, refuses, or does not tell the ids it sampled."""
        with ThreadPoolExecutor(MAX_IN_FLIGHT) as pool:
            return list(pool.map(lambda prompt, stream: self._complete(prompt, stream, sampling), prompts, streams))

    def refresh(self, step: int) -> None:
        """Save the policy in a new folder, have it loaded, and remove those before it. Errors: TrainingError

        The folder's name is new each time, because servers keep what they read under a name they know.
        """
        place = (self.folder / f"step-{step:06d}").resolve()
        shutil.rmtree(place, ignore_errors=True)
        self.save(place)
        if self.server == "vllm":
            self._post("/collective_rpc", {"method": "reload_weights", "kwargs": {"weights_path": str(place)}})
            # What it remembers of prompts was computed with the weights before.
            self._post("/reset_prefix_cache", {})
        else:
            answer = self._post("/update_weights_from_disk", {"model_path": str(place)})
            if answer.get("success") is not True:
                raise TrainingError(f"{self.url}: did not load {place}: {answer.get('message', answer)}")
        # Also what an earlier start of the run left.
        for other in set(self.folder.glob("step-*")) - {self.folder / place.name}:
            shutil.rmtree(other, ignore_errors=True)

    def _complete(self, prompt: Sequence[int], stream: int, sampling: Sampling) -> Completion:
        room = min(sampling.max_tokens, self.context - len(prompt))
        if self.server == "vllm":
            body = _vllm_request(prompt, stream, sampling, room, self.stop_ids) | {"model": self.model_name}
            path, read = "/v1/completions", _read_vllm
        else:
            body = _sglang_request(prompt, stream, sampling, room, self.stop_ids)
            path, read = "/generate", _read_sglang
        answer = self._post(path, body)
        try:
            completion = read(answer)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise TrainingError(
                f"{self.url}{path}: the answer does not tell which token ids were sampled, with a log-probability each "
                f"({error!r}); {WHY_IDS}; use vLLM 0.10.2 or newer, or SGLang, or sample in process"
            ) from error
        return self._checked(completion, f"{self.url}{path}")

    def _checked(self, completion: Completion, where: str) -> Completion:
        ids = completion.ids
        if not ids or not 0 <= min(ids) <= max(ids) < self.num_ids:
            raise TrainingError(
                f"{where}: sampled {'nothing' if not ids else f'id {max(ids)}'}; expected ids below {self.num_ids}, "
                "those of the tokenizer; serve the folder that this run saves"
            )
        if completion.finish_reason == "stop" and ids[-1] not in self.stop_ids:
            raise TrainingError(
                f"{where}: an answer stopped at id {ids[-1]}, expected one of {self.stop_ids} as its last; a policy "
                "that never sees the end of its answers cannot learn to end them"
            )
        return completion

    def _post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The JSON answer; {} where a control route answers with none."""
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(), self.headers)
        try:
            with open_request(request, self.timeout_seconds) as response:
                content = response.read()
            return json.loads(content) if content.lstrip().startswith(b"{") else {}
        except urllib.error.HTTPError as error:
            detail = error.read(500).decode(errors="replace")
            hint = "; start vLLM with VLLM_SERVER_DEV_MODE=1" if error.code == 404 and "/v1" not in path else ""
            raise TrainingError(f"{self.url}{path}: refused with status {error.code}: {detail}{hint}") from error
        except (OSError, ValueError) as error:
            raise TrainingError(
                f"{self.url}{path}: the rollout server does not answer: {error}; start it, then run the same command: "
                "the run goes on from its checkpoint"
            ) from error


def _vllm_request(
    prompt: Sequence[int], stream: int, sampling: Sampling, room: int, stop_ids: list[int]
) -> dict[str, Any]:
    # All of them, for a server takes what is left out from the folder's generation_config.json.
    return {
        "prompt": list(prompt),
        "max_tokens": room,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k or -1,
        "min_p": sampling.min_p,
        "repetition_penalty": sampling.repetition_penalty,
        "seed": stream,
        "stop_token_ids": stop_ids,
        "logprobs": 0,
        "return_token_ids": True,
        "skip_special_tokens": False,
    }


def _read_vllm(answer: Mapping[str, Any]) -> Completion:
    choice = answer["choices"][0]
    return _completion(choice["token_ids"], choice["logprobs"]["token_logprobs"], choice["finish_reason"])


def _sglang_request(
    prompt: Sequence[int], stream: int, sampling: Sampling, room: int, stop_ids: list[int]
) -> dict[str, Any]:
    parameters = {
        "max_new_tokens": room,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k or -1,
        "min_p": sampling.min_p,
        "repetition_penalty": sampling.repetition_penalty,
        # Only a server in deterministic mode looks at it, as a number of 32 bits.
        "sampling_seed": stream % 2**31,
        "stop_token_ids": stop_ids,
        "skip_special_tokens": False,
        "no_stop_trim": True,
    }
    return {"input_ids": list(prompt), "sampling_params": parameters, "return_logprob": True}


def _read_sglang(answer: Mapping[str, Any]) -> Completion:
    details = answer["meta_info"]
    # Pairs of log-probability and id; `output_ids` need not hold the end of the answer.
    sampled = details["output_token_logprobs"]
    return _completion([row[1] for row in sampled], [row[0] for row in sampled], details["finish_reason"]["type"])


def _completion(ids: Any, logprobs: Any, finish_reason: Any) -> Completion:
    if not all(type(index) is int for index in ids):
        raise ValueError("ids are not whole numbers")
    if len(ids) != len(logprobs):
        raise ValueError(f"{len(ids)} ids and {len(logprobs)} log-probabilities")
    if finish_reason not in ("stop", "length"):
        raise TrainingError(f"the rollout server ended an answer with {finish_reason!r}, expected stop or length")
    return Completion(list(ids), [float(logprob) for logprob in logprobs], finish_reason=finish_reason)
