"""Loads the parts of a PRM training run: from the embedded toy world, or from given step labels and a given model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from datasets import Dataset, load_dataset

from rlhf_prm.evaluation.chance import beside_chance, no_better_than_chance
from rlhf_prm.settings import build, json_mapping
from rlhf_prm.step_data import COLUMNS, read_rows, to_dataset

TOY_EVAL_FRACTION = 0.1


@dataclass
class PRMRecipeArguments:
    """The data of ``recipes/train_prm.py``, beside ``PRMConfig`` and TRL's ``ModelConfig``.

    Without a dataset the recipe runs the embedded toy world: its policy and its labelled solutions, a tenth of which is
    held out, and at the end other solutions with exact labels.

    Raises:
        ValueError: a value outside its range.
    """

    train_data: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Stepwise rows: .jsonl or .parquet files in any format rlhf_prm.step_data reads, or one Hub name."
        },
    )
    eval_data: list[str] = field(default_factory=list, metadata={"help": "Held-out rows, named alike."})
    eval_fraction: float = field(
        default=0.0, metadata={"help": "Without eval_data: this share of the training problems is held out."}
    )
    train_limit: int | None = field(default=None, metadata={"help": "Number of training rows, from the first."})
    eval_limit: int | None = field(default=None, metadata={"help": "Number of evaluation rows, from the first."})
    world_settings: str | None = field(default=None, metadata={"help": "Toy world: JSON of ToyWorldSettings."})
    stage_cache: str = field(default="runs/cache", metadata={"help": "Toy world: folder of the cached stages."})

    def __post_init__(self) -> None:
        if not 0.0 <= self.eval_fraction < 1.0:
            raise ValueError(f"eval_fraction: got {self.eval_fraction}, expected a share from 0 to below 1")
        if self.eval_data and self.eval_fraction:
            raise ValueError("eval_fraction is for training data without eval_data: drop one of the two")
        if self.eval_data and not self.train_data:
            raise ValueError("eval_data without train_data: name the rows to train on too")


@dataclass(frozen=True)
class PRMSources:
    """The model's folder or name, rows to train and evaluate on, and in the toy world exactly labelled ones."""

    model: str
    train_dataset: Dataset
    eval_dataset: Dataset | None
    exact_dataset: Dataset | None = None


def quality(
    metrics: Mapping[str, float], *, updates: int, learning_rate: float, prefix: str = "eval", target: str = "steps"
) -> str:
    """The trained PRM's quality on held-out rows compared with chance, and advice if it is no better.

    Args:
        metrics: of ``PRMTrainer.evaluate()``, their names beginning with ``prefix``.
        updates, learning_rate, target: of its training.
    """
    metrics = {name.removeprefix(f"{prefix}_"): value for name, value in metrics.items()}
    model = "outcome model" if target == "outcome" else "PRM"
    lines = [beside_chance(metrics, target)]
    if found := no_better_than_chance(metrics, target):
        lines.append(
            f"WARNING: this {model} is no better than chance: {'; '.join(found)}. Do not train a policy against it. It "
            f"had {updates} updates at learning_rate {learning_rate:g}: try a third and a tenth of that rate, more "
            "updates (max_steps, num_train_epochs; patience stops early), and look at the labels (their share of "
            "right steps, and the F1 on rows labelled by another source)."
        )
    return "\n".join(lines)


def load_prm_sources(recipe: PRMRecipeArguments, model: str | None, seed: int, target: str = "steps") -> PRMSources:
    """The toy world if no data is named, otherwise the rows and the model that the arguments name.

    Args:
        target: as in ``PRMConfig``; the toy world then has verdicts as labels.

    Raises:
        ValueError: a file, row or model name is missing.
    """
    exact = None
    if not recipe.train_data:
        train, exact, model = _toy_world(recipe, model, seed, target)
        train, held_out = split_by_problem(train, recipe.eval_fraction or TOY_EVAL_FRACTION)
    else:
        if model is None:
            raise ValueError("model_name_or_path: got nothing, expected a language model's or PRM's Hub name or folder")
        train = stepwise_dataset(recipe.train_data)
        held_out = stepwise_dataset(recipe.eval_data) if recipe.eval_data else None
        if recipe.eval_fraction:
            train, held_out = split_by_problem(train, recipe.eval_fraction)
    return PRMSources(model, _first(train, recipe.train_limit), held_out and _first(held_out, recipe.eval_limit), exact)


def stepwise_dataset(sources: Sequence[str]) -> Dataset:
    """Stepwise rows of local files, or of one dataset on the Hub that has them as columns.

    Raises:
        ValueError: no such file, or columns that are not those of stepwise rows.
    """
    if len(sources) == 1 and not Path(sources[0]).exists() and not Path(sources[0]).suffix:
        dataset = load_dataset(sources[0], split="train")
        if missing := {"prompt", "completions", "labels"} - set(dataset.column_names):
            raise ValueError(f"{sources[0]} lacks {', '.join(sorted(missing))}: expected {', '.join(COLUMNS)}")
        return dataset
    return to_dataset([row for source in sources for row in read_rows(source)])


def split_by_problem(rows: Dataset, fraction: float) -> tuple[Dataset, Dataset]:
    """Rows to train on and rows held out; the last ``fraction`` of the problems is held out with all its solutions.

    Raises:
        ValueError: there are too few problems to hold one out and keep one.
    """
    problems = list(dict.fromkeys(rows["prompt"]))
    kept = len(problems) - max(1, round(fraction * len(problems)))
    if kept < 1:
        raise ValueError(f"eval_fraction {fraction} of {len(problems)} problems leaves none to train on")
    held_out = set(problems[kept:])
    prompts = list(rows["prompt"])
    return (
        rows.select([index for index, prompt in enumerate(prompts) if prompt not in held_out]),
        rows.select([index for index, prompt in enumerate(prompts) if prompt in held_out]),
    )


def _first(rows: Dataset, limit: int | None) -> Dataset:
    return rows if limit is None else rows.select(range(min(limit, len(rows))))


def _toy_world(
    recipe: PRMRecipeArguments, model: str | None, seed: int, target: str
) -> tuple[Dataset, Dataset | None, str]:
    from rlhf_prm.toyworld import ToyWorldSettings, build_world

    given = {"seed": seed, **json_mapping("world_settings", recipe.world_settings)}
    if target == "outcome":
        given["label_source"] = "outcome"
    settings = build(ToyWorldSettings, given, "world_settings")
    world = build_world(settings, recipe.stage_cache, with_prm=False)
    rows = to_dataset(list(read_rows(world.stages["labels"].path / "rows.jsonl")))
    if target == "outcome":  # verdicts are exact, so held-out rows are enough
        return rows, None, model or str(world.policy_path)
    held_out = world.held_out_solutions(recipe.eval_limit or 400)
    held_out_rows = to_dataset([{name: row[name] for name in COLUMNS} for row in held_out])
    return rows, held_out_rows, model or str(world.policy_path)
