"""A batch that could not be scored leaves no trace, so that a run that is resumed samples it again as it was."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


@contextmanager
def undone_if_it_fails(trainer: Any) -> Iterator[None]:
    """After an error inside, random numbers and the trainer's count of tokens are what they were before.

    A scorer that is lost for good ends the run with a checkpoint. Resumed from it, the same rollouts are sampled, and
    what a judge has said of some of them already need not be paid for again.
    """
    python, numpy, torch_cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    device = torch.cuda.get_rng_state() if torch.cuda.is_available() else None
    tokens = trainer.state.num_input_tokens_seen
    try:
        yield
    except Exception:  # whatever it is goes on
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(torch_cpu)
        if device is not None:
            torch.cuda.set_rng_state(device)
        trainer.state.num_input_tokens_seen = tokens
        raise
