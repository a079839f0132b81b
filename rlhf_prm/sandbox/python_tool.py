"""PythonTool runs a program that a model wrote, and returns its output or what went wrong."""

import json
import os
import random
import selectors
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from rlhf_prm.sandbox.protections import PROTECTIONS

WARDEN = Path(__file__).with_name("warden.py")
MIB = 2**20
GRACE = 5.0  # seconds that starting an interpreter may take on a busy machine, beside the program's own
UNUSED_USERS = 0x10000000, 0x6FFFFFFF  # ids that no account has; a program started by root runs under one of them
STATES = ("done", "error", "timeout", "died", "output")


@dataclass(frozen=True)
class Execution:
    """How a program ended.

    Args:
        state: "done"; "error" = it raised or exited with an error; "timeout"; "died" = something killed it, mostly its
            memory; "output" = it wrote more than allowed, and was ended.
        text: what it wrote, standard error included, cut at the limit.
        seconds: from its start to its end, the interpreter's start included.
    """

    state: str
    text: str
    seconds: float


class PythonTool:
    """A tool for TRL's ``tools`` or an environment: ``python(code)`` runs a program and returns what it printed.

    Every call is a new process with no memory of the others. ``docs/sandbox.md`` says what it is kept from.

    Args:
        seconds: wall time of a program.
        memory: bytes of address space of each of its processes.
        processes: the most processes that it may have at once.
        disk: bytes of all its files together; they are gone when it ends.
        max_output: characters the policy is shown.
        required: the protections (``PROTECTIONS``) without which nothing runs.

    Raises:
        ValueError: a limit is invalid, a protection is unknown, or (at the first call, and by ``check``) a required one
            is not granted by this machine.
    """

    def __init__(
        self,
        *,
        seconds: float = 5.0,
        memory: int = 512 * MIB,
        processes: int = 8,
        disk: int = 16 * MIB,
        max_output: int = 4000,
        required: Iterable[str] = tuple(PROTECTIONS),
    ) -> None:
        for name, value in (("seconds", seconds), ("memory", memory), ("processes", processes), ("disk", disk)):
            if value <= 0:
                raise ValueError(f"{name}: got {value}, expected more than 0")
        if max_output < 1:
            raise ValueError(f"max_output: got {max_output}, expected at least 1")
        self._required = tuple(required)
        if unknown := set(self._required) - set(PROTECTIONS):
            raise ValueError(f"required: got {', '.join(sorted(unknown))}, expected some of {', '.join(PROTECTIONS)}")
        self._seconds, self._memory, self._processes = seconds, memory, processes
        self._disk, self._max_output = disk, max_output

    def python(self, code: str) -> str:
        """Runs a Python program and returns what it prints. Nothing is kept between calls.

        Args:
            code: the program; use print() to see a value.

        Returns:
            What the program has printed, or what went wrong.
        """
        ended = self.execute(code)
        text = ended.text[: self._max_output]
        if ended.state == "output" or len(ended.text) > self._max_output:
            return f"{text}\n[the rest of the output was cut]"
        if ended.state == "timeout":
            return f"{text}\n[error: the program took longer than {self._seconds:g} seconds]".lstrip()
        if ended.state == "died":
            return f"{text}\n[error: the program was ended; it may have used too much memory]".lstrip()
        return text

    def check(self) -> dict[str, str]:
        """Every protection, with "" where this machine grants it, and otherwise with the reason why not."""
        _, missing = self._run("")
        return {name: missing.get(name, "") for name in PROTECTIONS}

    def execute(self, code: str) -> Execution:
        """As ``python``, with how it ended; the text may be four bytes long for each character of ``max_output``."""
        ended, missing = self._run(code)
        lacking = [name for name in self._required if name in missing]
        if lacking:
            reasons = "; ".join(f"{name}: {missing[name]}" for name in lacking)
            raise ValueError(
                f"sandbox: this machine does not grant {', '.join(lacking)} ({reasons}); expected a kernel that lets "
                "users make namespaces, or required= without these (docs/sandbox.md says what then is not kept away)"
            )
        return ended

    def _run(self, code: str) -> tuple[Execution, dict[str, str]]:
        report, tell = os.pipe()
        with tempfile.TemporaryDirectory(prefix="sandbox-") as root:
            start = time.monotonic()
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _STARTER, str(WARDEN), str(tell), json.dumps(self._settings(root))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env={"PATH": "/usr/bin:/bin", "HOME": "/sandbox", "LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"},
                cwd=root,
                pass_fds=[tell],
                start_new_session=True,
            )
            os.close(tell)
            try:
                state, data = self._watched(process, code.encode("utf-8", "replace"), start)
                seconds = time.monotonic() - start
            finally:
                process.kill()  # everything in its namespaces ends with it
                process.wait()
                for pipe in (process.stdin, process.stdout):
                    if pipe is not None:
                        pipe.close()
                with os.fdopen(report, "rb") as told:
                    line = told.readline()
        missing = json.loads(line) if line else {}
        return Execution(state, data.decode("utf-8", "replace"), seconds), missing

    def _watched(self, process: "subprocess.Popen[bytes]", code: bytes, start: float) -> tuple[str, bytes]:
        """Send the program and read its output, until it has ended or is ended."""
        assert process.stdin is not None and process.stdout is not None  # both are pipes
        feed, out, data = process.stdin.fileno(), process.stdout.fileno(), b""
        os.set_blocking(feed, False)
        sent, open_ends = 0, selectors.DefaultSelector()  # not select(): a trainer has many descriptors
        open_ends.register(out, selectors.EVENT_READ)
        open_ends.register(feed, selectors.EVENT_WRITE)
        # The sandbox's first process counts the program's seconds; this limit applies if it does not get to that.
        deadline = start + self._seconds + GRACE
        with open_ends:
            while out in open_ends.get_map():
                if time.monotonic() > deadline:
                    return "timeout", data
                for key, _ in open_ends.select(max(0.0, deadline - time.monotonic())):
                    if key.fd == feed:
                        sent = _sent(feed, code, sent)
                        if sent >= len(code):
                            open_ends.unregister(feed)
                            process.stdin.close()
                        continue
                    part = os.read(out, 65536)
                    data += part
                    if len(data) > 4 * self._max_output:
                        return "output", data[: 4 * self._max_output]
                    if not part:
                        open_ends.unregister(out)
        try:
            code_of_end = process.wait(max(0.0, deadline - time.monotonic()) + 1)
        except subprocess.TimeoutExpired:
            return "timeout", data
        states = {0: "done", 1: "error", 98: "timeout"}
        return states.get(code_of_end, "died"), data

    def _settings(self, root: str) -> dict[str, object]:
        packages = [sysconfig.get_path(name) for name in ("purelib", "platlib")]
        library = [path for path in (sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")) if path]
        dynamic = [str(Path(path) / "lib-dynload") for path in library]
        return {
            "parent": os.getpid(),
            "root": root,
            "uid": random.SystemRandom().randint(*UNUSED_USERS),
            "visible": sorted({sys.base_prefix, sys.prefix, *packages}),
            "path": list(dict.fromkeys([*library, *dynamic, *packages])),
            "seconds": self._seconds,
            "memory": self._memory,
            "processes": self._processes,
            "disk": self._disk,
            "file_size": self._disk,
            "required": list(self._required),
        }


def _sent(feed: int, code: bytes, sent: int) -> int:
    """How much of the program has been sent after a further piece; all of it if the reader has gone."""
    try:
        return sent + (os.write(feed, code[sent : sent + 65536]) if sent < len(code) else 0)
    except BrokenPipeError:
        return len(code)


# The report goes to descriptor 3, whatever number the pipe had here; then the warden is this program.
_STARTER = (
    "import os, sys; number = int(sys.argv[2]); number == 3 or (os.dup2(number, 3), os.close(number)); "
    "source = sys.argv[1]; sys.argv[1:] = sys.argv[3:]; "
    "exec(compile(open(source).read(), source, 'exec'), {'__name__': '__main__', '__file__': source})"
)
