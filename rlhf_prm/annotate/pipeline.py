"""The stages over files: problems → samples → Monte Carlo and judge labels → consensus. Each one can be resumed."""

import asyncio
import contextlib
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from reward.verifier import Verifier
from rlhf_prm.annotate.config import AnnotateConfig
from rlhf_prm.annotate.consensus import ConsensusReport
from rlhf_prm.annotate.items import BadRow, Solution, given_solutions, problems, sampled_solutions
from rlhf_prm.annotate.outcome import every_step
from rlhf_prm.annotate.progress import Progress
from rlhf_prm.annotate.stages import JudgeStage, MonteCarloStage, SampleStage, Stage
from rlhf_prm.annotate.store import Shards, StageStore, by_id, file_hash, settings_hash
from rlhf_prm.command_line import reason
from rlhf_prm.files import write_json
from rlhf_prm.generation import Generator
from rlhf_prm.generation.drivers import Sink, run_batched, run_concurrent
from rlhf_prm.generation.endpoint import EndpointGenerator
from rlhf_prm.generation.tasks import Rejection, Task
from rlhf_prm.ray_shards import Work, run_shards
from rlhf_prm.step_data import StepLabels, write_rows

NOTHING_WORKS = 50  # if this many rows are set aside before one is labelled, the settings are wrong, not the rows


class Pipeline:
    """The stages of one configuration, in the folder ``config.out``."""

    def __init__(self, config: AnnotateConfig):
        self.config, self.out = config, Path(config.out)
        self._only: int | None = None  # in a worker: the shard it works on
        self._model: Generator | None = None  # in a worker: loaded for an earlier shard
        try:
            self.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"--out {self.out} cannot be made a folder ({reason(error)}); choose another") from error

    def stages(self, name: str) -> list[Stage]:
        """The stages called "sample" (one per policy), "monte_carlo" (one per completer) or "judge".

        Raises:
            ValueError: the configuration lacks what the stage needs.
        """
        if name == "sample":
            if not self.config.policies or self.config.problems is None:
                raise ValueError("sample: expected problems and at least one policy (--model)")
            return [SampleStage(self.config, policy) for policy in range(len(self.config.policies))]
        if name == "monte_carlo" and self.config.completers:
            source = self._source()
            return [MonteCarloStage(self.config, source, policy) for policy in range(len(self.config.completers))]
        return [{"monte_carlo": MonteCarloStage, "judge": JudgeStage}[name](self.config, self._source())]

    def _source(self) -> dict[str, Any]:
        """Where solutions come from, for the manifests of the stages that label them."""
        cut = {"separator": self.config.separator, "step_pattern": self.config.step_pattern}
        if self.config.solutions is not None:
            columns = [self.config.problem_column, self.config.solution_column]
            return {"solutions": file_hash(self.config.solutions), "columns": columns, **cut}
        return {"samples": [settings_hash(stage.settings) for stage in self.stages("sample")], **cut}

    def shards(self, stage: Stage) -> Shards:
        """The stage's records, for reading."""
        return Shards(self.out / stage.name, self.config.shard_size)

    def store(self, stage: Stage) -> StageStore:
        """The stage's records, for writing by this process only."""
        return StageStore(self.out / stage.name, stage.settings, self.config.shard_size)

    def rows(self, stage: Stage) -> Iterator[Any]:
        """The rows that the stage works on, in the order of the input."""
        if isinstance(stage, SampleStage):
            return problems(self.config, int(stage.name.rpartition("-")[2]))
        policy = getattr(stage, "policy", None)
        if policy is None:
            return self.solutions()
        return (row for row in self.solutions() if isinstance(row, Solution) and row.policy == policy)

    def solutions(self) -> Iterator[Solution | BadRow]:
        """Everything to label."""
        if self.config.solutions is not None:
            return given_solutions(self.config)
        return sampled_solutions(self.config, [self.shards(s) for s in self.stages("sample")])

    def check_input(self) -> None:
        """Read the first rows of the input.

        Raises:
            ValueError: there is none, or the first ``NOTHING_WORKS`` cannot be used.
        """
        rows = self.solutions() if self.config.solutions is not None else problems(self.config, 0)
        first = list(itertools.islice(rows, NOTHING_WORKS))
        if not first:
            raise ValueError(f"{self.config.solutions or self.config.problems} has no rows, expected at least one")
        if all(isinstance(row, BadRow) for row in first):
            many = f"the first {len(first)} rows" if len(first) > 1 else "the only row"
            raise ValueError(f"{many} cannot be used, to begin with {first[0].reason}")

    def run(self, name: str) -> None:
        """Finish the stages of this name, then write their labels."""
        stages = self.stages(name)
        for stage in stages:
            self._check_solutions(stage)
            with self.store(stage) as store:
                if self.config.retry_rejected:
                    store.forget_rejected(stage.kept_for_retry)
                total = sum(1 for _ in self.rows(stage))
                with Progress(stage, total) as progress:
                    if self.config.runner == "ray":
                        self._run_on_ray(stage, name, progress)
                    else:
                        self._run(stage, store, progress)
                reasons = store.rejected().values()
            if stage is not stages[-1] or name == "sample":
                print_reasons(reasons)
        if name != "sample":
            self._write_labels(name)
            print_reasons(reasons)

    def _run_on_ray(self, stage: Stage, name: str, progress: Progress) -> None:
        """Run the stage's shards in workers, each with its own model; this process keeps the folder locked."""
        shards = sorted({row.number // self.config.shard_size for row in self.rows(stage)})
        place = next(i for i, one in enumerate(self.stages(name)) if one.name == stage.name)
        make = partial(_shard_worker, self.config, name, place)
        config = self.config
        for _, rows in run_shards(make, shards, workers=config.workers, gpus_per_worker=config.gpus_per_worker):
            for _ in range(rows):
                progress.finished_one()

    def run_shard(self, stage: Stage, shard: int, model: Generator | None) -> tuple[int, Generator | None]:
        """Finish one shard, in a worker; returns its number of rows and the loaded model."""
        self._only, self._model = shard, model
        with StageStore(self.out / stage.name, stage.settings, self.config.shard_size, of_worker=True) as store:
            total = sum(1 for row in self.rows(stage) if store.shard_of(row.number) == shard)
            with Progress(stage, total) as progress:
                self._run(stage, store, progress)
        return total, self._model

    def _check_solutions(self, stage: Stage) -> None:
        """Raise ``ValueError`` if a stage labels sampled solutions and none is sampled."""
        if not isinstance(stage, SampleStage) and next(iter(self.solutions()), None) is None:
            raise ValueError(f"{stage.name}: there are no solutions in {self.out} yet; run the stage sample first")

    def _run(self, stage: Stage, store: StageStore, progress: Progress) -> None:
        tasks = self._tasks(stage, store, progress)
        first = next(tasks, None)
        if first is None:  # nothing left: no model is loaded
            return
        generator = self._model or stage.model.build(self.config.concurrency)
        self._model = generator if self._only is not None else None
        progress.watch(generator)
        verifier = self.config.build_verifier() if isinstance(stage, MonteCarloStage) else None

        def sink(key: tuple[str, int], record: dict[str, Any]) -> None:
            store.append(key[1], {"id": key[0], **record})

        def finished(key: tuple[str, int], result: Any) -> None:
            if not isinstance(result, Rejection):
                progress.finished_one()
                return
            store.reject(key[0], result.reason)
            if progress.rejected_one() >= NOTHING_WORKS and not progress.done:
                raise ValueError(
                    f"{stage.name}: the first {NOTHING_WORKS} rows all failed, the last with: {result.reason}. After "
                    "fixing that, continue with --retry-rejected"
                )

        try:
            self._drive(itertools.chain([first], tasks), generator, verifier, sink, finished)
        finally:
            if hasattr(verifier, "close"):
                verifier.close()

    def _drive(
        self,
        tasks: Iterable[tuple[Any, Task]],
        generator: Generator,
        verifier: Verifier | None,
        sink: Sink,
        finished: Callable[[Any, Any], None],
    ) -> None:
        window = self.config.concurrency
        if isinstance(generator, EndpointGenerator):
            window += window // 2  # some wait for verdicts
            asyncio.run(run_concurrent(tasks, generator, verifier, window=window, sink=sink, finished=finished))
        else:
            for key, result in run_batched(tasks, generator, verifier, window=window, sink=sink):
                finished(key, result)

    def _tasks(self, stage: Stage, store: StageStore, progress: Progress) -> Iterator[tuple[tuple[str, int], Task]]:
        """A task for every row that is not done, shard by shard."""
        rejected = store.rejected()
        for shard, rows in itertools.groupby(self.rows(stage), key=lambda row: store.shard_of(row.number)):
            if self._only not in (None, shard):
                continue
            known = by_id(store.records(shard))
            for row in rows:
                if row.id in rejected:
                    progress.known_one(rejected=True)
                elif isinstance(row, BadRow):
                    store.reject(row.id, row.reason)
                    progress.rejected_one()
                elif stage.is_done(row, records := known.pop(row.id, [])):
                    if isinstance(result := stage.result(row, records), Rejection):
                        store.reject(row.id, result.reason)  # the last run was killed before it could write this
                    progress.known_one()
                else:
                    yield (row.id, shard), stage.task(row, records)

    def _labelled(self, stages: list[Any]) -> Iterator[tuple[Solution, StepLabels | Rejection]]:
        """Every solution with the labels of these stages, in the order of the input.

        Args:
            stages: one for all solutions, or one for each policy's.

        Raises:
            ValueError: a stage has not finished.
        """
        stores = [self.shards(stage) for stage in stages]
        rejections = [store.rejected() for store in stores]
        for shard, rows in itertools.groupby(self.solutions(), key=lambda row: stores[0].shard_of(row.number)):
            by_stage = [by_id(store.records(shard)) for store in stores]
            for row in rows:
                if isinstance(row, BadRow):
                    continue
                its = row.policy if len(stages) > 1 else 0
                stage, rejected, records = stages[its], rejections[its], by_stage[its].pop(row.id, [])
                if row.id in rejected:
                    yield row, Rejection(rejected[row.id])
                elif stage.is_done(row, records):
                    yield row, stage.result(row, records)
                else:
                    raise ValueError(
                        f"{stage.name} has not labelled solution {row.id} yet: run that stage to its end first"
                    )

    def _write_labels(self, name: str) -> None:
        with self._locked(stages := self.stages(name)):
            rows = (
                labels.row(s.prompt, s.steps) for s, labels in self._labelled(stages) if isinstance(labels, StepLabels)
            )
            path = self.out / f"{name}.jsonl"
            print(f"{path}: {write_rows(path, rows)} labelled solutions")

    @contextlib.contextmanager
    def _locked(self, stages: list[Stage]) -> Iterator[None]:
        """Inside the context no other process can write to these stages."""
        with contextlib.ExitStack() as stack:
            for stage in stages:
                stack.enter_context(self.store(stage))
            yield

    def outcome(self) -> None:
        """Write ``outcome.jsonl``: every solution with the verifier's verdict on its answer, at every step."""
        verifier, left_out = self.config.build_verifier(), Counter()

        def rows() -> Iterator[dict[str, Any]]:
            solutions = self.solutions()
            while batch := list(itertools.islice(solutions, self.config.shard_size)):
                given = [row for row in batch if isinstance(row, Solution) and row.steps]
                left_out["no steps, or a row that cannot be read"] += len(batch) - len(given)
                texts = [self.config.separator.join(row.steps) if row.text is None else row.text for row in given]
                verdicts = verifier.verify(texts, [row.solution for row in given])
                for row, verdict in zip(given, verdicts, strict=True):
                    if verdict.reward is None:
                        left_out[f"verifier: {verdict.status}"] += 1
                    else:
                        yield every_step(verdict.reward > 0.5, len(row.steps)).row(row.prompt, row.steps)

        path = self.out / "outcome.jsonl"
        try:
            written = write_rows(path, rows())
        finally:
            if hasattr(verifier, "close"):
                verifier.close()
        if not written:
            raise ValueError(f"outcome: no solution in {self.out} has a verdict; {dict(+left_out)}")
        print(f"{path}: {written} solutions with a verdict")
        print_reasons((+left_out).elements())

    def consensus(self) -> ConsensusReport:
        """Write ``consensus.jsonl`` and ``consensus_report.json``, and return the report."""
        first, second = self.stages("monte_carlo"), self.stages("judge")
        report = ConsensusReport()
        self._check_solutions(first[0])

        def rows() -> Iterator[dict[str, Any]]:
            for (solution, mc), (_, verdict) in zip(self._labelled(first), self._labelled(second), strict=True):
                agreed = report.add(mc, verdict)
                if isinstance(agreed, StepLabels):
                    yield agreed.row(solution.prompt, solution.steps)

        with self._locked([*first, *second]):
            path = self.out / "consensus.jsonl"
            written = write_rows(path, rows())
        write_json(self.out / "consensus_report.json", report.as_dict())
        print(f"{path}: {written} labelled solutions\n{report.as_text()}")
        return report


def _shard_worker(config: AnnotateConfig, name: str, place: int) -> Work:
    """The function with which a worker runs shards of the stage; its model stays loaded."""
    pipeline = Pipeline(config)
    stage, model = pipeline.stages(name)[place], None

    def work(shard: int) -> int:
        nonlocal model
        rows, model = pipeline.run_shard(stage, shard, model)
        return rows

    return work


def print_reasons(reasons: Iterable[str], most: int = 10) -> None:
    """Print the most common reasons why rows were set aside."""
    counts = Counter(reasons)
    for why, count in counts.most_common(most):
        print(f"  set aside {count:6d}  {why[:160]}")
