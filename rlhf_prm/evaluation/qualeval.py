"""Categories of problems, and a PRM's accuracy in each (QualEval, arXiv 2311.02807)."""

import re
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from rlhf_prm.generation import Generator
from rlhf_prm.statistics import bootstrap_interval

NAMING_PROMPT = (
    "Here are {count} mathematics problems.\n\n{problems}\n\nName {categories} categories (topics or skills) that "
    "cover them. Write one category per line, a few words each, and nothing else."
)
SCORING_PROMPT = (
    "Problem:\n{problem}\n\nHow well does each category describe what it takes to solve it? Categories:\n{categories}\n"
    "\nFor every category write one line 'number: score' with a score from 1 (not at all) to 5 (exactly), nothing else."
)


def assign_categories(
    affinity: Float[np.ndarray, "N C"], *, per_sample: int = 1, slack: float = 0.5
) -> list[list[int]]:
    """Assign each of N samples to ``per_sample`` of C categories by an integer program.

    Maximises Σ affinity·x over x ∈ {0,1}^{N×C} with Σ_c x_nc = per_sample, and the size of every category within
    (1 ± slack) of its share of the affinity's mass, so that no category takes all samples.

    Raises:
        ValueError: a negative affinity, more categories per sample than there are, or limits no assignment meets.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp  # imported here: it takes a second, and --help needs none
    from scipy.sparse import identity, kron, vstack

    samples, categories = affinity.shape
    if (affinity < 0).any():
        raise ValueError(f"affinity: got {affinity.min()}, expected numbers ≥ 0")
    if not 1 <= per_sample <= categories:
        raise ValueError(f"per_sample: got {per_sample}, expected 1 to {categories}, the number of categories")
    mass = affinity.sum(0) + 1e-9
    expected = mass / mass.sum() * samples * per_sample
    lower, upper = np.floor(expected * (1 - slack)), np.minimum(np.ceil(expected * (1 + slack)), samples)
    each_sample = kron(identity(samples), np.ones((1, categories)))
    each_category = kron(np.ones((1, samples)), identity(categories))
    constraints = LinearConstraint(
        vstack([each_sample, each_category]),
        np.concatenate([np.full(samples, per_sample), lower]),
        np.concatenate([np.full(samples, per_sample), upper]),
    )
    solved = milp(
        -affinity.ravel(), constraints=constraints, integrality=np.ones(samples * categories), bounds=Bounds(0, 1)
    )
    if solved.x is None:
        raise ValueError(
            f"no assignment meets the category sizes with slack {slack}: {solved.message}; raise the slack"
        )
    chosen = solved.x.reshape(samples, categories) > 0.5
    return [np.flatnonzero(row).tolist() for row in chosen]


def named_categories(generator: Generator, problems: Sequence[str], count: int, seed: int = 0) -> list[str]:
    """``count`` category names for the problems, from a language model that sees up to 30 of them.

    Raises:
        ValueError: fewer than two usable names in the model's answer.
    """
    shown = "\n\n".join(f"{index}. {problem}" for index, problem in enumerate(problems[:30], start=1))
    prompt = NAMING_PROMPT.format(count=min(len(problems), 30), problems=shown, categories=count)
    answer = generator.generate([[{"role": "user", "content": prompt}]], 1, seed=seed, stop=None)[0][0]
    names = [re.sub(r"^\s*(?:\d+[.):]|[-*•])\s*", "", line).strip() for line in answer.splitlines()]
    names = list(dict.fromkeys(name for name in names if name))[:count]
    if len(names) < 2:
        raise ValueError(f"the model named {len(names)} categories, expected at least 2; it wrote {answer[:200]!r}")
    return names


def scored_affinity(
    generator: Generator, problems: Sequence[str], categories: Sequence[str], seed: int = 0
) -> Float[np.ndarray, "N C"]:
    """1 to 5 for each problem and category, from a language model; a category it does not rate gets 1."""
    listed = "\n".join(f"{index}. {name}" for index, name in enumerate(categories, start=1))
    prompts = [[{"role": "user", "content": SCORING_PROMPT.format(problem=p, categories=listed)}] for p in problems]
    affinity = np.ones((len(problems), len(categories)))
    for row, answers in zip(affinity, generator.generate(prompts, 1, seed=seed, stop=None), strict=True):
        for index, score in re.findall(r"^\s*(\d+)\s*[.:)]\s*([1-5])\b", answers[0], flags=re.MULTILINE):
            if 1 <= int(index) <= len(categories):
                row[int(index) - 1] = float(score)
    return affinity


def accuracy_by_category(correct: Sequence[bool], categories: Sequence[Sequence[str]]) -> dict[str, dict[str, float]]:
    """Accuracy, a bootstrap interval and the number of samples of each category, the weakest category first."""
    groups: dict[str, list[float]] = defaultdict(list)
    for right, names in zip(correct, categories, strict=True):
        for name in names:
            groups[name].append(float(right))
    rows = {}
    for name, values in groups.items():
        low, high = bootstrap_interval(np.array(values))
        rows[name] = {"accuracy": float(np.mean(values)), "low": low, "high": high, "samples": len(values)}
    return dict(sorted(rows.items(), key=lambda item: item[1]["accuracy"]))
