"""PRMConfig: the settings of PRMTrainer beside transformers' own."""

import warnings
from dataclasses import dataclass, field
from typing import Any, ClassVar

from transformers import TrainingArguments

from rlhf_prm.prm.protocol import TARGETS

LOSSES = ("ce", "mse", "pqm")
STEPS_AFTER_ERROR = ("drop", "keep")
VERDICT_AT = ("last", "every_step")
ITS_OWN_COLUMNS = "PRMTrainer tokenizes the dataset itself and its collator picks the columns"


@dataclass
class PRMConfig(TrainingArguments):
    """Settings of ``PRMTrainer``; everything else is transformers' ``TrainingArguments``.

    Raises:
        ValueError: a setting outside its range; the message says what came and what was expected.
    """

    _VALID_DICT_FIELDS: ClassVar[list[str]] = [*TrainingArguments._VALID_DICT_FIELDS, "model_init_kwargs"]

    target: str = field(
        default="steps",
        metadata={
            "help": "steps: a process reward model, labels at every step's end. outcome: an outcome reward model, one "
            "label at the last step's end: the verifier's verdict (rows of `rlhf-prm annotate outcome`)."
        },
    )
    verdict_at: str = field(
        default="last",
        metadata={
            "help": "Where target outcome learns the verdict: last: at the last step's end. every_step: at the end of "
            "every step (arXiv 2110.14168 labels every token). Evaluation is at the last step."
        },
    )
    loss: str = field(
        default="ce",
        metadata={"help": "ce: cross-entropy on `labels`; mse: squared error on `soft_labels`; pqm: ranking of steps."},
    )
    zeta: float = field(default=4.0, metadata={"help": "Margin between right and wrong steps of the pqm loss."})
    steps_after_error: str = field(
        default="drop", metadata={"help": "drop or keep the steps after a solution's first wrong one (training, eval)."}
    )
    max_length: int | None = field(
        default=4096, metadata={"help": "Tokens kept of a solution, problem included; later steps are left out."}
    )
    dataset_num_proc: int | None = field(default=None, metadata={"help": "Processes that tokenize the dataset."})
    head_updates: int = field(
        default=0, metadata={"help": "Updates of a first stage that trains the head only; 0 = none."}
    )
    head_learning_rate: float | None = field(
        default=None, metadata={"help": "Learning rate of the new head, in both stages. Default: learning_rate."}
    )
    model_init_kwargs: dict[str, Any] | str | None = field(
        default=None, metadata={"help": "Passed to from_pretrained when the model is given by name. dtype: float32."}
    )
    learning_rate: float = field(default=1e-5, metadata={"help": "Peak learning rate."})
    train_sampling_strategy: str = field(
        default="batch_rebalance",
        metadata={
            "help": "batch_rebalance: every update draws its rows at random and cuts them into micro-batches of like "
            "length; random, sequential, group_by_length (unsuitable if steps after an error are dropped) as in "
            "transformers."
        },
    )
    patience: int = field(
        default=0,
        metadata={
            "help": "Stop after this many evaluations without a better metric_for_best_model, counted from when its "
            "first-error F1 has passed chance. 0: never."
        },
    )
    seconds_budget: float | None = field(
        default=None, metadata={"help": "End training after this many seconds, with a last evaluation if any."}
    )
    remove_unused_columns: bool = field(default=False, metadata={"help": f"Kept False: {ITS_OWN_COLUMNS}."})

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, value, expected in (
            ("target", self.target, TARGETS),
            ("verdict_at", self.verdict_at, VERDICT_AT),
            ("loss", self.loss, LOSSES),
            ("steps_after_error", self.steps_after_error, STEPS_AFTER_ERROR),
        ):
            if value not in expected:
                raise ValueError(f"{name}: got {value!r}, expected one of {', '.join(expected)}")
        if self.target != "outcome" and self.verdict_at != "last":
            raise ValueError(f"verdict_at {self.verdict_at}: expected target outcome; target steps learns no verdict")
        if self.target == "outcome" and self.loss != "ce":
            raise ValueError(
                f"target outcome with loss {self.loss}: expected loss ce; a verdict is right or wrong, so there is no "
                "soft label to fit, and with one label per solution there are no steps to rank"
            )
        if self.target == "outcome" and self.steps_after_error == "keep":
            raise ValueError(
                "target outcome with steps_after_error keep: expected drop, the default; an outcome model has one "
                "label, at the last step, and always reads the steps before it"
            )
        if self.head_updates < 0:
            raise ValueError(f"head_updates: got {self.head_updates}, expected 0 (one stage) or more")
        if self.head_learning_rate is not None and self.head_learning_rate <= 0:
            raise ValueError(f"head_learning_rate: got {self.head_learning_rate}, expected more than 0, or null")
        if self.patience < 0:
            raise ValueError(f"patience: got {self.patience}, expected 0 (never stop early) or a number of evaluations")
        if self.patience and not self.load_best_model_at_end:
            raise ValueError(
                f"patience {self.patience} needs evaluations and the best weights kept: set eval_strategy, "
                "eval_steps, save_strategy best, load_best_model_at_end true and metric_for_best_model f1"
            )
        if self.seconds_budget is not None and self.seconds_budget <= 0:
            raise ValueError(f"seconds_budget: got {self.seconds_budget}, expected more than 0 seconds, or null")
        if self.max_length is not None and self.max_length < 2:
            raise ValueError(f"max_length: got {self.max_length}, expected at least 2 tokens, or null for no limit")
        if self.remove_unused_columns:
            raise ValueError(f"remove_unused_columns: got True, expected False: {ITS_OWN_COLUMNS}")
        if self.train_sampling_strategy == "group_by_length" and self.steps_after_error == "drop":
            warnings.warn(
                "train_sampling_strategy group_by_length with steps_after_error drop: a solution cut off at its first "
                "error is short, so rows of similar length have similar labels, and a PRM trained in that order may "
                "learn nothing; batch_rebalance needs as little padding and keeps every update a random sample",
                stacklevel=2,
            )
