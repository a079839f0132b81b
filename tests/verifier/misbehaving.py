"""A worker's task that does to its process what adversarial answers do. Imported by the workers of the fault tests."""

import os
import signal
import time


def task(what: str) -> str:
    if what == "hang":
        while True:
            pass
    if what == "hang in C":
        return str(9**9**9)
    if what == "exit":
        os._exit(3)
    if what == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "memory":
        return str(len(bytearray(8 * 2**30)))
    if what == "raise":
        raise ValueError("no")
    if what == "recurse":
        return task(what)
    if what == "slow":
        time.sleep(0.05)
    return what.upper()
