"""Any OpenAI-compatible endpoint, on one host or many: ``vllm serve``, SGLang, llama.cpp, hosted services.

Texts and token ids go to ``/completions`` (so that a step prefix is continued as it is), chats to
``/chat/completions``.
"""

import asyncio
import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, TypeVar

import httpx
from tenacity import AsyncRetrying, stop_before_delay

from rlhf_prm.generation.hosts import Host, Hosts
from rlhf_prm.generation.prompts import prompt_seeds
from rlhf_prm.generation.requests import Generate, GenerationError, Prompt, Sample, is_token_ids
from rlhf_prm.retries import NOT_IMPLEMENTED, PassingFailure, policy, raise_if_passing

logger = logging.getLogger(__name__)
Result = TypeVar("Result")

_SLOTS_PER_CLIENT = 8  # a client's bookkeeping grows with the square of its connections
_QUIET = 30  # seconds without any answer before a warning is logged
_MISCONFIGURED = {401, 403, 404, 405, NOT_IMPLEMENTED}


class EndpointError(ValueError):
    """No host can be used: all are down, or refuse this model or key. No single row is at fault."""


@dataclass
class Usage:
    """Counts of requests and tokens so far. ``failures`` counts the attempts that were repeated, by reason."""

    answered: int = 0
    attempts: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    failures: Counter = field(default_factory=Counter)

    def count(self, reported: Any) -> None:
        """Add the tokens that a host reports, if it does."""
        if isinstance(reported, dict):
            for name in ("prompt_tokens", "completion_tokens"):
                tokens = reported.get(name)
                setattr(self, name, getattr(self, name) + (tokens if isinstance(tokens, int) else 0))


class EndpointGenerator:
    """``Generator`` over HTTP, with an async ``complete`` for many requests at once.

    Args:
        model: the name it is served under.
        urls: base URLs such as ``http://host:8000/v1``; each serves ``model``.
        max_tokens, temperature, top_p: sampling.
        concurrency: requests in flight over all hosts.
        timeout: seconds an attempt may take.
        deadline: seconds a request may take with all its attempts.
        first_contact: seconds within which one host must answer before the first request. Later outages are waited
            out until the deadline, but a run that never reached a host ends at once.
        first_wait, longest_wait: back-off between the attempts of a request: doubled each time, with full jitter.
        api_key_env: the environment variable that holds the key, if the hosts want one.
        send_seed: whether to send a seed, for reproducible sampling; False for hosts that do not accept one.
        send_ids: whether step prefixes are sent as token ids, and hosts are asked for the ids of their samples
            (``return_token_ids``, which vLLM supports and others ignore); False for hosts that refuse either.
        extra_body: further fields of the request body, such as ``{"top_k": 20}``.

    Raises:
        ValueError: there is no URL.
    """

    def __init__(
        self,
        model: str,
        urls: list[str],
        *,
        max_tokens: int = 1024,
        temperature: float = 1.0,
        top_p: float = 1.0,
        concurrency: int = 64,
        timeout: float = 600.0,
        deadline: float = 3600.0,
        first_contact: float = 10.0,
        first_wait: float = 0.5,
        longest_wait: float = 30.0,
        api_key_env: str = "OPENAI_API_KEY",
        send_seed: bool = True,
        send_ids: bool = True,
        extra_body: dict[str, Any] | None = None,
    ):
        if not urls:
            raise ValueError("endpoint: got no URL, expected at least one such as http://localhost:8000/v1")
        self.sampling = {"model": model, "max_tokens": max_tokens, "temperature": temperature, "top_p": top_p}
        self.sampling |= extra_body or {}
        self.concurrency, self.timeout, self.deadline = concurrency, timeout, deadline
        self.first_wait, self.longest_wait, self.first_contact = first_wait, longest_wait, first_contact
        self.reached = False
        self.hosts = Hosts(urls, -(-concurrency // len(urls)), first_wait, longest_wait)
        key = os.environ.get(api_key_env)
        self.headers = {"Authorization": f"Bearer {key}"} if key else {}
        self.send_seed, self.reads_ids = send_seed, send_ids
        self.usage = Usage()
        self._newest_success = self._newest_warning = 0.0
        self._clients: list[httpx.AsyncClient] = []

    async def __aenter__(self) -> "EndpointGenerator":
        self._newest_warning = time.monotonic()
        most = _SLOTS_PER_CLIENT * len(self.hosts.hosts)
        limits = httpx.Limits(max_connections=most, max_keepalive_connections=most)
        tls = httpx.create_ssl_context()
        self._slots = asyncio.LifoQueue()
        for slot in range(self.concurrency):
            if slot % _SLOTS_PER_CLIENT == 0:
                client = httpx.AsyncClient(headers=self.headers, timeout=self.timeout, limits=limits, verify=tls)
                self._clients.append(client)
            self._slots.put_nowait(self._clients[-1])
        if not self.reached:
            try:
                await self.ping()
            except BaseException:  # __aexit__ is not called when __aenter__ fails
                await self.__aexit__(None, None, None)
                raise
        return self

    async def ping(self) -> None:
        """Check that a host answers: any answer to ``GET /models`` counts, whatever its status.

        Raises:
            EndpointError: none answers within ``first_contact`` seconds.
        """
        urls = [host.url for host in self.hosts.hosts]
        async with httpx.AsyncClient(headers=self.headers, timeout=self.first_contact) as client:
            failures = await asyncio.gather(*(self._unreached(client, url) for url in urls))
        silent = [f"{url} ({failure})" for url, failure in zip(urls, failures, strict=True) if failure]
        if len(silent) == len(urls):
            raise EndpointError(
                f"no endpoint of {self.sampling['model']!r} can be reached: {', '.join(silent)}; start the server, or "
                "correct the URL (it looks like http://host:8000/v1)"
            )
        if silent:
            logger.warning("hosts not reached, the others take over their requests: %s", ", ".join(silent))
        self.reached = True

    async def _unreached(self, client: httpx.AsyncClient, url: str) -> str | None:
        """The reason why this host does not answer; None if it does."""
        try:
            async with asyncio.timeout(self.first_contact):
                await client.get(f"{url}/models")
        except TimeoutError:
            return f"no answer in {self.first_contact:g} s"
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return f"{type(error).__name__}: {error}"
        return None

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._clients:
            await self._clients.pop().aclose()

    def generate(
        self, prompts: list[Prompt], n: int, *, seed: int | list[int] | None = None, stop: list[str] | None = None
    ) -> list[list[str]]:
        """See ``Generator``; all prompts at once, ``concurrency`` in flight."""
        seeds = prompt_seeds(seed, len(prompts))
        requests = [Generate(prompt, n, row_seed) for prompt, row_seed in zip(prompts, seeds, strict=True)]

        async def everything() -> list[list[str]]:
            async with self:
                return await asyncio.gather(*(self.complete(request, stop) for request in requests))

        return run_to_end(everything)

    async def complete(self, request: Generate, stop: list[str] | None = None) -> list[str]:
        """The continuations of one request, with retries. It can be called only inside ``async with``.

        Raises:
            GenerationError: the host refuses the prompt, or only this request fails until its deadline.
            EndpointError: no request succeeded until the deadline, or a host refuses the model or the key.
        """
        client = await self._slots.get()
        try:
            return await self._complete(client, request, stop)
        finally:
            self._slots.put_nowait(client)

    async def _complete(self, client: httpx.AsyncClient, request: Generate, stop: list[str] | None) -> list[str]:
        started = time.monotonic()
        attempts, newest = 0, "all hosts rest"

        async def attempt() -> list[str]:
            nonlocal attempts, newest
            host = await self._awake(request.group, started + self.deadline)
            attempts, left = attempts + 1, started + self.deadline - time.monotonic()
            try:
                return await self._attempt(client, host, request, stop, min(left, self.timeout))
            except PassingFailure as failure:
                cut_short = str(failure) == "timeout" and left < self.timeout  # by the deadline, not by the host
                newest = newest if cut_short and attempts > 1 else f"{host.url}: {failure}"
                self.hosts.failed(host, failure.after)
                self._warn_of_an_outage(newest)
                raise PassingFailure(newest) from failure  # without Retry-After: this host rests, but others do not

        try:
            return await AsyncRetrying(**policy(stop_before_delay(self.deadline), self.first_wait, self.longest_wait))(
                attempt
            )
        except PassingFailure:
            pass
        if self._newest_success > started:
            raise GenerationError(f"failed {attempts} times in {self.deadline:g} s; the last: {newest}")
        raise EndpointError(
            f"nothing succeeded for {self.deadline:g} s; the last failure: {newest}. Finished work is kept; when the "
            "hosts are back, the same command continues it"
        )

    async def _awake(self, group: str, until: float) -> Host:
        """The host for a request of this group, as soon as one is awake."""
        while (host := self.hosts.pick(group)) is None:
            left = until - time.monotonic()
            if left <= 0:
                raise PassingFailure("all hosts rest")
            await asyncio.sleep(min(left, self.hosts.seconds_until_one_wakes()))
        return host

    def _warn_of_an_outage(self, newest: str) -> None:
        now = time.monotonic()
        if now - max(self._newest_success, self._newest_warning) > _QUIET:
            self._newest_warning = now
            logger.warning("no endpoint has answered for %d s or more; newest failure: %s", _QUIET, newest)

    async def _attempt(
        self, client: httpx.AsyncClient, host: Host, request: Generate, stop: list[str] | None, timeout: float
    ) -> list[str]:
        self.usage.attempts += 1
        host.in_flight += 1
        try:
            texts = await self._post(client, host, request, stop, timeout)
        except PassingFailure as failure:
            self.usage.failures[str(failure).partition(":")[0]] += 1
            raise
        finally:
            host.in_flight -= 1
        self.hosts.succeeded(host)
        self._newest_success = time.monotonic()
        self.usage.answered += 1
        return texts

    async def _post(
        self, client: httpx.AsyncClient, host: Host, request: Generate, stop: list[str] | None, timeout: float
    ) -> list[str]:
        chat = not isinstance(request.prompt, str) and not is_token_ids(request.prompt)
        body = self.sampling | {"messages" if chat else "prompt": request.prompt, "n": request.n}
        body |= {"seed": request.seed} if self.send_seed else {}
        body |= {"stop": stop} if stop else {}
        if chat and request.prompt[-1]["role"] == "assistant":  # the beginning of the answer
            body |= {"continue_final_message": True, "add_generation_prompt": False}
        body |= {"return_token_ids": True} if self.reads_ids and not chat else {}
        url = f"{host.url}/{'chat/completions' if chat else 'completions'}"
        try:
            async with asyncio.timeout(timeout):  # httpx's own limit is per read, so a slow trickle would never end
                response = await client.post(url, json=body)
        except TimeoutError:
            raise PassingFailure("timeout") from None
        except httpx.HTTPError as error:
            raise PassingFailure(f"{type(error).__name__}: {error}") from error
        self._raise_for_status(url, response)
        try:
            answer = response.json()
            texts = [(c["message"]["content"] or "") if chat else c["text"] for c in answer["choices"]]
        except (ValueError, KeyError, TypeError) as error:
            raise PassingFailure(f"garbage: {response.content[:80]!r}") from error
        if len(texts) != request.n:
            raise PassingFailure(f"garbage: {len(texts)} texts, expected {request.n}")
        if kinds := {type(text).__name__ for text in texts if not isinstance(text, str)}:
            nulls = ", ".join(sorted(kinds)).replace("NoneType", "null")
            raise PassingFailure(f"garbage: {nulls} among the {request.n} texts")
        self.usage.count(answer.get("usage"))
        return texts if chat else [_sample(choice) for choice in answer["choices"]]

    def _raise_for_status(self, url: str, response: httpx.Response) -> None:
        status = response.status_code
        if status == 200:
            return
        raise_if_passing(response)
        if status in _MISCONFIGURED:
            raise EndpointError(
                f"{url} answers {status} for model {self.sampling['model']!r}: {response.text[:200]}; check the URL "
                "(it ends in /v1), the served model's name and the key"
            )
        raise GenerationError(f"status {status}: {response.text[:200]}")


def _sample(choice: dict[str, Any]) -> Sample:
    """A choice with its token ids, if the host gives them."""
    told = [choice.get(name) for name in ("token_ids", "prompt_token_ids")]
    return Sample(choice["text"], *(ids if is_token_ids(ids) else None for ids in told))


def run_to_end(work: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
    """``asyncio.run``; if an event loop is already running (in a notebook), it runs in a separate thread."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work())
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(lambda: asyncio.run(work())).result()
