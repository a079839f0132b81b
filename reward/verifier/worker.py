"""What runs in the verifier's child processes: a nursery that imports the maths once, and the workers it forks.

The nursery is a fresh interpreter, started with fork + exec. It holds neither the trainer's memory nor its CUDA context
and does not import the trainer's `__main__`, which the start methods of `multiprocessing` would do, with torch. It has
one thread, so forking it is safe; a fork takes milliseconds, and the workers share the memory of its imports.
"""

import contextlib
import ctypes
import gc
import importlib
import json
import os
import resource
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

FORK, REAP = b"F", b"R"
PARENT_CHECK_SECONDS = 0.5
PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when ``parent`` dies; on macOS, which cannot, a thread watches for it."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    else:
        threading.Thread(target=_exit_when_orphaned, args=(parent,), daemon=True).start()
    if os.getppid() != parent:
        os._exit(1)


def _exit_when_orphaned(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(PARENT_CHECK_SECONDS)
    os._exit(1)


def limit_resources(memory_limit: int) -> None:
    """Limit the address space, disable core dumps, and have the OOM killer choose this process before the trainer."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(ValueError, OSError):  # macOS refuses an address-space limit
        resource.setrlimit(resource.RLIMIT_AS, (memory_limit, memory_limit))
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as handle:
        handle.write("1000")


def peak_memory() -> int:
    """The largest resident size of this process so far, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def serve(target: Callable[..., str], connection: Connection, memory_limit: int) -> None:
    """Answer requests one by one; exit (to be replaced) after one that took more than half of the memory limit."""
    while True:
        try:
            request = json.loads(connection.recv_bytes())
        except EOFError:
            return
        try:
            reply: dict[str, str | bool] = {"value": target(*request)}
        except MemoryError:
            reply = {"error": "MemoryError"}
        except Exception as error:  # text a model wrote went in
            reply = {"error": f"{type(error).__name__}: {str(error)[:200]}"}
        reply["last"] = reply.get("error") == "MemoryError" or peak_memory() > memory_limit // 2
        connection.send_bytes(json.dumps(reply).encode())
        if reply["last"]:
            return


def _fork_worker(target: Callable[..., str], control: socket.socket, descriptor: int, memory_limit: int) -> int:
    nursery = os.getpid()
    pid = os.fork()
    if pid:
        os.close(descriptor)
        return pid
    try:
        die_with_parent(nursery)
        control.close()
        limit_resources(memory_limit)
        serve(target, Connection(descriptor), memory_limit)
    finally:
        os._exit(0)


def nursery(target_name: str, control: socket.socket, parent: int, memory_limit: int) -> None:
    """Import ``module:function``, report it, then fork and reap workers on request until the trainer is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the trainer's to handle
    module, _, function = target_name.partition(":")
    target = getattr(importlib.import_module(module), function)
    getattr(sys.modules[module], "warm_up", lambda: None)()
    gc.collect()
    gc.freeze()
    control.sendall(b"ready")
    while os.getppid() == parent:
        if not select.select([control], [], [], PARENT_CHECK_SECONDS)[0]:
            continue
        message, descriptors, _, _ = socket.recv_fds(control, 9, 1)
        if not message:
            return
        if message == FORK:
            control.sendall(_fork_worker(target, control, descriptors[0], memory_limit).to_bytes(8, "big"))
        else:
            os.waitpid(int.from_bytes(message[1:], "big"), 0)
            control.sendall(REAP)


def main() -> None:
    """Entry point of the nursery; its settings come as JSON in the first argument."""
    settings = json.loads(sys.argv[1])
    sys.path[:] = settings["path"]
    with socket.socket(fileno=settings["descriptor"]) as control:
        nursery(settings["target"], control, settings["parent"], settings["memory_limit"])
