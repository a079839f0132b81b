"""The arguments of the RL recipes, beside TRL's own."""

import difflib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import TrainingArguments
from trl import ModelConfig, TrlParser

from rlhf_prm.rl.cpu_ranks import prepare_cpu_ranks
from rlhf_prm.rl.master_weights import refuse_other_precision
from rlhf_prm.settings import json_mapping, read_mapping

OF_ONES_OWN = ("dataset", "model_name_or_path", "train_data")  # with one of these arguments the toy world is not used
WORLDS = ("toyworld", "word_problems")
NO_BASELINE = ("", "none", "null")
QUANTIZATION = ("load_in_8bit", "load_in_4bit", "bnb_4bit_quant_type", "use_bnb_nested_quant", "bnb_4bit_quant_storage")


@dataclass
class RecipeArguments:
    """The sources of data, PRM and verifier, and the runs to compare with.

    Without a dataset the recipe runs the embedded toy world: policy, problems and PRM are built locally.

    Raises:
        ValueError: a value outside its range.
    """

    world: str = field(
        default="toyworld",
        metadata={
            "help": "Without a dataset: toyworld (chain arithmetic, a tiny policy) or word_problems (a real language "
            "model of 135 million parameters, docs/real_lm.md)."
        },
    )
    world_settings: dict[str, Any] | str | None = field(
        default=None,
        metadata={
            "help": "JSON of the world's settings, ToyWorldSettings or WordWorldSettings, e.g. '{\"filler\": true}'."
        },
    )
    stage_cache: str = field(default="runs/cache", metadata={"help": "Toy world: folder of the cached stages."})
    dataset: str | None = field(default=None, metadata={"help": "Hub name or local .jsonl/.parquet/.csv of problems."})
    dataset_config: str | None = field(default=None, metadata={"help": "Configuration of a Hub dataset."})
    dataset_split: str = field(default="train", metadata={"help": "Split to train on."})
    dataset_limit: int | None = field(default=None, metadata={"help": "Number of training problems, from the first."})
    eval_dataset: str | None = field(default=None, metadata={"help": "Held-out problems, for before and after."})
    eval_split: str = field(default="test", metadata={"help": "Split to evaluate on."})
    eval_limit: int | None = field(
        default=None, metadata={"help": "Number of evaluation problems, from the first (toy world: 2048)."}
    )
    columns: dict[str, Any] | str | None = field(
        default=None, metadata={"help": 'JSON, our column → theirs: \'{"prompt": "question", "solution": "answer"}\'.'}
    )
    chat: bool = field(default=False, metadata={"help": "Wrap text prompts into a user message."})
    system_prompt: str | None = field(default=None, metadata={"help": "System message before it."})
    gold_fraction: float = field(
        default=1.0, metadata={"help": "Share of training problems that keep their gold answer."}
    )
    prm: str | None = field(
        default=None,
        metadata={
            "help": "PRM: Hub name or local folder; judge:MODEL = a model that judges; vine = live Monte-Carlo values "
            "of the policy; teacher:NAME, implicit and self score tokens (docs/token_scores.md). Toy world: its own "
            "PRM by default; oracle = its exact labels; judge:toy = its judge."
        },
    )
    prm_family: str = field(default="auto", metadata={"help": "How the PRM is read; auto recognises the public ones."})
    prm_placement: str = field(default="replicate", metadata={"help": "replicate, zero3, offload or server."})
    prm_kwargs: dict[str, Any] | str | None = field(
        default=None,
        metadata={
            "help": "JSON of further keywords of load_prm, of load_judge for a judge (endpoint, votes, form, …), of "
            "LiveMonteCarloScorer for vine, of the oracle random_flips and systematic_flips, of judge:toy flips, of "
            "ImplicitSettings for implicit."
        },
    )
    prm_refresh: dict[str, Any] | str | None = field(
        default=None,
        metadata={
            "help": "JSON: the PRM is trained on the policy's rollouts at intervals of updates (docs/refresh.md): "
            '\'{"every": 20, "rows": 512, "labels": "judge", "model": "…", "endpoint": "http://…/v1"}\'.'
        },
    )
    verifier: str = field(default="math", metadata={"help": "math, or the dotted path of a verifier class."})
    verifier_kwargs: dict[str, Any] | str | None = field(default=None, metadata={"help": "JSON of its keywords."})
    baseline: str | None = field(
        default=None, metadata={"help": "A method trained on the same seed for comparison, e.g. outcome; none = none."}
    )
    ceiling: bool = field(
        default=False,
        metadata={"help": "Toy world: also train the run's method on exact step labels, the best any PRM could do."},
    )
    eval_every: int = field(default=0, metadata={"help": "Updates between evaluations during training; 0 = none."})
    eval_every_limit: int = field(default=256, metadata={"help": "Problems of each evaluation during training."})
    check_prm: bool = field(
        default=False, metadata={"help": "Toy world, one process: measure and audit the PRM on held-out problems too."}
    )
    guard: str = field(
        default="off", metadata={"help": "HackGuard's action at an alarm: off, warn, anneal, rollback or stop."}
    )
    guard_kwargs: dict[str, Any] | str | None = field(
        default=None, metadata={"help": "JSON of further keywords of HackGuard."}
    )
    token_budget: int | None = field(
        default=None, metadata={"help": "End training after this many generated tokens, those of live values included."}
    )

    def __post_init__(self) -> None:
        for name in ("world_settings", "columns", "prm_kwargs", "prm_refresh", "verifier_kwargs", "guard_kwargs"):
            setattr(self, name, json_mapping(name, getattr(self, name)))
        if (self.baseline or "").lower() in NO_BASELINE:  # as typed on a command line
            self.baseline = None
        if not 0.0 <= self.gold_fraction <= 1.0:
            raise ValueError(f"gold_fraction: got {self.gold_fraction}, expected a share between 0 and 1")
        if self.world not in WORLDS:
            raise ValueError(f"world: got {self.world!r}, expected one of {', '.join(WORLDS)}")
        if self.ceiling and self.dataset is not None:
            raise ValueError("ceiling: got true beside a dataset; exact step labels are known in the toy world only")
        if self.eval_every < 0:
            raise ValueError(f"eval_every: got {self.eval_every}, expected 0 (never) or a number of updates")


def parse(dataclasses: Sequence[type], default_config: Path | None = None) -> tuple[Any, ...]:
    """The dataclasses from the command line over ``--config file.yaml``.

    Without ``--config`` the recipe runs the embedded toy world with ``default_config``; but if an argument names a
    model or data, the defaults are those of the trainers, because the toy world's settings suit nothing else.
    A recipe without a ``default_config`` has no toy world.
    Standard output says which of the three applies.

    Raises:
        ValueError: the file is missing, keys or values are unknown, DeepSpeed was launched in another precision, or a
            quantized model is asked for.
    """
    prepare_cpu_ranks()
    arguments = [part for argument in sys.argv[1:] for part in _separated(argument)]
    path, told = _configuration(arguments, default_config)
    if path is not None and "--config" not in arguments:
        arguments = ["--config", str(path), *arguments]
    if path is not None:
        read_mapping(path)  # the parser's own errors would not say which file
    parser = TrlParser(dataclasses, allow_abbrev=False)
    parser.print_usage = lambda file=None: None  # the usage of two hundred arguments would hide the error
    *parsed, unknown_keys, unknown = parser.parse_args_and_config(
        arguments, return_remaining_strings=True, separate_remaining_strings=True
    )
    known = [option.lstrip("-") for action in parser._actions for option in action.option_strings]
    _refuse_unknown(unknown, known, "")
    _refuse_unknown(unknown_keys, known, f" in {path}")
    if os.environ.get("RANK", "0") == "0":
        print(f"settings: {told}", flush=True)
    for part in parsed:
        if isinstance(part, TrainingArguments):
            refuse_other_precision(part)
        if isinstance(part, ModelConfig):
            _refuse_quantization(part)
    return tuple(parsed)


def _refuse_quantization(model_args: ModelConfig) -> None:
    """The recipes load models in the precision of ``dtype``; TRL's settings of bitsandbytes would do nothing."""
    for name in QUANTIZATION:
        if (value := getattr(model_args, name)) != getattr(ModelConfig, name):
            raise ValueError(
                f"{name}: got {value!r}, expected it to be left out: the recipes do not quantize models; use dtype and "
                "use_peft to save memory, or give a trainer a quantized model in Python"
            )


def _separated(argument: str) -> list[str]:
    """``--config=file`` as two arguments, which is the form TRL's parser looks for."""
    return ["--config", argument.removeprefix("--config=")] if argument.startswith("--config=") else [argument]


def _configuration(arguments: Sequence[str], default_config: Path | None) -> tuple[Path | None, str]:
    """The YAML file in use, if any, and how to call it."""
    names = {
        argument.split("=")[0].lstrip("-").replace("-", "_") for argument in arguments if argument.startswith("--")
    }
    if "config" in names:
        given = list(arguments[arguments.index("--config") + 1 :])
        if not given or not Path(given[0]).is_file():
            raise ValueError(f"--config: no file at {given[0] if given else 'the end of the line'}")
        return Path(given[0]), f"{given[0]} and the command line"
    if own := sorted(names.intersection(OF_ONES_OWN)):
        return None, f"the trainers' defaults and the command line (--{own[0]} without --config)"
    if default_config is None:
        raise ValueError(f"--config: got none, and none of --{', --'.join(OF_ONES_OWN)}; expected a file of settings")
    return default_config, f"{default_config}, of the embedded toy world, and the command line"


def _refuse_unknown(remaining: Sequence[str], known: Sequence[str], where: str) -> None:
    if not remaining:
        return
    name = remaining[0].split("=")[0].lstrip("-")
    near = difflib.get_close_matches(name, known, n=1)
    raise ValueError(
        f"unknown argument {name!r}{where}" + (f"; did you mean {near[0]!r}?" if near else "; see --help for all")
    )
