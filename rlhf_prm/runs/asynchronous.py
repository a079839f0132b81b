"""An asynchronous run from arguments: a policy and problems by name, and a PRM or a judge behind a server."""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from datasets import Dataset
from trl.experimental.async_grpo import AsyncGRPOConfig

from reward import resolve
from rlhf_prm.judges.load import check_judge_keywords, is_judge, load_judge
from rlhf_prm.prm import load_prm
from rlhf_prm.prompts import load_prompts
from rlhf_prm.rl.async_grpo import ProcessAsyncGRPOTrainer, ProcessCredit
from rlhf_prm.rl.parts import Reading
from rlhf_prm.runs.checkpoints import checkpoint_to_resume
from rlhf_prm.runs.folder import MetricsFile
from rlhf_prm.runs.sources import VERIFIERS
from rlhf_prm.settings import json_mapping
from rlhf_prm.steps import StepSplitter
from rlhf_prm.thinking import Thinking
from rlhf_prm.tokenizer_checks import saved_tokenizer


@dataclass
class AsyncArguments:
    """What an asynchronous run is of, beside TRL's ``AsyncGRPOConfig``; the names are those of the other recipes.

    Raises:
        ValueError: no policy, no data, a PRM without the address of its server, or a malformed mapping.
    """

    model_name_or_path: str | None = field(default=None, metadata={"help": "The policy: Hub name or folder."})
    dataset: str | None = field(default=None, metadata={"help": "Hub name or local .jsonl/.parquet/.csv of problems."})
    dataset_config: str | None = field(default=None, metadata={"help": "Configuration of a Hub dataset."})
    dataset_split: str = field(default="train", metadata={"help": "Split to train on."})
    dataset_limit: int | None = field(default=None, metadata={"help": "Train on the first so many problems only."})
    columns: dict[str, Any] | str | None = field(
        default=None, metadata={"help": 'JSON, our column → theirs: \'{"prompt": "question", "solution": "answer"}\'.'}
    )
    system_prompt: str | None = field(default=None, metadata={"help": "System message before a problem."})
    prm: str | None = field(default=None, metadata={"help": "PRM: Hub name or folder, or judge:MODEL."})
    prm_server_url: str | None = field(default=None, metadata={"help": "Where vLLM serves the PRM."})
    prm_family: str = field(default="auto", metadata={"help": "How the PRM is read."})
    prm_kwargs: dict[str, Any] | str | None = field(
        default=None, metadata={"help": "JSON of further keywords of load_prm, or of load_judge (endpoint, votes, …)."}
    )
    verifier: str = field(default="math", metadata={"help": "math, or the dotted path of a verifier class."})
    method: str = field(default="immediate", metadata={"help": "A method that needs one group and no memory."})
    method_kwargs: dict[str, Any] | str | None = field(default=None, metadata={"help": "JSON of its keywords."})
    step_separator: str = field(default="\n\n", metadata={"help": "The text between two steps."})
    step_limit: int | None = field(default=None, metadata={"help": "Most steps of a completion."})
    think_tags: list[str] | None = field(default=None, metadata={"help": "Opening and closing tag of thinking."})
    think_opened: bool = field(default=False, metadata={"help": "The prompt ends with the opening tag."})
    prm_reads: str = field(default="all", metadata={"help": "all, thinking or answer."})
    verifier_reads: str = field(default="all", metadata={"help": "all, thinking or answer."})
    credit_reads: str = field(default="all", metadata={"help": "all, thinking or answer."})

    def __post_init__(self) -> None:
        for name in ("columns", "prm_kwargs", "method_kwargs"):
            setattr(self, name, json_mapping(name, getattr(self, name)))
        for name in ("model_name_or_path", "dataset"):
            if not getattr(self, name):
                raise ValueError(f"{name}: got nothing, expected a Hub name or a path (--config FILE has both)")
        if self.prm and not is_judge(self.prm) and not self.prm_server_url:
            raise ValueError(
                f"prm_server_url: got nothing for prm {self.prm!r}, expected the address of the vLLM server that holds "
                "it: the rollout worker has no GPU"
            )
        self.step_separator = self.step_separator.replace("\\n", "\n")

    def credit(self) -> ProcessCredit:
        """How the rollout worker scores groups."""
        thinking = None if self.think_tags is None else Thinking(*self.think_tags, opened=self.think_opened)
        return ProcessCredit(
            method=self.method,
            method_kwargs=self.method_kwargs,
            scorer=self._scorer(),
            verifier=resolve(self.verifier, VERIFIERS, "verifier"),
            splitter=StepSplitter(separator=self.step_separator, limit=self.step_limit, thinking=thinking),
            reading=Reading(thinking, self.prm_reads, self.verifier_reads, self.credit_reads),
        )

    def _scorer(self) -> partial | None:
        if self.prm is None:
            return None
        if is_judge(self.prm):
            check_judge_keywords(self.prm_kwargs)
            if budgets := sorted(name for name in self.prm_kwargs if name.startswith("budget_")):
                raise ValueError(
                    f"prm_kwargs: got {budgets[0]}, expected none: a budget is for one update, and the rollout worker "
                    "scores a group at a time"
                )
            return partial(load_judge, self.prm, **self.prm_kwargs)
        where = {"placement": "server", "server_url": self.prm_server_url}
        return partial(load_prm, self.prm, family=self.prm_family, **where, **self.prm_kwargs)

    def problems(self) -> Dataset:
        """The problems as messages, which is what TRL's worker takes."""
        return load_prompts(
            self.dataset,
            columns=self.columns,
            config=self.dataset_config,
            split=self.dataset_split,
            limit=self.dataset_limit,
            chat=True,
            system_prompt=self.system_prompt,
        )


def train_asynchronously(arguments: AsyncArguments, config: AsyncGRPOConfig) -> ProcessAsyncGRPOTrainer:
    """Trains; leaves metrics.jsonl and the policy in ``config.output_dir``.

    Raises:
        ValueError: it is to be resumed and there is no checkpoint; or as ``ProcessAsyncGRPOTrainer``.
    """
    checkpoint = checkpoint_to_resume(config)
    trainer = ProcessAsyncGRPOTrainer(
        arguments.model_name_or_path,
        config,
        credit=arguments.credit(),
        train_dataset=arguments.problems(),
        processing_class=saved_tokenizer(arguments.model_name_or_path, padding_side="left"),
        callbacks=[MetricsFile(config.output_dir)],
    )
    trainer.train(resume_from_checkpoint=checkpoint)
    trainer.save_model(str(Path(config.output_dir) / "policy"))
    return trainer
