"""PRMConfig: the settings of PRMTrainer beside transformers' own."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from transformers import TrainingArguments

LOSSES = ("ce", "mse", "pqm")
STEPS_AFTER_ERROR = ("drop", "keep")
ITS_OWN_COLUMNS = "PRMTrainer tokenizes the dataset itself and its collator picks the columns"


@dataclass
class PRMConfig(TrainingArguments):
    """Settings of :class:`~rlhf_prm.trainers.prm.PRMTrainer`; everything else is transformers' ``TrainingArguments``.

    Raises:
        ValueError: a setting outside its range; the message says what came and what was expected.
    """

    _VALID_DICT_FIELDS: ClassVar[list[str]] = [*TrainingArguments._VALID_DICT_FIELDS, "model_init_kwargs"]

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
        default=0, metadata={"help": "First stage: so many updates move the head only. 0 trains everything at once."}
    )
    head_learning_rate: float | None = field(
        default=None, metadata={"help": "Learning rate of the new head, in both stages. Default: learning_rate."}
    )
    model_init_kwargs: dict[str, Any] | str | None = field(
        default=None, metadata={"help": "Passed to from_pretrained when the model is given by name. dtype: float32."}
    )
    learning_rate: float = field(default=1e-5, metadata={"help": "Peak learning rate."})
    train_sampling_strategy: str = field(
        default="group_by_length", metadata={"help": "group_by_length pads least; random and others are transformers'."}
    )
    remove_unused_columns: bool = field(default=False, metadata={"help": f"Kept False: {ITS_OWN_COLUMNS}."})

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, value, expected in (
            ("loss", self.loss, LOSSES),
            ("steps_after_error", self.steps_after_error, STEPS_AFTER_ERROR),
        ):
            if value not in expected:
                raise ValueError(f"{name}: got {value!r}, expected one of {', '.join(expected)}")
        if self.head_updates < 0:
            raise ValueError(f"head_updates: got {self.head_updates}, expected 0 (one stage) or more")
        if self.head_learning_rate is not None and self.head_learning_rate <= 0:
            raise ValueError(f"head_learning_rate: got {self.head_learning_rate}, expected more than 0, or null")
        if self.max_length is not None and self.max_length < 2:
            raise ValueError(f"max_length: got {self.max_length}, expected at least 2 tokens, or null for no limit")
        if self.remove_unused_columns:
            raise ValueError(f"remove_unused_columns: got True, expected False: {ITS_OWN_COLUMNS}")
