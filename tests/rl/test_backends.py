"""Ids in, ids out, the same from this process as from a server that runs the same weights; and clear words when not."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch

from minimind.errors import TrainingError
from minimind.generation.completions import complete
from minimind.generation.generate import draw_ids
from minimind.generation.sampling import Sampling
from minimind.model import Transformer
from minimind.rl.backends import InProcess, ServerBackend
from minimind.storage.checkpoint import load_model, save_checkpoint
from minimind.text.tokenizer import Tokenizer

PROMPTS = [[1, 60, 61, 62], [1, 70], [1, *range(80, 95)], [1, 70], [5]]
STREAMS = [11, 12, 13, 14, 2**61]
SAMPLING = Sampling(temperature=1.0, top_p=1.0, max_tokens=6)

MakePolicy = Callable[..., Transformer]


# ---- in process


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_answers_do_not_depend_on_the_batch_and_come_back_in_order(
    make_policy: MakePolicy, tokenizer: Tokenizer, batch_size: int
) -> None:
    model = make_policy()
    found = InProcess(model, tokenizer, batch_size).generate(PROMPTS, SAMPLING, STREAMS)
    for prompt, stream, completion in zip(PROMPTS, STREAMS, found, strict=True):
        num_ids = tokenizer.vocab_size
        alone = [*draw_ids(model, prompt, SAMPLING, stop_ids={0, 2}, number=stream, num_ids=num_ids)]
        assert completion.ids == [one.id for one in alone]
        assert completion.logprobs == pytest.approx([one.logprob for one in alone], abs=1e-4)


def test_the_precision_of_the_run_is_that_of_sampling(make_policy: MakePolicy, tokenizer: Tokenizer) -> None:
    model, seen = make_policy(), []
    model.layers[0].register_forward_hook(lambda *_: seen.append(torch.is_autocast_enabled("cpu")))
    InProcess(model, tokenizer).generate(PROMPTS[:1], SAMPLING, [0])
    assert set(seen) == {False}
    seen.clear()
    backend = InProcess(model, tokenizer, precision=lambda: torch.autocast("cpu", torch.bfloat16))
    [completion] = backend.generate(PROMPTS[:1], SAMPLING, [0])
    assert set(seen) == {True} and len(completion.ids) == len(completion.logprobs)


def test_training_goes_on_after_sampling_in_a_lower_precision(make_policy: MakePolicy, tokenizer: Tokenizer) -> None:
    """Rounded copies of the weights that sampling made must not find their way into a pass with gradients."""
    model = make_policy().train()
    InProcess(model, tokenizer, precision=lambda: torch.autocast("cpu", torch.bfloat16)).generate(
        PROMPTS, SAMPLING, STREAMS
    )
    assert model.training
    with torch.autocast("cpu", torch.bfloat16):
        model(torch.tensor(PROMPTS[:1])).sum().backward()
    assert model.layers[0].mlp.up_proj.weight.grad is not None  # type: ignore[union-attr]


# ---- a server


class Served:
    """What a vLLM or SGLang server would do with the same weights; `broken` changes its answers."""

    def __init__(self, model: Transformer, tokenizer: Tokenizer) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.requests: list[tuple[str, dict[str, Any], Mapping[str, str]]] = []
        self.broken: Callable[[dict[str, Any]], dict[str, Any]] = lambda answer: answer
        self.missing: set[str] = set()
        self.elsewhere = ""

    def answer(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        if path == "/v1/completions":
            completion = self.complete(body["prompt"], body["seed"], body["max_tokens"])
            logprobs = {"token_logprobs": completion.logprobs, "tokens": None}
            choice = {"text": "?", "token_ids": completion.ids, "logprobs": logprobs}
            return {"choices": [{**choice, "finish_reason": completion.finish_reason}]}
        if path == "/generate":
            parameters = body["sampling_params"]
            completion = self.complete(body["input_ids"], parameters["sampling_seed"], parameters["max_new_tokens"])
            rows = [[logprob, index, None] for logprob, index in zip(completion.logprobs, completion.ids, strict=True)]
            details = {"finish_reason": {"type": completion.finish_reason}, "output_token_logprobs": rows}
            return {"text": "?", "output_ids": completion.ids[:-1], "meta_info": details}
        if path in ("/collective_rpc", "/update_weights_from_disk"):
            place = body.get("model_path") or body["kwargs"]["weights_path"]
            self.model = load_model(place)[0]
            return {"success": True, "message": "loaded"}
        return {}

    def complete(self, prompt: list[int], seed: int, room: int) -> Any:
        sampling = Sampling(temperature=1.0, top_p=1.0, max_tokens=room)
        return complete(self.model, self.tokenizer, [prompt], sampling, stop_ids={0, 2}, streams=[seed])[0]


@pytest.fixture
def served(make_policy: MakePolicy, tokenizer: Tokenizer) -> Iterator[tuple[Served, str]]:
    """A server on this machine, and its address."""
    state = Served(make_policy(seed=1), tokenizer)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            state.requests.append((self.path, body, dict(self.headers)))
            content = json.dumps(state.broken(state.answer(self.path, body))).encode()
            self.send_response(302 if state.elsewhere else 404 if self.path in state.missing else 200)
            if state.elsewhere:
                self.send_header("Location", state.elsewhere)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield state, f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    thread.join()
    server.server_close()


def connect(url: str, tokenizer: Tokenizer, folder: Path, model: Transformer, **options: Any) -> ServerBackend:
    return ServerBackend(
        url,
        "policy",
        tokenizer,
        folder=folder,
        save=lambda place: save_checkpoint(place, model, tokenizer),
        context=model.config.max_position_embeddings,
        timeout_seconds=20,
        **options,
    )


@pytest.mark.parametrize("server", ["vllm", "sglang"])
def test_a_server_that_was_handed_the_weights_says_what_this_process_says(
    served: tuple[Served, str], make_policy: MakePolicy, tokenizer: Tokenizer, tmp_path: Path, server: Any
) -> None:
    model, streams = make_policy(seed=7), [3, 4, 5, 6, 7]
    backend = connect(served[1], tokenizer, tmp_path, model, server=server)
    expected = InProcess(model, tokenizer).generate(PROMPTS, SAMPLING, streams)
    before = backend.generate(PROMPTS, SAMPLING, streams)
    assert [one.ids for one in before] != [one.ids for one in expected]
    backend.refresh(0)
    found = backend.generate(PROMPTS, SAMPLING, streams)
    assert [one.ids for one in found] == [one.ids for one in expected]
    assert [one.finish_reason for one in found] == [one.finish_reason for one in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)


def test_weights_are_handed_over_in_a_new_folder_each_time_and_the_old_one_goes(
    served: tuple[Served, str], make_policy: MakePolicy, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    backend = connect(served[1], tokenizer, tmp_path, make_policy())
    (tmp_path / "step-000099").mkdir()
    for step in (0, 4, 8):
        backend.refresh(step)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000008"]
    asked = [body["kwargs"]["weights_path"] for path, body, _ in served[0].requests if path == "/collective_rpc"]
    assert asked == [str(tmp_path / f"step-{step:06d}") for step in (0, 4, 8)]
    assert [path for path, _, _ in served[0].requests].count("/reset_prefix_cache") == 3


def test_every_option_of_sampling_is_sent_and_an_answer_fits_the_context(
    served: tuple[Served, str],
    make_policy: MakePolicy,
    tokenizer: Tokenizer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A server takes what is left out from the model's own recommendations, and those cut the distribution."""
    monkeypatch.setenv("ROLLOUT_KEY", "secret")
    backend = connect(served[1], tokenizer, tmp_path, make_policy(), api_key_env="ROLLOUT_KEY")
    backend.generate([[1, *range(40, 131)]], Sampling(temperature=0.8, top_p=1.0, max_tokens=50), [9])
    [(_, body, headers)] = served[0].requests
    expected = {"temperature": 0.8, "top_p": 1.0, "top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0, "seed": 9}
    assert body.items() >= expected.items() and body["max_tokens"] == 96 - 92
    assert body["prompt"] == [1, *range(40, 131)] and headers["Authorization"] == "Bearer secret"


def test_the_key_is_not_sent_elsewhere(
    served: tuple[Served, str], make_policy: MakePolicy, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    served[0].elsewhere = "http://127.0.0.1:9/v1/completions"
    with pytest.raises(TrainingError, match="refused with status 302"):
        connect(served[1], tokenizer, tmp_path, make_policy()).generate(PROMPTS[:1], SAMPLING, [0])


def without(*keys: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """An answer whose first choice lacks what the last key names."""

    def change(answer: dict[str, Any]) -> dict[str, Any]:
        answer["choices"][0].pop(keys[-1], None)
        return answer

    return change


def changed(**values: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def change(answer: dict[str, Any]) -> dict[str, Any]:
        answer["choices"][0].update(values)
        return answer

    return change


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (
            without("token_ids"),
            r"does not tell which token ids.*encoding their text again could give others.*vLLM 0\.10",
        ),
        (without("logprobs"), "does not tell which token ids"),
        (lambda answer: {"error": "no"}, "does not tell which token ids"),
        (changed(token_ids=["a", "b"], logprobs={"token_logprobs": [0, 0]}), "ids are not whole numbers"),
        (changed(token_ids=[40, 2], logprobs={"token_logprobs": [0.0]}), "2 ids and 1 log-probabilities"),
        (changed(token_ids=[40, 41], logprobs={"token_logprobs": [0, 0]}, finish_reason="stop"), "cannot learn to end"),
        (changed(token_ids=[999], logprobs={"token_logprobs": [0.0]}), "sampled id 999; expected ids below"),
        (changed(token_ids=[], logprobs={"token_logprobs": []}), "sampled nothing"),
        (changed(finish_reason="abort"), "ended an answer with 'abort'"),
    ],
)
def test_an_answer_to_learn_nothing_from_is_an_error_that_says_why(
    served: tuple[Served, str],
    make_policy: MakePolicy,
    tokenizer: Tokenizer,
    tmp_path: Path,
    broken: Callable[[dict[str, Any]], dict[str, Any]],
    message: str,
) -> None:
    backend = connect(served[1], tokenizer, tmp_path, make_policy())
    served[0].broken = broken
    with pytest.raises(TrainingError, match=message):
        backend.generate(PROMPTS[:1], SAMPLING, [0])


def test_a_server_that_is_gone_or_cannot_load_is_named(
    served: tuple[Served, str], make_policy: MakePolicy, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    state, url = served
    state.missing = {"/collective_rpc"}
    with pytest.raises(TrainingError, match=r"/collective_rpc: refused with status 404.*VLLM_SERVER_DEV_MODE=1"):
        connect(url, tokenizer, tmp_path, make_policy()).refresh(0)
    state.broken = lambda answer: {"success": False, "message": "wrong shape"}
    with pytest.raises(TrainingError, match=r"did not load .*step-000000: wrong shape"):
        connect(url, tokenizer, tmp_path, make_policy(), server="sglang").refresh(0)
    gone = connect("http://127.0.0.1:9", tokenizer, tmp_path, make_policy())
    with pytest.raises(
        TrainingError, match=r"http://127\.0\.0\.1:9/v1/completions: the rollout server does not answer"
    ):
        gone.generate(PROMPTS[:1], SAMPLING, [0])
