"""The settings of ``rlhf-prm annotate``, from a YAML file or flags."""

from dataclasses import dataclass, field
from typing import Any

from reward import resolve
from reward.verifier import MathVerifier, Verifier
from rlhf_prm.annotate.judge import JudgeSettings
from rlhf_prm.annotate.monte_carlo import MonteCarloSettings
from rlhf_prm.generation.config import GeneratorConfig
from rlhf_prm.settings import build, read_mapping
from rlhf_prm.steps import StepSplitter


@dataclass
class AnnotateConfig:
    """The settings of a whole annotation, from problems to labelled solutions.

    Args:
        out: folder for all output.
        problems: .jsonl or .parquet file, one problem and gold answer per row; not needed with ``solutions``.
        solutions: label these rows (problem, gold answer, and ``steps`` or ``response``) in place of sampled ones.
        policies: models to sample from, each one ``num_responses`` times per problem.
        completer: continues step prefixes for Monte Carlo; default: the first policy.
        completers: one for each policy, in their order, to continue that policy's own samples, in place of one
            ``completer`` for all.
        judge: the model that judges.
        problem_column, solution_column: default: problem, prompt or question; solution or answer.
        separator, step_pattern: how a response is cut into steps (``StepSplitter``).
        num_completions, threshold, stop_at_first_miss: see ``MonteCarloSettings``.
        judge_form, votes, attempts: see ``JudgeSettings``.
        verifier: "math", or a dotted path to a class or function without arguments that gives a ``Verifier``.
        shard_size: problems per shard; one shard is held in memory at a time.
        concurrency: requests in flight over all endpoints; prompts per call of an in-process generator.
        limit: how many problems to use, from the first; None = all.
        retry_rejected: try the rows set aside again.
        runner: "local", or "ray": shards go to ``workers`` processes of a Ray cluster, each with its own model and
            ``gpus_per_worker`` GPUs; all must see ``out``.
    """

    out: str
    problems: str | None = None
    solutions: str | None = None
    policies: list[GeneratorConfig] = field(default_factory=list)
    completer: GeneratorConfig | None = None
    completers: list[GeneratorConfig] = field(default_factory=list)
    judge: GeneratorConfig | None = None
    problem_column: str | None = None
    solution_column: str | None = None
    num_responses: int = 8
    separator: str = "\n\n"
    step_pattern: str | None = None
    num_completions: int = 8
    threshold: float = 0.0
    stop_at_first_miss: bool = True
    judge_form: str = "paper"
    votes: int = 1
    attempts: int = 3
    verifier: str = "math"
    seed: int = 0
    shard_size: int = 2000
    concurrency: int = 128
    limit: int | None = None
    retry_rejected: bool = False
    runner: str = "local"
    workers: int = 2
    gpus_per_worker: float = 0.0

    def __post_init__(self) -> None:
        if (self.problems is None) == (self.solutions is None):
            raise ValueError("expected either problems (to sample from) or solutions (to label as they are)")
        if self.completers and (self.completer is not None or self.solutions is not None):
            other = "completer" if self.completer is not None else "solutions"
            raise ValueError(f"completers continue the samples of one policy each; they do not go with {other}")
        if self.completers and len(self.completers) != len(self.policies):
            raise ValueError(
                f"completers: got {len(self.completers)} for {len(self.policies)} policies, expected one for each"
            )
        if self.runner not in ("local", "ray"):
            raise ValueError(f"runner: got {self.runner!r}, expected local or ray")
        for name in ("num_responses", "shard_size", "concurrency", "workers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: got {getattr(self, name)}, expected ≥ 1")
        self.splitter = StepSplitter(self.separator, self.step_pattern)
        self.monte_carlo_settings = MonteCarloSettings(
            self.num_completions, self.threshold, self.stop_at_first_miss, self.separator, self.seed
        )
        self.judge_settings = JudgeSettings(self.judge_form, self.votes, self.attempts, self.seed)

    def build_verifier(self) -> Verifier:
        """The verifier, started."""
        return resolve(self.verifier, {"math": MathVerifier}, "verifier")()


def read_config(path: str | None, overrides: dict[str, Any]) -> AnnotateConfig:
    """The YAML file's settings, replaced by ``overrides`` where given.

    Raises:
        ValueError: there is no such file, a key is unknown, or a value is invalid.
    """
    settings = read_mapping(path) if path is not None else {}
    return build(AnnotateConfig, settings | overrides, "annotate config")
