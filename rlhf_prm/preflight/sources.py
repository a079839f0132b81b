"""Where the preflight's samples come from: a policy and a dataset, a file, or a laboratory."""

import gc
import json
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reward.verifier import Verifier
from rlhf_prm.evaluation.audit.probes import ProbeTexts
from rlhf_prm.evaluation.samples import SampledProblem, checked_samples, read_sample_rows, verified_samples
from rlhf_prm.files import write_json_lines
from rlhf_prm.generation import Generator
from rlhf_prm.generation.config import GeneratorConfig
from rlhf_prm.generation.requests import unit_seed
from rlhf_prm.progress import Bar
from rlhf_prm.settings import build
from rlhf_prm.steps import StepSplitter

if TYPE_CHECKING:
    from rlhf_prm.toyworld import ToyWorld
    from rlhf_prm.wordproblems import WordWorld

PROMPTS_PER_CALL = 16  # of a generator in this process: often enough for a progress bar


@dataclass(frozen=True)
class Drawn:
    """Verified samples and how long sampling took.

    Args:
        policy: the policy's name on the page.
        seconds: of generation; None if the samples existed before.
        left_out: problems whose gold answer the verifier cannot read.
        texts: the texts of the hacking probes.
    """

    samples: list[SampledProblem]
    policy: str
    seconds: float | None = None
    left_out: int = 0
    texts: ProbeTexts = field(default_factory=ProbeTexts)


@dataclass(frozen=True)
class Prompts:
    """Problems with gold answers, and what the policy is given for each (a text, or messages)."""

    problems: list[str]
    solutions: list[str]
    prompts: list[Any]

    def select(self, indices: Sequence[int]) -> "Prompts":
        return Prompts(*([values[i] for i in indices] for values in (self.problems, self.solutions, self.prompts)))


def drawn_prompts(
    dataset: str,
    columns: dict[str, str],
    split: str,
    most: int,
    template: Callable[[str], str],
    seed: int = 0,
) -> Prompts:
    """``most`` problems of a dataset, drawn at random among those with a gold answer.

    Prompts that are messages are given as they are; a text goes through the template.

    Raises:
        ValueError: the dataset is not found, a column is missing, or no row has a gold answer.
    """
    from rlhf_prm.prompts import load_prompts

    rows = load_prompts(dataset, columns=columns, split=split)
    known = [i for i, gold in enumerate(rows["solution"]) if gold is not None and gold.strip()]
    if not known:
        raise ValueError(
            f"--dataset {dataset}: none of its {len(rows)} rows has a gold answer in the column "
            f"{columns.get('solution', 'solution')!r}; the preflight needs verified outcomes"
        )
    chosen = sorted(random.Random(seed).sample(known, min(most, len(known))))
    picked = [rows[i] for i in chosen]
    prompts = [template(row["problem"]) if isinstance(row["prompt"], str) else row["prompt"] for row in picked]
    return Prompts([row["problem"] for row in picked], [row["solution"] for row in picked], prompts)


def with_readable_gold(prompts: Prompts, verifier: Verifier) -> Prompts:
    """The prompts whose gold answer the verifier can read: it is asked about an empty completion of each.

    Raises:
        ValueError: it can read none.
    """
    verdicts = verifier.verify([""] * len(prompts.problems), prompts.solutions)
    kept = [i for i, verdict in enumerate(verdicts) if verdict.reward is not None]
    if not kept:
        raise ValueError(
            f"the verifier can read none of the {len(verdicts)} gold answers; the first is {prompts.solutions[0]!r:.80}"
        )
    return prompts.select(kept)


def from_policy(
    config: GeneratorConfig,
    concurrency: int,
    prompts: Prompts,
    verifier: Verifier,
    n: int,
    splitter: StepSplitter,
    seed: int = 0,
    keep: Path | None = None,
) -> Drawn:
    """``n`` samples of every prompt from the policy.

    Args:
        keep: a file they are written to at once, so that they need not be sampled again.
    """
    readable = with_readable_gold(prompts, verifier)
    generator = config.build(concurrency)
    at_once = PROMPTS_PER_CALL if config.backend == "hf" else concurrency
    start = time.perf_counter()
    completions = generated(generator, readable.prompts, n, at_once, seed)
    seconds = time.perf_counter() - start
    del generator
    _free_memory()  # the PRM comes next
    if keep is not None:
        rows = zip(readable.problems, completions, readable.solutions, strict=True)
        keys = ("problem", "completions", "solution")
        write_json_lines(keep, (dict(zip(keys, row, strict=True)) for row in rows))
    samples = checked_samples(readable.problems, completions, readable.solutions, verifier, splitter)
    return Drawn(samples, config.model, seconds, len(prompts.problems) - len(samples))


def generated(generator: Generator, prompts: Sequence[Any], n: int, at_once: int, seed: int) -> list[list[str]]:
    """``n`` samples of each prompt, with a progress bar. A prompt's samples do not depend on ``at_once``."""
    seeds = [unit_seed(seed, i) for i in range(len(prompts))]
    completions: list[list[str]] = []
    with Bar(len(prompts) * n, "samples of the policy", "sample") as bar:
        for first in range(0, len(prompts), at_once):
            part = list(prompts[first : first + at_once])
            completions += generator.generate(part, n, seed=seeds[first : first + at_once])
            bar.add(len(part) * n)
    return completions


def _free_memory() -> None:
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def from_file(
    path: Path,
    verifier: Verifier,
    splitter: StepSplitter,
    most: int,
    seed: int = 0,
    columns: tuple[str | None, str | None] = (None, None),
) -> Drawn:
    """Samples from a file (``problem``, ``completions``, ``solution``; ``first_errors`` if known).

    Args:
        columns: the names of the problem's and the gold answer's column, if they are not the usual ones.

    Raises:
        ValueError: the file is missing, a row is incomplete, no gold answer can be read, or problems have one rollout.
    """
    if not path.is_file():
        raise ValueError(f"--samples: no file at {path}")
    samples = verified_samples(read_sample_rows(path, *columns), verifier, splitter)
    if not samples:
        raise ValueError(f"--samples {path}: no row with a gold answer that the verifier can read")
    if max(len(sample.correct) for sample in samples) < 2:
        raise ValueError(
            f"--samples {path}: got one completion per problem; the preflight compares the rollouts of a group, so "
            "expected several (8 are usual)"
        )
    chosen = sorted(random.Random(seed).sample(range(len(samples)), min(most, len(samples))))
    return Drawn([samples[i] for i in chosen], path.name)


def from_toy_world(
    settings: dict[str, Any], root: str, problems: int, n: int, *, with_prm: bool = True
) -> tuple[Drawn, "ToyWorld"]:
    """Samples of the starting policy of a toy world, with exact first errors, and the world.

    Raises:
        ValueError: a setting the world does not know.
    """
    from rlhf_prm.toyworld import ToyWorldSettings, build_world
    from rlhf_prm.toyworld.prm_check import TEXTS

    world_settings = build(ToyWorldSettings, settings, "--toyworld")
    world = build_world(world_settings, root, with_prm=with_prm)
    return _from_world(world, f"toy world {json.dumps(settings)}", problems, n, TEXTS), world


def from_word_problems(
    settings: dict[str, Any], root: str, problems: int, n: int, *, with_prm: bool = True
) -> tuple[Drawn, "WordWorld"]:
    """The same of a word-problem world."""
    from rlhf_prm.wordproblems import WordWorldSettings, build_world

    world_settings = build(WordWorldSettings, settings, "--wordproblems")
    world = build_world(world_settings, root, with_prm=with_prm)
    return _from_world(world, f"word problems {json.dumps(settings)}", problems, n, ProbeTexts()), world


def _from_world(world: Any, name: str, problems: int, n: int, texts: ProbeTexts) -> Drawn:
    from rlhf_prm.toyworld.prm_check import checked_samples as exactly_checked

    start = time.perf_counter()
    samples = exactly_checked(world, problems, n)
    return Drawn(samples, name, time.perf_counter() - start, texts=texts)
