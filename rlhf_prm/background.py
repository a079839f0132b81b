"""Work beside other work: one job at a time, in a thread of its own."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any


class Background:
    """Runs jobs in a daemon thread, so that Ctrl-C need not wait for a slow host; one after the other.

    Args:
        name: of its threads.
    """

    def __init__(self, name: str) -> None:
        self.name, self._turn = name, threading.Lock()

    def start(self, job: Callable[[], Any]) -> Future:
        """The future of ``job()``; what it raises is raised by ``result``."""
        future: Future = Future()

        def work() -> None:
            with self._turn:
                try:
                    future.set_result(job())
                except BaseException as error:  # whatever it is belongs to whoever waits for the result
                    future.set_exception(error)

        threading.Thread(target=work, name=self.name, daemon=True).start()
        return future
