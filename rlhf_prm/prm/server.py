"""A PRM that vLLM serves (pooling over HTTP), behind the same Protocol as one in this process."""

import json
import math
import shlex
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import httpx
from tenacity import RetryCallState, Retrying

from rlhf_prm.background import Background
from rlhf_prm.prm.families import Family
from rlhf_prm.prm.scorer import BatchScorer
from rlhf_prm.prm.texts import Rendered, Texts
from rlhf_prm.retries import PassingFailure, policy, raise_if_passing

FIRST_WAIT, LONGEST_WAIT = 0.25, 10.0  # seconds between two attempts


class PRMServerError(ConnectionError):
    """The PRM server gave no answer before the deadline; the message says how to start it."""


class ServerScorer(BatchScorer):
    """Scores steps over vLLM's ``/pooling``: token ids out, one row of label probabilities per step back.

    A request that fails because the server is down, restarting or full is repeated, after waits that double and
    last at least as long as the server's Retry-After, until ``deadline`` seconds have passed since its first failure: a
    server that is restarted during a run costs only time.

    Args:
        url: where the server listens, e.g. ``"http://127.0.0.1:8000"``.
        model: the checkpoint's name, for the command in error messages.
        deadline: seconds for which a failing request is tried again.
        timeout: seconds after which one attempt fails.
        in_flight: requests under way at once.
        request_tokens: tokens that one request carries at most, unless a single rollout is longer.
        family, texts, context: see :class:`BatchScorer`; the server's own limit lowers ``context``.

    Raises:
        PRMServerError: there was no answer before the deadline.
        ValueError: the server refuses the request, or does not serve this PRM as its family needs.
    """

    def __init__(
        self,
        family: Family,
        texts: Texts,
        *,
        url: str,
        model: str,
        context: int,
        deadline: float = 600.0,
        timeout: float = 120.0,
        in_flight: int = 16,
        request_tokens: int = 8192,
        past_context: str = "nan",
    ):
        if family.served is None:
            raise ValueError(f"vLLM does not serve PRMs of family {family.name!r}: choose another placement.")
        super().__init__(family, texts, context, past_context)
        self.url = url.rstrip("/")
        self.model = model
        self.deadline = deadline
        self.request_tokens = request_tokens
        self._threads = ThreadPoolExecutor(in_flight, thread_name_prefix="prm-server")
        limits = httpx.Limits(max_connections=in_flight, max_keepalive_connections=in_flight)
        # no proxies from the environment: a PRM server is in the same cluster
        self._client = httpx.Client(timeout=httpx.Timeout(timeout, connect=10.0), limits=limits, trust_env=False)
        self._greeted = False
        self._background = Background("prm-server-batch")

    def submit(self, problems: list[str], steps: list[list[str]]) -> Future[list[list[float]]]:
        """``score``, begun: the scores are the ``result()`` of what is returned."""
        return self._background.start(lambda: self.score(problems, steps))

    def command(self) -> str:
        """The shell command that serves this PRM."""
        pooling = {"pooling_type": "STEP", "step_tag_id": self.texts.tag_id}
        if self.family.served == "tokens":
            pooling = {"pooling_type": "ALL"}
        port = httpx.URL(self.url).port or 80
        config = shlex.quote(json.dumps(pooling))
        return f"vllm serve {shlex.quote(self.model)} --runner pooling --pooler-config {config} --port {port}"

    def close(self) -> None:
        self._threads.shutdown(cancel_futures=True)
        self._client.close()

    def _rendered(self, rollouts: list[tuple[str, list[str]]]) -> tuple[list[Rendered], Exception | None]:
        if not self._greeted and rollouts:
            served = self._answer("GET", "/v1/models")["data"][0]
            self.context = min(self.context, served.get("max_model_len") or self.context)
            self._greeted = True
        return super()._rendered(rollouts)

    def _probabilities(
        self, rendered: list[Rendered], groups: list[int], failure: Exception | None
    ) -> list[list[float]]:
        if failure is not None:
            raise failure
        requests: list[list[Rendered]] = []
        tokens = 0
        for one in rendered:
            tokens += len(one.ids)
            if not requests or tokens > self.request_tokens:
                requests.append([])
                tokens = len(one.ids)
            requests[-1].append(one)
        self.stats.forwards += len(requests)
        self.stats.tokens += sum(len(one.ids) for one in rendered)
        return [scores for part in self._threads.map(self._scored, requests) for scores in part]

    def _scored(self, rendered: list[Rendered]) -> list[list[float]]:
        body = {"input": [one.ids for one in rendered], "task": "token_classify"}
        data = sorted(self._answer("POST", "/pooling", body)["data"], key=lambda item: item["index"])
        if len(data) != len(rendered):
            raise ValueError(f"{self.url} gave {len(data)} answers to {len(rendered)} rollouts.")
        return [self._right(item["data"], one) for item, one in zip(data, rendered, strict=True)]

    def _right(self, rows: list[list[float | None]], one: Rendered) -> list[float]:
        """Column 1 of the rows that belong to the step ends: all of them, or those among one row per token."""
        if self.family.served == "tokens" and len(rows) == len(one.ids):
            rows = [rows[end] for end in one.ends]
        if len(rows) != len(one.ends) or any(len(row) != 2 for row in rows):
            raise ValueError(
                f"{self.url} gave {len(rows)} rows of {len(rows[0]) if rows else 0} for {len(one.ends)} steps in "
                f"{len(one.ids)} tokens: it does not serve this PRM as it is read. Start it with: {self.command()}"
            )
        return [math.nan if row[1] is None else float(row[1]) for row in rows]

    def _answer(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """The JSON answer to one request, which is repeated after failures that may be temporary."""
        first_failure = math.nan

        def hopeless(state: RetryCallState) -> bool:
            nonlocal first_failure
            newest = state.outcome_timestamp
            assert newest is not None  # only called after an attempt has ended
            first_failure = newest if state.attempt_number == 1 else first_failure
            return newest - first_failure + state.upcoming_sleep > self.deadline

        def attempt() -> httpx.Response:
            try:
                response = self._client.request(method, self.url + path, json=body)
            except httpx.TransportError as error:
                raise PassingFailure(f"{type(error).__name__}: {error}") from error
            raise_if_passing(response)
            return response

        try:
            response = Retrying(**policy(hopeless, FIRST_WAIT, LONGEST_WAIT))(attempt)
        except PassingFailure as failure:
            raise PRMServerError(
                f"the PRM server at {self.url} has given no answer for {self.deadline:g} s ({failure}). "
                f"Start it with: {self.command()}"
            ) from failure
        if response.status_code != 200:
            raise ValueError(
                f"{self.url}{path} refused the request, status {response.status_code}: {response.text[:500]}"
            )
        answer: dict[str, Any] = response.json()
        return answer
