"""A local OpenAI-compatible server whose texts follow from (prompt, seed), and which misbehaves as told."""

import json
import random
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.annotate.annotate_plugin import texts_of

FAULTS = (
    "429",
    "429 with a date",
    "500",
    "503",
    "timeout",
    "cut",
    "cut in the body",
    "not json",
    "wrong json",
    "too few",
)


class Server:
    """``with Server(...) as server``: ``server.url``; ``faults`` are drawn with ``probability`` for each request."""

    def __init__(self, faults=(), probability=0.0, latency=0.0, seed=0, hang=0.5, refuse=None):
        self.faults, self.probability, self.latency, self.hang, self.refuse = faults, probability, latency, hang, refuse
        self.rng, self.lock = random.Random(seed), threading.Lock()
        self.seen, self.seeds, self.bodies = Counter(), [], []
        self.in_flight = self.most_in_flight = 0
        self.refusal, self.retry_after = 400, "0.02"
        self.tells_ids = False
        self.together = None  # a threading.Barrier that every request waits at

    def __enter__(self):
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                outer.handle(self)

            def log_message(self, *args):
                pass

        class Quiet(ThreadingHTTPServer):
            request_queue_size = 256
            daemon_threads = True

            def handle_error(self, request, client_address):
                pass  # clients that gave up

        self.http = Quiet(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/v1"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exception):
        self.http.shutdown()
        self.http.server_close()

    def handle(self, handler):
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        with self.lock:
            fault = self.rng.choice(self.faults) if self.faults and self.rng.random() < self.probability else "none"
            self.seen[fault] += 1
            self.bodies.append((handler.path, body))
            self.seeds.append(body["seed"])
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            time.sleep(self.latency)
            if self.together is not None:
                self.together.wait(60)
            self.answer(handler, body, fault)
        finally:
            with self.lock:
                self.in_flight -= 1

    def answer(self, handler, body, fault):
        prompt = body.get("prompt") or body["messages"]
        if self.refuse and self.refuse in str(prompt):
            return self.send(handler, self.refusal, b'{"error": "the prompt is longer than the context"}')
        if fault == "429":
            return self.send(handler, 429, b"slow down", {"Retry-After": self.retry_after})
        if fault == "429 with a date":
            return self.send(handler, 429, b"slow down", {"Retry-After": "Fri, 31 Dec 1999 23:59:59 GMT"})
        if fault in ("500", "503"):
            return self.send(handler, int(fault), b"oops")
        if fault == "timeout":
            time.sleep(self.hang)
        if fault == "cut":
            return handler.connection.close()
        of_ids = isinstance(prompt, list) and isinstance(prompt[0], int)
        texts = self.texts(str(prompt) if of_ids else prompt, body["n"], body["seed"])
        if fault == "too few":
            texts = texts[1:]
        chat = "messages" in body
        choices = [{"message": {"content": text}} if chat else {"text": text} for text in texts]
        if self.tells_ids and body.get("return_token_ids"):
            choices = [choice | {"token_ids": [1, 2], "prompt_token_ids": [3]} for choice in choices]
        answer = json.dumps({"choices": choices, "usage": {"prompt_tokens": 10, "completion_tokens": 20}}).encode()
        if fault == "cut in the body":
            handler.wfile.write(
                b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(answer) + answer[: len(answer) // 2]
            )
            return handler.connection.close()
        if fault == "null":
            choices[0] = {"message": {"content": None}} if chat else {"text": None}
            answer = json.dumps({"choices": choices}).encode()
        if fault == "not json":
            answer = b"<html>Bad gateway</html>"
        if fault == "wrong json":
            answer = b'{"choices": [{"text": null}, 3]}'
        return self.send(handler, 200, answer)

    def texts(self, prompt, n, seed):
        return texts_of(prompt, n, seed)

    @staticmethod
    def send(handler, status, content, headers=None):
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(content)
