"""A small HTTP server that answers /pooling as vLLM does, from a model in this process, with faults on demand."""

import json
import socket
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import torch


class PoolingServer:
    """Context manager; ``url`` is its address.

    Args:
        model: token-level model whose logits are softmaxed.
        tag_id: only rows at this token are given (STEP); ``None``: one row for each token (ALL).
        faults: one for each of the first requests to /pooling: ``"drop"`` closes the connection, ``"hang"`` answers
            after the client has gone, an int is a status, ``None`` is a good answer.
        retry_after: what the Retry-After header of a bad status says.
        port: 0 for any free one.
    """

    def __init__(
        self, model, tag_id: int | None, faults=(), port: int = 0, tamper: Callable | None = None, retry_after=None
    ):
        self.model, self.tag_id, self.faults, self.port = model.eval(), tag_id, list(faults), port
        self.tamper = tamper or (lambda rows: rows)
        self.retry_after = retry_after
        self.requests: list[list[list[int]]] = []
        self.stopped = threading.Event()

    def __enter__(self) -> "PoolingServer":
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.answer(200, {"data": [{"id": "prm", "max_model_len": 512}]})

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                fault = owner.faults.pop(0) if owner.faults else None
                if fault == "drop":
                    self.close_connection = True
                    return self.connection.shutdown(socket.SHUT_RDWR)
                if fault == "hang":
                    owner.stopped.wait(20)
                if isinstance(fault, int):
                    return self.answer(fault, {"error": "not now"})
                owner.requests.append(body["input"])
                data = [{"index": i, "data": owner.rows(ids)} for i, ids in enumerate(body["input"])]
                return self.answer(200, {"data": data[::-1]})  # vLLM promises an index, not an order

            def answer(self, status, content):
                text = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                if status != 200 and owner.retry_after is not None:
                    self.send_header("Retry-After", owner.retry_after)
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.thread.start()
        return self

    @torch.no_grad()
    def rows(self, ids: list[int]) -> list[list[float]]:
        probabilities = self.model(torch.tensor([ids])).logits[0].softmax(-1)
        if self.tag_id is not None:
            probabilities = probabilities[torch.tensor(ids) == self.tag_id]
        return self.tamper(probabilities.tolist())

    def __exit__(self, *_) -> None:
        self.stopped.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def free_port() -> int:
    """A port on which nothing listens just now."""
    with PoolingServer(torch.nn.Identity(), None) as server:
        port = server.port
    return port


def wait_until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Returns as soon as ``condition`` holds; fails after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.005)
