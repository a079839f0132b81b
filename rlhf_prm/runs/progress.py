"""One progress line for a run. The numbers of every update are in metrics.jsonl."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tqdm.auto import tqdm
from transformers import PrinterCallback, ProgressCallback, TrainerCallback

_SHOWN = {
    "reward": "reward",
    "process/step_score/mean": "score",
    "process/num_steps/mean": "steps",
    "completions/mean_length": "tokens",
    "eval/accuracy": "accuracy",
}


class ProgressLine(TrainerCallback):
    """A bar over the updates with the newest reward, step score, steps, tokens and accuracy."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.bar: tqdm | None = None
        self.shown: dict[str, str] = {}

    def on_train_begin(self, args, state, control, **_: Any) -> None:
        if state.is_world_process_zero:
            self.bar = tqdm(total=state.max_steps, initial=state.global_step, desc=self.label, unit="update")

    def on_step_end(self, args, state, control, **_: Any) -> None:
        if self.bar is not None:
            self.bar.update(state.global_step - self.bar.n)

    def on_log(self, args, state, control, logs: dict[str, Any] | None = None, **_: Any) -> None:
        if self.bar is not None and logs:
            self.shown |= {short: f"{logs[name]:.3g}" for name, short in _SHOWN.items() if logs.get(name) is not None}
            self.bar.set_postfix(self.shown)

    def on_train_end(self, args, state, control, **_: Any) -> None:
        self.close()

    def close(self) -> None:
        """End the line, so that further output begins below it."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None


@contextmanager
def one_line(trainer: Any, label: str) -> Iterator[None]:
    """Inside the context a ``ProgressLine`` replaces transformers' own progress and printing callbacks.

    The line is closed after an error too, so that the error comes last.
    """
    trainer.remove_callback(ProgressCallback)
    trainer.remove_callback(PrinterCallback)
    line = ProgressLine(label)
    trainer.add_callback(line)
    try:
        yield
    finally:
        line.close()
        trainer.remove_callback(line)
