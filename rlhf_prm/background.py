"""Runs jobs in the background, one at a time, in a separate thread."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any


class Background:
    """Runs jobs one after the other in a daemon thread, so that Ctrl-C need not wait for a slow host.

    Args:
        name: the name of its threads.
    """

    def __init__(self, name: str) -> None:
        self.name, self._turn = name, threading.Lock()

    def start(self, job: Callable[[], Any]) -> Future:
        """The future of ``job()``; an exception of the job is raised by ``result``."""
        future: Future = Future()

        def work() -> None:
            with self._turn:
                try:
                    future.set_result(job())
                except BaseException as error:  # it is raised where the result is awaited
                    future.set_exception(error)

        threading.Thread(target=work, name=self.name, daemon=True).start()
        return future
