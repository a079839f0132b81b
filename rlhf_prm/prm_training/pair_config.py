"""PairConfig: the settings of PairTrainer beside transformers' own."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from transformers import TrainingArguments

PAIR_LOSSES = ("pcrm", "bradley_terry")
SIMILARITIES = ("length_ratio", "cosine", "random", "fixed")
CONSTANTS: dict[str, tuple[float, float, float]] = {  # β₁, β₂, β₃ of the authors' scripts
    "dialogue": (20.0, 0.001, -15.0),
    "summary_length": (10.0, 0.001, -5.0),
    "summary_cosine": (30.0, 0.001, -25.0),
}


@dataclass
class PairConfig(TrainingArguments):
    """Settings of ``PairTrainer``; everything else is transformers' ``TrainingArguments``.

    Raises:
        ValueError: a setting outside its range; the message says what came and what was expected.
    """

    _VALID_DICT_FIELDS: ClassVar[list[str]] = [*TrainingArguments._VALID_DICT_FIELDS, "model_init_kwargs"]

    loss: str = field(
        default="pcrm",
        metadata={"help": "pcrm: margins bounded by the pair's similarity (arXiv 2404.00978); bradley_terry: without."},
    )
    similarity: str = field(
        default="length_ratio",
        metadata={
            "help": "Of the two answers: length_ratio, cosine (of an encoder's CLS vectors), or the controls random "
            "and fixed, which draw the widest margin from [1, 2] or set it to 3."
        },
    )
    constants: str = field(
        default="dialogue",
        metadata={"help": "Constants of the widest margin: dialogue, summary_length, summary_cosine."},
    )
    betas: list[float] | None = field(default=None, metadata={"help": "Three numbers to use in place of `constants`."})
    encoder: str = field(default="bert-base-uncased", metadata={"help": "Encoder of similarity cosine."})
    max_length: int | None = field(default=512, metadata={"help": "Tokens of problem and answer; the end is cut off."})
    model_init_kwargs: dict[str, Any] | str | None = field(
        default=None, metadata={"help": "Passed to from_pretrained when the model is given by name. dtype: float32."}
    )
    learning_rate: float = field(default=3e-6, metadata={"help": "Peak learning rate."})
    num_train_epochs: float = field(default=1.0, metadata={"help": "Epochs."})
    remove_unused_columns: bool = field(default=False, metadata={"help": "Kept False: the collator picks the columns."})

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, expected in (("loss", PAIR_LOSSES), ("similarity", SIMILARITIES), ("constants", tuple(CONSTANTS))):
            if getattr(self, name) not in expected:
                raise ValueError(f"{name}: got {getattr(self, name)!r}, expected one of {', '.join(expected)}")
        if self.betas is not None and len(self.betas) != 3:
            raise ValueError(f"betas: got {len(self.betas)} numbers, expected three (scale, smoothing, floor)")
        if self.max_length is not None and self.max_length < 2:
            raise ValueError(f"max_length: got {self.max_length}, expected at least 2 tokens, or null for no limit")
        if self.remove_unused_columns:
            raise ValueError("remove_unused_columns: got True, expected False: the collator picks the columns itself")

    @property
    def margin_constants(self) -> tuple[float, float, float]:
        """β₁, β₂, β₃ of the widest margin β₁/(similarity + β₂) + β₃."""
        if self.betas is None:
            return CONSTANTS[self.constants]
        scale, smoothing, floor = self.betas
        return scale, smoothing, floor
