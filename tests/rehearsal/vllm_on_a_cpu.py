"""A recipe that samples with vLLM in its own process, on a CPU: python tests/rehearsal/vllm_on_a_cpu.py RECIPE …"""

import os
import runpy
import sys
import traceback

from tests.vllm.training_run import colocate


def main() -> None:
    colocate()
    del sys.argv[0]
    status = 1
    try:
        runpy.run_path(sys.argv[0], run_name="recipe")["main"]()
        status = 0
    except BaseException:  # SystemExit too: vLLM's engine hangs about at exit, whatever the reason
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    main()
