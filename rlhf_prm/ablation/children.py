"""Two ways to start a cell: by a launcher's command, or as a fork of a process that has imported the recipe."""

import os
import runpy
import shlex
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from rlhf_prm.ablation.config import AblationConfig


@dataclass(frozen=True)
class Child:
    """A started process: ``poll()`` gives its exit status, None while it runs; ``stop()`` ends it and its children."""

    poll: Callable[[], int | None]
    stop: Callable[[], None]


Start = Callable[[Mapping[str, Any], Any], Child]  # (values for the launcher, file for the output) → child


def launched(config: AblationConfig) -> Start:
    """Start cells by the launcher's command."""

    def start(values: Mapping[str, Any], log: Any) -> Child:
        values = {"python": sys.executable, "recipe": config.recipe, **values}
        try:
            command = [part.format(**values) for part in shlex.split(config.launcher)]
        except (KeyError, IndexError) as error:
            known = ", ".join(f"{{{name}}}" for name in values)
            raise ValueError(f"launcher: no {error} to put into {config.launcher!r}; there are {known}") from error
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)

        def stop() -> None:
            _end_group(process.pid)
            process.wait()

        return Child(process.poll, stop)

    return start


def forked(recipe: str, parallel: int = 1) -> Start:
    """Start cells as forks of this process, which first runs the recipe's top level (its imports) without its main.

    Each of the ``parallel`` cells gets its share of torch's threads, so that they do not compete for the cores.
    """
    runpy.run_path(recipe, run_name="recipe")

    def start(values: Mapping[str, Any], log: Any) -> Child:
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            torch.set_num_threads(max(1, torch.get_num_threads() // parallel))
            _be_the_recipe(recipe, values["config"], log.fileno())
        ended: list[int] = []

        def poll() -> int | None:
            if not ended:
                done, status = os.waitpid(pid, os.WNOHANG)
                if not done:
                    return None
                ended.append(os.waitstatus_to_exitcode(status))
            return ended[0]

        def stop() -> None:
            if poll() is None:
                _end_group(pid)
                os.waitpid(pid, 0)

        return Child(poll, stop)

    return start


def _end_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGTERM)
    except ProcessLookupError:  # it has ended, or is not yet a group of its own
        os.kill(pid, signal.SIGTERM)


def _be_the_recipe(recipe: str, config: str, log: int) -> None:
    """In the fork: run the recipe as a script; leave without the parent's clean-up."""
    status = 1
    try:
        os.setsid()
        os.dup2(log, 1)
        os.dup2(log, 2)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, closefd=False) for number in (1, 2))
        sys.argv = [recipe, "--config", config]
        runpy.run_path(recipe, run_name="__main__")
        status = 0
    except SystemExit as leaving:
        if isinstance(leaving.code, str):
            print(leaving.code, file=sys.stderr)
        status = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except BaseException:  # what a script would print before it ends with status 1
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
