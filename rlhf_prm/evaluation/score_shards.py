"""``rlhf-prm score`` on several machines: shards of rows are written atomically and joined in order at the end."""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path

from rlhf_prm.evaluation.score_rows import Rollout, scored_rows
from rlhf_prm.files import read_json, whole, write_json, write_json_lines
from rlhf_prm.prm.protocol import StepScorer
from rlhf_prm.ray_shards import Work, run_shards


class ScoreShards:
    """The shards of one output, in ``OUTPUT.shards/``.

    Args:
        read: () → the rollouts, in the order of the input.
        make_scorer: () → the scorer, in a worker.
        settings: everything that the scores depend on; shards made with other settings are refused.
        shard_size: rows per shard; chunk: rows that are scored as one call.

    Raises:
        ValueError: the folder holds shards of other settings.
    """

    def __init__(
        self,
        output: Path,
        read: Callable[[], Iterable[Rollout]],
        make_scorer: Callable[[], StepScorer],
        settings: dict,
        shard_size: int,
        chunk: int,
    ) -> None:
        self.output, self.folder = output, output.with_name(output.name + ".shards")
        self.read, self.make_scorer, self.shard_size, self.chunk = read, make_scorer, shard_size, chunk
        text = json.dumps(settings | {"shard_size": shard_size}, sort_keys=True, default=str)
        self.hash = hashlib.sha256(text.encode()).hexdigest()[:16]

    def run(self, total: int, *, workers: int, gpus_per_worker: float, done: Callable[[int], None]) -> None:
        """Score the remaining rows of ``total`` and join the shards; ``done`` is called with numbers of new rows."""
        self._open()
        shards = range(-(-total // self.shard_size))
        left = [number for number in shards if not self.path(number).exists()]
        done(total - sum(min(self.shard_size, total - number * self.shard_size) for number in left))
        if left:
            for _, rows in run_shards(self.work, left, workers=workers, gpus_per_worker=gpus_per_worker):
                done(rows)
        with whole(self.output) as partial, partial.open("wb") as file:
            for number in shards:
                with self.path(number).open("rb") as shard:
                    shutil.copyfileobj(shard, file)
        shutil.rmtree(self.folder)

    def work(self) -> Work:
        """The function that a worker runs for a shard."""
        scorer = self.make_scorer()

        def score(number: int) -> int:
            first = number * self.shard_size
            rows = islice(self.read(), first, first + self.shard_size)
            return write_json_lines(self.path(number), scored_rows(rows, scorer, self.chunk))

        return score

    def path(self, number: int) -> Path:
        """The file of a shard, which exists once the shard is finished."""
        return self.folder / f"{number:05d}.jsonl"

    def _open(self) -> None:
        manifest = self.folder / "manifest.json"
        self.folder.mkdir(parents=True, exist_ok=True)
        if not manifest.exists():
            write_json(manifest, {"hash": self.hash})
        elif read_json(manifest).get("hash") != self.hash:
            raise ValueError(
                f"{self.folder} holds shards of another input or of other settings; use those again, delete it, or "
                "write to another --output"
            )
