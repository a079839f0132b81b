"""What TRL's AsyncGRPO has on GPUs, for a CPU: a vLLM server, the sending of weights, flash attention, an HTTP client.

Nothing else is replaced: trainer, rollout worker, queue, packing and loss are TRL's, as they come. The HTTP client is
put in place where aiohttp is not installed, also in the worker's process, which imports this module with the scorer.
"""

import asyncio
import json
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from trl.experimental.async_grpo import async_grpo_trainer, async_rollout_worker, packing

from tests.tiny import HashScorer


class Response:
    """Of an HTTP request: what TRL's worker asks of aiohttp's."""

    def __init__(self, url: str, body: dict[str, Any]) -> None:
        self.url, self.body = url, body

    async def __aenter__(self) -> "Response":
        self.told = await asyncio.to_thread(self._answer)
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    def _answer(self) -> dict[str, Any]:
        head = {"Content-Type": "application/json"}
        with urllib.request.urlopen(urllib.request.Request(self.url, json.dumps(self.body).encode(), head)) as answer:
            return json.load(answer)

    def raise_for_status(self) -> None:
        pass  # urllib has raised

    async def json(self) -> dict[str, Any]:
        return self.told


class Session:
    """In place of ``aiohttp.ClientSession``."""

    def __init__(self, **_: Any) -> None:
        pass

    async def __aenter__(self) -> "Session":
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    def post(self, url: str, json: dict[str, Any], timeout: Any) -> Response:
        return Response(url, json)


if not async_rollout_worker.is_aiohttp_available():
    nothing = lambda **_: None  # noqa: E731
    async_rollout_worker.aiohttp = SimpleNamespace(ClientSession=Session, TCPConnector=nothing, ClientTimeout=nothing)
    async_rollout_worker._RETRYABLE_HTTP_ERRORS = (OSError,)


def scorer_of_the_worker() -> HashScorer:
    """Here, so that unpickling a scorer brings this module into the worker's process."""
    return HashScorer()


def attention_of_segments(
    query, key, value, ends_q, ends_k, longest_q, longest_k, *, softmax_scale, causal, window_size, **_
):
    """``flash_attn_varlen_func``, one segment after the other: (N, H, D) over (K, H_kv, D)."""
    assert causal and window_size == (-1, -1)
    found = []
    for (q0, q1), (k0, k1) in zip(pairwise(ends_q), pairwise(ends_k), strict=True):
        # (H, N, D); the last query sees all keys, and each one before it one key fewer.
        q, k, v = (x.transpose(0, 1) for x in (query[q0:q1], key[k0:k1], value[k0:k1]))
        seen = torch.ones(q1 - q0, k1 - k0).tril(diagonal=int((k1 - k0) - (q1 - q0))).bool()
        heads = torch.nn.functional.scaled_dot_product_attention(
            q, k, v, attn_mask=seen, scale=softmax_scale, enable_gqa=True
        )
        found.append(heads.transpose(0, 1))
    return torch.cat(found)


class Server:
    """A vLLM server of one policy: samples one completion for each request, with its log-probabilities.

    It is TRL's sender of weights too, and takes them straight into its own copy.

    Attributes:
        synchronisations: how often weights were sent.
        requests: bodies of the requests for completions.
    """

    def __init__(self, policy: Any, eos: int) -> None:
        self.policy, self.eos, self.lock = policy.eval(), eos, threading.Lock()
        self.synchronisations, self.requests = 0, []

    def __enter__(self) -> "Server":
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                self._tell(outer.completion(body))

            def do_GET(self) -> None:
                self._tell({"data": [{"max_model_len": 128}]})  # of /health nobody reads it

            def _tell(self, what: dict[str, Any]) -> None:
                told = json.dumps(what).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(told)))
                self.end_headers()
                self.wfile.write(told)

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.http.shutdown()
        self.http.server_close()

    @torch.no_grad()
    def completion(self, body: dict[str, Any]) -> dict[str, Any]:
        """As vLLM's /v1/completions with token ids and log-probabilities."""
        with self.lock:  # vLLM is paused while it takes weights
            self.requests.append(body)
            draw = torch.Generator().manual_seed(body["seed"])
            ids, told, probabilities = list(body["prompt"]), [], []
            for _ in range(body["max_tokens"]):
                logits = self.policy(torch.tensor([ids])).logits[0, -1].log_softmax(-1)
                token = int(torch.multinomial(logits.exp(), 1, generator=draw))
                ids.append(token)
                told.append(token)
                probabilities.append(logits[token].item())
                if token == self.eos:
                    break
        return {"choices": [{"token_ids": told, "logprobs": {"token_logprobs": probabilities}}]}

    def init_weight_transfer(self) -> None:
        pass

    def pause(self) -> None:
        self.lock.acquire()

    def send_weights(self, iterator: Iterator[tuple[str, torch.Tensor]]) -> None:
        own = self.policy.state_dict()
        with torch.no_grad():
            for name, weights in iterator:
                own[name].copy_(weights)
        self.synchronisations += 1

    def resume(self) -> None:
        self.lock.release()

    def destroy(self) -> None:
        pass


class ThreadedWorker(async_rollout_worker.AsyncRolloutWorker):
    """TRL's rollout worker, whose loop runs in a thread of this process and not in a process of its own."""

    def start(self) -> None:
        self._loop_kwargs["reward_funcs"] = list(self._loop_kwargs["reward_funcs"])
        loop = self._loop_cls(
            **self._loop_kwargs,
            rollout_buffer=self.rollout_buffer,
            model_version_value=self._model_version_value,
            heartbeat_value=self._heartbeat_value,
            failed_event=self._failed_event,
            exception_info_queue=self._exception_info_queue,
            metrics_queue=self.metrics_queue,
        )
        async_rollout_worker._spawn_stop_watcher(loop, self._stop_event_mp)
        self.thread = threading.Thread(target=loop.run, daemon=True)
        self.thread.start()

    def stop(self) -> None:
        self._stop_event_mp.set()
        self.thread.join(timeout=30)
        for written in (self.rollout_buffer, self.metrics_queue, self._exception_info_queue):
            written.cancel_join_thread()  # nobody reads the rest, and this process must not wait for that at its end


@contextmanager
def on_a_cpu(in_a_thread: bool, weight_transfer: Any = None) -> Iterator[None]:
    """Within it AsyncGRPO trains here: without vLLM, its kernels and, where asked for, without a second process.

    ``weight_transfer`` takes the place of NCCL where the trainer is not given another.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(async_rollout_worker, "is_vllm_available", lambda: True)
        patch.setattr(async_rollout_worker, "is_aiohttp_available", lambda: True)
        kernel = SimpleNamespace(flash_attn_varlen_func=attention_of_segments)
        patch.setattr(packing, "_flash_attn", lambda: kernel)
        patch.setattr(async_grpo_trainer, "get_peak_flops_per_device", lambda *_: None)  # asks CUDA for its name
        if weight_transfer is not None:
            patch.setattr(async_grpo_trainer, "WeightTransferClient", lambda **_: weight_transfer)
        if in_a_thread:
            patch.setattr(async_grpo_trainer, "AsyncRolloutWorker", ThreadedWorker)
        yield
