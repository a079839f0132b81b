"""Makes labels from the stored hits at another threshold, hard or soft, without sampling again.

arXiv 2501.07301 compares hard with soft labels, before and after the consensus, and the thresholds 0, 1/8, … 7/8
(Figures 4 and 5). A Monte Carlo folder stores hits, so all of these can be computed from one run.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlhf_prm.annotate.config import AnnotateConfig
from rlhf_prm.annotate.consensus import ConsensusReport
from rlhf_prm.annotate.items import BadRow, Solution, given_solutions, sampled_solutions
from rlhf_prm.annotate.monte_carlo import MonteCarloSettings, StepEstimate, is_complete, labels_from_estimates
from rlhf_prm.annotate.store import Shards, by_id, file_hash
from rlhf_prm.files import read_json, write_json
from rlhf_prm.generation.tasks import Rejection
from rlhf_prm.step_data import StepLabels, read_records, write_rows

KINDS = ("hard", "soft")


def relabelled(labels: StepLabels, threshold: float, kind: str = "soft") -> StepLabels:
    """Monte Carlo labels at another threshold, cut at the first hit rate that is not above it.

    Args:
        labels: of a run whose threshold was not higher, with hit rates as soft labels.
        kind: ``"soft"`` keeps the hit rates as soft labels; with ``"hard"`` they are the hard labels as 0 and 1.
    """
    if kind not in KINDS:
        raise ValueError(f"got the kind {kind!r}, expected one of {', '.join(KINDS)}")
    hard = [rate > threshold for rate in labels.soft_labels]
    hard = hard[: hard.index(False) + 1] if False in hard else hard
    soft = labels.soft_labels[: len(hard)] if kind == "soft" else [float(label) for label in hard]
    return StepLabels(hard, soft, labels.source)


@dataclass(frozen=True)
class Relabelling:
    """The output for one threshold: the files, their numbers of rows, and the share of right steps."""

    threshold: float
    path: Path
    rows: int
    right_steps: float
    consensus: Path | None = None
    kept: int = 0


@dataclass
class MonteCarloFolder:
    """The folder of a finished ``rlhf-prm annotate monte-carlo``.

    Args:
        folder: its ``--out``.
        solutions: the file that was labelled, if solutions were given rather than sampled.
        limit: how many problems to use, from the first, as when they were labelled; None = all.

    Raises:
        ValueError: there are no estimates, or this is not the file that was labelled.
    """

    folder: Path
    solutions: str | None = None
    limit: int | None = None
    config: AnnotateConfig = field(init=False)
    settings: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        found = sorted(self.folder.glob("monte_carlo*/manifest.json"))
        if not found:
            raise ValueError(
                f"{self.folder} holds no Monte-Carlo estimates (no monte_carlo/manifest.json): run "
                "`rlhf-prm annotate monte-carlo` there first"
            )
        self.settings = read_json(found[0])["settings"]
        if "solutions" in self.settings:
            if self.solutions is None:
                raise ValueError(f"{self.folder} labelled a file of solutions: name it with --solutions")
            if file_hash(self.solutions) != self.settings["solutions"]:
                raise ValueError(f"{self.solutions} is not the file that was labelled in {self.folder}")
        elif self.solutions is not None:
            raise ValueError(f"{self.folder} labelled its own samples: leave --solutions {self.solutions} out")
        problem_column, solution_column = self.settings.get("columns") or (None, None)
        self.config = AnnotateConfig(
            str(self.folder),
            problems=None if self.solutions else "sampled already",
            solutions=self.solutions,
            problem_column=problem_column,
            solution_column=solution_column,
            separator=self.settings["separator"],
            step_pattern=self.settings["step_pattern"],
            num_completions=self.settings["monte_carlo"]["num_completions"],
            shard_size=self.settings["shard_size"],
            limit=self.limit,
        )

    def rows(self) -> Iterator[Solution]:
        """The solutions, in the order of the input; rows that could not be read are skipped."""
        if self.config.solutions is not None:
            rows: Iterator[Solution | BadRow] = given_solutions(self.config)
        else:
            folders = [self.folder / f"sample-{policy}" for policy in range(len(self.settings["samples"]))]
            rows = iter(sampled_solutions(self.config, [Shards(one, self.config.shard_size) for one in folders]))
        return (row for row in rows if isinstance(row, Solution))

    def estimates(self) -> Iterator[tuple[Solution, list[StepEstimate] | None]]:
        """Each solution with its stored estimates; None if it was set aside."""
        names = sorted(path.parent.name for path in self.folder.glob("monte_carlo*/manifest.json"))
        stores = [Shards(self.folder / name, self.config.shard_size) for name in names]  # one for each completer
        rejected = {row_id for store in stores for row_id in store.rejected()}
        shard, known = -1, {}
        for row in self.rows():
            if (its := stores[0].shard_of(row.number)) != shard:
                shard, known = its, by_id(record for store in stores for record in store.records(its))
            found = [StepEstimate(r["step"], r["hits"], r["n"], r["statuses"]) for r in known.get(row.id, [])]
            yield row, None if row.id in rejected else found

    def judged(self) -> dict[str, StepLabels]:
        """The judge's labels by solution, from ``judge.jsonl``; empty if no judge has finished in this folder.

        The file has the solutions in their order, without those that were set aside.
        """
        path = self.folder / "judge.jsonl"
        if not path.is_file():
            return {}
        rejected = Shards(self.folder / "judge", self.config.shard_size).rejected()
        wanted = (row for row in self.rows() if row.id not in rejected)
        found = {}
        for row, (where, record) in zip(wanted, read_records(path), strict=False):
            if isinstance(record, ValueError):
                raise ValueError(f"{where}: {record}") from record
            if record["completions"] != row.steps or record["prompt"] != row.prompt:
                raise ValueError(f"{where} is not solution {row.id}: run `rlhf-prm annotate judge` there again")
            first = next((k for k, label in enumerate(record["labels"]) if not label), len(row.steps) - 1)
            found[row.id] = StepLabels(record["labels"][: first + 1], record["soft_labels"][: first + 1], "judge")
        return found


def relabel(source: MonteCarloFolder, threshold: float, kind: str = "soft", output: Path | None = None) -> Relabelling:
    """Write the labels at one threshold, and the consensus with the judge if one has finished.

    Args:
        output: folder for the files; default: ``relabelled`` in the Monte-Carlo folder.

    Raises:
        ValueError: a solution has too few estimates for this threshold. Sampling stopped at its first step without a
            hit at the threshold of that run, so a lower one needs steps that were never estimated.
    """
    settings = MonteCarloSettings(source.config.num_completions, threshold)
    judged, report, agreed_rows, right, steps = source.judged(), ConsensusReport(), [], 0, 0
    output = source.folder / "relabelled" if output is None else output
    output.mkdir(parents=True, exist_ok=True)

    def rows() -> Iterator[dict[str, Any]]:
        nonlocal right, steps
        for row, estimates in source.estimates():
            labels: StepLabels | Rejection = Rejection("no Monte-Carlo labels")
            if estimates is not None:
                labels = _labels(row, estimates, settings, kind, threshold)
                right, steps = right + sum(labels.labels), steps + len(labels.labels)
                yield labels.row(row.prompt, row.steps)
            agreed = report.add(labels, judged.get(row.id, Rejection("no judge labels")))
            if isinstance(agreed, StepLabels):
                agreed_rows.append(agreed.row(row.prompt, row.steps))

    path = output / f"monte_carlo_{kind}_{threshold:g}.jsonl"
    written = write_rows(path, rows())
    share = right / steps if steps else float("nan")
    if not judged:
        return Relabelling(threshold, path, written, share)
    kept = write_rows(output / f"consensus_{kind}_{threshold:g}.jsonl", agreed_rows)
    write_json(output / f"consensus_{kind}_{threshold:g}_report.json", report.as_dict())
    return Relabelling(threshold, path, written, share, output / f"consensus_{kind}_{threshold:g}.jsonl", kept)


def _labels(
    row: Solution, estimates: list[StepEstimate], settings: MonteCarloSettings, kind: str, threshold: float
) -> StepLabels:
    if not is_complete(estimates, len(row.steps), settings):
        raise ValueError(
            f"solution {row.id} has {len(estimates)} of {len(row.steps)} steps estimated, too few for the threshold "
            f"{threshold:g}: sample the rest with `rlhf-prm annotate monte-carlo --threshold {threshold:g}`, or take a "
            "higher one"
        )
    return relabelled(labels_from_estimates(estimates, settings), threshold, kind)
