"""Undoes the effects of a batch that could not be scored, so that a resumed run samples the same batch again."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


@contextmanager
def undone_if_it_fails(trainer: Any) -> Iterator[None]:
    """If an error is raised inside, restore the random states and the trainer's token count.

    A scorer that is lost for good ends the run with a checkpoint. A run resumed from it samples the same rollouts, so a
    judge's answers on some of them are still in its cache and need not be paid for again.
    """
    python, numpy, torch_cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    device = torch.cuda.get_rng_state() if torch.cuda.is_available() else None
    tokens = trainer.state.num_input_tokens_seen
    try:
        yield
    except Exception:  # it is raised again below
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(torch_cpu)
        if device is not None:
            torch.cuda.set_rng_state(device)
        trainer.state.num_input_tokens_seen = tokens
        raise
