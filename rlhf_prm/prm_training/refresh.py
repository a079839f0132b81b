"""Refreshes a PRM that scores a policy in training, by training it on newly labelled rollouts of that policy.

A PRM was trained on solutions of an earlier policy. At intervals the newest rollouts are labelled, the PRM is trained
on them and on older labelled rows, and it is measured on fresh rollouts of problems that no refresh ever
trains on. The new weights are kept only if they are not worse there than the old ones.
"""

import json
import logging
import math
import random
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf_prm.annotate.labellers import Labeller
from rlhf_prm.files import read_json_lines, write_json_lines
from rlhf_prm.generation.endpoint import EndpointError
from rlhf_prm.generation.requests import unit_seed
from rlhf_prm.prm.scorer import PRMScorer
from rlhf_prm.prm_training.along import go_on_learning, refuse_unteachable, step_quality
from rlhf_prm.prm_training.ranks import Ranks
from rlhf_prm.prm_training.stopping import stopping_metric
from rlhf_prm.prm_training.versions import Versions
from rlhf_prm.step_data import FreshRollout, StepLabels, read_all, write_rows

logger = logging.getLogger(__name__)
LABELS = ("judge", "mc", "consensus", "confirmed", "outcome", "gold")
FEWEST_HELD_OUT = 8  # with fewer labelled rollouts the PRM cannot be measured


@dataclass(frozen=True)
class RefreshSettings:
    """When and how a PRM is refreshed.

    Args:
        every: policy updates between two refreshes.
        rows: how many of the newest distinct rollouts are labelled, held-out ones included.
        labels: the source of labels: ``judge``, ``mc`` (Monte Carlo completions), ``consensus`` of the two, or
            ``outcome`` (every step has the verdict). The toy world also has ``confirmed`` and ``gold``.
        replay: share of older rows in the training data: the rows the PRM was first trained on, if they
            are known, and those of earlier refreshes.
        updates, batch_size, learning_rate: of the PRM, at each refresh.
        held_out: share of the problems whose rollouts are only measured on.
    """

    every: int = 20
    rows: int = 512
    labels: str = "judge"
    replay: float = 0.5
    updates: int = 60
    batch_size: int = 64
    learning_rate: float = 5e-4
    held_out: float = 0.2

    def __post_init__(self) -> None:
        for name in ("every", "rows", "updates", "batch_size"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"prm_refresh {name}: got {value!r}, expected a whole number of at least 1")
        if self.labels not in LABELS:
            raise ValueError(f"prm_refresh labels: got {self.labels!r}, expected one of {', '.join(LABELS)}")
        if not 0.0 <= self.replay < 1.0:
            raise ValueError(f"prm_refresh replay: got {self.replay}, expected a share from 0 to below 1")
        if not 0.0 < self.held_out < 1.0:
            raise ValueError(f"prm_refresh held_out: got {self.held_out}, expected a share above 0 and below 1")
        if not self.learning_rate > 0:
            raise ValueError(f"prm_refresh learning_rate: got {self.learning_rate}, expected more than 0")

    @property
    def drop_after_error(self) -> bool:
        """Whether steps after the first error are left out; a value function needs them."""
        return self.labels != "outcome"


class PRMRefresher:
    """Collects rollouts, and refreshes the scorer's own weights on request.

    Every rank calls all methods alike, with the same rollouts. Rank 0 labels; all ranks train together and end with
    equal weights.

    Args:
        scorer: a PRM from ``load_prm`` with a head and with its weights in this process.
        folder: where labelled rows and versions of the weights are kept; None: nothing is kept, and nothing can be
            resumed.
        first_rows: stepwise rows the PRM was first trained on.
        seed: decides the problems held out, the labels and the order of the rows.

    Attributes:
        version: 0 = the PRM as it was loaded; each swap adds 1.

    Raises:
        ValueError: the scorer's weights cannot be trained here (``refuse_unteachable``).
    """

    def __init__(
        self,
        scorer: PRMScorer,
        labeller: Labeller,
        settings: RefreshSettings,
        *,
        folder: Path | None = None,
        first_rows: Sequence[Mapping[str, Any]] = (),
        seed: int = 0,
    ) -> None:
        refuse_unteachable(scorer)
        self.scorer, self.labeller, self.settings, self.seed = scorer, labeller, settings, seed
        self.first_rows = [dict(row) for row in first_rows if not self.is_held_out(row["prompt"])]
        self.folder = folder
        self.versions = Versions(scorer, folder)
        self._fresh: dict[tuple[str, tuple[str, ...]], FreshRollout] = {}
        self._own: dict[int, list[dict[str, Any]]] = {}  # the rows that earlier refreshes trained on, by update

    @property
    def version(self) -> int:
        return self.versions.newest

    def is_held_out(self, prompt: str) -> bool:
        """Whether rollouts of this problem are only measured on; it is the same at every refresh."""
        return zlib.crc32(f"{self.seed}|{prompt}".encode()) < self.settings.held_out * 2**32

    def collect(self, rollouts: Sequence[FreshRollout]) -> None:
        """Add these rollouts; only the newest distinct ones are kept."""
        for one in rollouts:
            if one.steps:
                self._fresh.pop((one.prompt, one.steps), None)
                self._fresh[one.prompt, one.steps] = one
        for old in list(self._fresh)[: max(0, len(self._fresh) - self.settings.rows)]:
            del self._fresh[old]

    def due(self, update: int) -> bool:
        """Whether a refresh belongs after this policy update."""
        return update > 0 and update % self.settings.every == 0

    def refresh(self, update: int) -> dict[str, float]:
        """Label, measure, train, measure again, and keep or restore the weights; the rollouts are then used up.

        Returns:
            the numbers of ``rows`` trained on, of ``fresh`` and ``held_out`` ones, ``rejected``, ``f1_before``,
            ``f1_after``, ``auroc_before``, ``auroc_after`` and ``chance_f1`` on the held-out ones, ``swapped`` (0 or
            1), ``version``, ``seconds`` and of these ``label_seconds``. Without enough labels only some of these,
            and ``skipped`` = 1: the PRM stays, and the rollouts wait for the next refresh.
        """
        start, ranks = time.perf_counter(), Ranks()
        rows = ranks.from_first(lambda: self._labelled(update))
        labelled_at = time.perf_counter()
        fresh, held_out = self._split(rows)
        facts = {"fresh": len(fresh), "held_out": len(held_out), "rejected": len(self._fresh) - len(rows)}
        if not fresh or len(held_out) < FEWEST_HELD_OUT:
            logger.warning(
                "PRM refresh at update %d left out: %d labelled rollouts to train on and %d held out, expected at "
                "least 1 and %d",
                *(update, len(fresh), len(held_out), FEWEST_HELD_OUT),
            )
            return self._told({**facts, "skipped": 1.0}, start, labelled_at, update, ranks)
        replayed = self._replayed(len(fresh), update)
        facts |= self._learn(fresh, replayed, held_out, update, ranks)
        self._own[update] = fresh
        self._fresh.clear()
        self._write(update, fresh, held_out, ranks)
        return self._told({"rows": len(fresh) + len(replayed), **facts}, start, labelled_at, update, ranks)

    def _learn(
        self, fresh: list[dict], replayed: list[dict], held_out: list[dict], update: int, ranks: Ranks
    ) -> dict[str, float]:
        """The metrics before and after, and whether the new weights stay."""
        settings = self.settings
        before = step_quality(self.scorer, held_out, drop_after_error=settings.drop_after_error)
        old = self.versions.weights()
        go_on_learning(
            self.scorer,
            [*fresh, *replayed],
            updates=settings.updates,
            batch_size=settings.batch_size,
            learning_rate=settings.learning_rate,
            seed=unit_seed(self.seed, "refresh", update),
            drop_after_error=settings.drop_after_error,
            ranks=ranks,
        )
        after = step_quality(self.scorer, held_out, drop_after_error=settings.drop_after_error)
        swapped = ranks.from_first(lambda: not_worse(before, after, metric_of(held_out, settings)))
        if swapped:
            self.versions.add(old)
        else:
            self.versions.put(old)
        return {
            **{f"{name}_before": before[name] for name in ("f1", "auroc")},
            **{f"{name}_after": after[name] for name in ("f1", "auroc")},
            "chance_f1": before["chance_f1"],
            "swapped": float(swapped),
        }

    def _labelled(self, update: int) -> list[dict[str, Any]]:
        """Labelled stepwise rows of the fresh rollouts; none if the source of labels cannot be reached."""
        fresh = list(self._fresh.values())
        try:
            labels = self.labeller.labels(fresh, unit_seed(self.seed, "labels", update)) if fresh else []
        except EndpointError as error:
            logger.warning("PRM refresh at update %d: %s labels: %s", update, self.settings.labels, error)
            return []
        pairs = zip(fresh, labels, strict=True)
        return [labels.row(one.prompt, list(one.steps)) for one, labels in pairs if isinstance(labels, StepLabels)]

    def _split(self, rows: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """(training rows, held-out rows)"""
        held_out = [row for row in rows if self.is_held_out(row["prompt"])]
        return [row for row in rows if not self.is_held_out(row["prompt"])], held_out

    def _replayed(self, fresh: int, update: int) -> list[dict[str, Any]]:
        """Older rows, drawn at random, that make up the share ``replay`` of all rows (all of them, if too few)."""
        pool = [*self.first_rows, *(row for rows in self._own.values() for row in rows)]
        wanted = round(fresh * self.settings.replay / (1 - self.settings.replay))
        return random.Random(f"replay {self.seed} {update}").sample(pool, min(wanted, len(pool)))

    def _told(
        self, facts: dict[str, float], start: float, labelled_at: float, update: int, ranks: Ranks
    ) -> dict[str, float]:
        now = time.perf_counter()
        told = {**facts, "version": self.version, "seconds": now - start, "label_seconds": labelled_at - start}
        if self.folder is not None and ranks.rank == 0:
            self.folder.mkdir(parents=True, exist_ok=True)
            with (self.folder / "refreshes.jsonl").open("a") as file:
                kept = {name: None if math.isnan(value) else round(value, 4) for name, value in told.items()}
                file.write(json.dumps({"update": update, **kept}) + "\n")
        return told

    # What is kept on disk

    def _write(self, update: int, fresh: list[dict], held_out: list[dict], ranks: Ranks) -> None:
        if self.folder is not None and ranks.rank == 0:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_rows(self._file("rows", update), fresh)
            write_rows(self._file("held_out", update), held_out)

    def _file(self, name: str, update: int) -> Path:
        return self.folder / f"{name}_{update:06d}.jsonl"

    def state(self) -> dict[str, Any]:
        """The state that a checkpoint has to hold, for ``json``; weights and labelled rows are in ``folder``."""
        return {
            "version": self.version,
            "refreshed": list(self._own),
            "fresh": [vars(one) for one in self._fresh.values()],
        }

    def load(self, state: Mapping[str, Any], update: int) -> None:
        """Restore ``state`` as it was after this policy update.

        Raises:
            ValueError: the weights or rows that it names are not in ``folder``.
        """
        ranks = Ranks()
        self._own = ranks.from_first(lambda: {then: self._rows_of(then) for then in state["refreshed"]})
        self.versions.load(state["version"])
        self._fresh = {}
        self.collect([FreshRollout(**{**one, "steps": tuple(one["steps"])}) for one in state["fresh"]])
        if ranks.rank == 0 and self.folder is not None and (log := self.folder / "refreshes.jsonl").exists():
            write_json_lines(log, [row for row in read_json_lines(log, may_be_cut=True) if row["update"] <= update])

    def _rows_of(self, update: int) -> list[dict[str, Any]]:
        if self.folder is None or not self._file("rows", update).is_file():
            raise ValueError(
                f"PRM refresh: got no labelled rows of update {update} in {self.folder}, expected them there"
            )
        return [row for _, row in read_all(self._file("rows", update))]


def metric_of(held_out: Sequence[Mapping[str, Any]], settings: RefreshSettings) -> str:
    """The metric that decides: ``f1``, or ``auroc`` if the held-out rows have too few of a kind or no first errors."""
    return "auroc" if settings.labels == "outcome" else stopping_metric(held_out)


def not_worse(before: Mapping[str, float], after: Mapping[str, float], metric: str) -> bool:
    """Whether the new weights are kept: ``metric`` has not fallen. If it cannot be measured, the old ones stay."""
    return after[metric] >= before[metric]
