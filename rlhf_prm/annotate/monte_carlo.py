"""Monte Carlo step labels: a step is as good as the completions that start from it (Math-Shepherd, 2312.08935).

From the prefix that ends with step k, ``num_completions`` continuations are sampled and verified against the gold
answer. The policy continues its own token ids if they are known (:mod:`rlhf_prm.generation.prefixes`). With h_k
hits out of n, the soft label is h_k / n and the hard label is [h_k / n > threshold]; 2501.07301 finds threshold 0 the
best (ProcessBench 40.2, against 29.5 at 7/8) and drops the steps after the first 0. The last step is the answer itself:
it is verified, not continued.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from reward.verifier import Verdict, Verifier
from rlhf_prm.generation import Generator
from rlhf_prm.generation.drivers import run_batched
from rlhf_prm.generation.prefixes import TokenPrefixes, sampled_prefixes, written_prefixes
from rlhf_prm.generation.prompts import prompt_ids as ids_of_prompt
from rlhf_prm.generation.requests import Generate, Sample, unit_seed
from rlhf_prm.generation.tasks import Emit, RejectedRow, Rejection, Task, Verify
from rlhf_prm.generation.templates import PromptTemplate
from rlhf_prm.step_data import StepLabels
from rlhf_prm.steps import StepSplitter


@dataclass(frozen=True)
class MonteCarloSettings:
    """How steps are estimated.

    Args:
        num_completions: n, completions per step prefix.
        threshold: a step is correct when its hit rate is above it.
        stop_at_first_miss: stop at the first step that is not correct; False estimates every step.
        separator: joins the steps of a prefix, and ends it, if the text they were cut from is not known.
        seed: of all sampling.

    Hits are stored, so ``threshold`` and ``stop_at_first_miss`` can be changed afterwards:
    ``records_depend_on`` leaves them out. If they need more steps than were estimated, the others are estimated then.
    """

    num_completions: int = 8
    threshold: float = 0.0
    stop_at_first_miss: bool = True
    separator: str = "\n\n"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.num_completions < 1:
            raise ValueError(f"num_completions: got {self.num_completions}, expected ≥ 1")
        if not 0 <= self.threshold < 1:
            raise ValueError(f"threshold: got {self.threshold}, expected 0 ≤ threshold < 1 (a hit rate)")

    def records_depend_on(self) -> dict[str, Any]:
        """The settings that the estimates depend on."""
        return {"num_completions": self.num_completions, "separator": self.separator, "seed": self.seed}


@dataclass
class StepEstimate:
    """Hits of one step prefix: h of n completions reached the gold answer; ``statuses`` counts the verifier's."""

    step: int
    hits: int
    n: int
    statuses: dict[str, int] = field(default_factory=dict)


def monte_carlo_task(
    key: str | int,
    prompt: str,
    steps: Sequence[str],
    solution: str,
    settings: MonteCarloSettings,
    known: Sequence[StepEstimate] = (),
    prefixes: Sequence[str] | None = None,
    tokens: TokenPrefixes | None = None,
) -> Task:
    """The task that labels one solution; it continues after the ``known`` estimates of its first steps.

    Emits one ``StepEstimate`` (as a dict) per step; returns ``StepLabels``.

    Args:
        key: names the solution; its seeds are derived from it.
        prompt: the rendered text that the policy saw before its first step.
        solution: the gold answer.
        prefixes: the solution's own text up to the end of each step, what ends the step included; by default the steps
            joined by ``settings.separator``.
        tokens: the same as token ids, which are then continued; None = the text of prompt and steps is.

    Raises:
        RejectedRow: there are no steps, or the gold answer cannot be read.
    """
    if not steps:
        raise RejectedRow("the solution has no steps")
    estimates = list(known)
    while not is_complete(estimates, len(steps), settings):
        k = len(estimates)
        last = k == len(steps) - 1
        if prefixes is not None:
            prefix = prefixes[k]
        else:
            prefix = settings.separator.join(steps[: k + 1]) + settings.separator * (not last)
        if last:
            texts = [prefix]
        else:
            given = prompt + prefix if tokens is None else tokens.prompt(k)
            seed = unit_seed(settings.seed, "monte_carlo", key, k)
            completions = yield Generate(given, settings.num_completions, seed, group=prompt)
            texts = [prefix + one if tokens is None else tokens.text(k, one) for one in completions]
        verdicts = yield Verify(texts, solution)
        estimates.append(step_estimate(k, verdicts))
        yield Emit(vars(estimates[-1]).copy())
    return labels_from_estimates(estimates, settings)


def prefixes_of(
    tokenizer: Any,
    prompt: str,
    steps: Sequence[str],
    splitter: StepSplitter,
    sampled: Sample | None = None,
    prefixes: Sequence[str] | None = None,
) -> TokenPrefixes | None:
    """The prefixes of one solution, cut from the sampled ids, or else from the ids of its tokenized text.

    None for a solution without steps. ``prefixes`` are as for ``monte_carlo_task``.
    """
    if not steps:
        return None
    if sampled is not None and sampled.ids is not None:
        prompt_ids = ids_of_prompt(tokenizer, prompt) if sampled.prompt_ids is None else sampled.prompt_ids
        found = sampled_prefixes(tokenizer, prompt_ids, sampled.ids, str(sampled), splitter)
        if found is not None and len(found.ends) == len(steps):
            return found
    return written_prefixes(tokenizer, prompt, steps, splitter.separator, prefixes)


def step_estimate(step: int, verdicts: Sequence[Verdict]) -> StepEstimate:
    """Counts of one prefix's verdicts.

    Raises:
        RejectedRow: a verdict has no reward, because the gold answer cannot be read.
    """
    if any(verdict.reward is None for verdict in verdicts):
        raise RejectedRow(f"verifier: {next(v.status for v in verdicts if v.reward is None)}")
    hits = sum(verdict.reward > 0.5 for verdict in verdicts)
    return StepEstimate(step, hits, len(verdicts), dict(Counter(verdict.status for verdict in verdicts)))


def is_complete(estimates: Sequence[StepEstimate], num_steps: int, settings: MonteCarloSettings) -> bool:
    """Whether all steps that are needed are estimated."""
    return len(estimates) == num_steps or (
        settings.stop_at_first_miss and any(is_miss(estimate, settings) for estimate in estimates)
    )


def is_miss(estimate: StepEstimate, settings: MonteCarloSettings) -> bool:
    """Whether the step is not correct: its hit rate is not above the threshold."""
    return estimate.hits / estimate.n <= settings.threshold


def labels_from_estimates(estimates: Sequence[StepEstimate], settings: MonteCarloSettings) -> StepLabels:
    """Soft labels h/n and hard labels [h/n > threshold] of the estimated steps.

    Estimates past the first miss, made with another threshold, are left out if the present settings stop there.
    """
    labels = [not is_miss(estimate, settings) for estimate in estimates]
    if settings.stop_at_first_miss and False in labels:
        labels = labels[: labels.index(False) + 1]
    soft = [estimate.hits / estimate.n for estimate in estimates[: len(labels)]]
    return StepLabels(labels, soft, "monte_carlo")


def monte_carlo(
    problems: list[str],
    steps: list[list[str]],
    solutions: list[str],
    generator: Generator,
    verifier: Verifier,
    *,
    settings: MonteCarloSettings | None = None,
    template: Callable[[str], str] | None = None,
    window: int = 256,
    tokenizer: Any = None,
    sampled: Sequence[Sample] | None = None,
) -> list[StepLabels | Rejection]:
    """Step labels of solutions held in memory, in their order; a row that cannot be labelled gives a ``Rejection``.

    Args:
        solutions: gold answers, one per solution.
        verifier: ``verify(completions, solutions) -> list[Verdict]``.
        template: problem → the text that the policy saw before its first step (default: the problem and a blank line).
        window: solutions worked on at once; each generator call holds at most that many prefixes.
        tokenizer: the generator's; default: its ``tokenizer``, if it has ``reads_ids``. Without one, prefixes are text.
        sampled: the solutions as this generator sampled them, whose tokens are then continued.
    """
    settings = settings or MonteCarloSettings()
    template = template or PromptTemplate()
    reads_ids = getattr(generator, "reads_ids", False)
    tokenizer = (tokenizer or getattr(generator, "tokenizer", None)) if reads_ids else None
    splitter = StepSplitter(settings.separator)

    def task(i: int) -> Task:
        prompt, known = template(problems[i]), sampled[i] if sampled is not None else None
        tokens = None if tokenizer is None else prefixes_of(tokenizer, prompt, steps[i], splitter, known)
        return monte_carlo_task(i, prompt, steps[i], solutions[i], settings, tokens=tokens)

    lengths = {len(problems), len(steps), len(solutions), len(problems if sampled is None else sampled)}
    if len(lengths) > 1:
        raise ValueError(
            f"problems, steps, solutions, sampled: got {sorted(lengths)} of them, expected as many of each"
        )
    tasks = ((i, task(i)) for i in range(len(problems)))
    results = dict(run_batched(tasks, generator, verifier, window=window))
    return [results[i] for i in range(len(problems))]
