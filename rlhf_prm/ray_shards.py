"""Runs shards of work on the machines of a Ray cluster (extra ``ray``), with Ray Data. RL does not use it.

Each worker builds its models once and then does one shard after the other, whose results it writes itself: all
machines must see the same folder. When a worker dies, Ray starts another, and the shard it was at is done again; so a
shard's work must either continue where it was stopped or start from scratch.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

Work = Callable[[int], int]  # the number of a shard → how many rows are done


def run_shards(
    make: Callable[[], Work], shards: Sequence[int], *, workers: int, gpus_per_worker: float = 0.0
) -> Iterator[tuple[int, int]]:
    """(shard, rows done) of every shard, as they finish, in no order.

    Joins the cluster that ``RAY_ADDRESS`` names, or starts one on this machine.

    Args:
        make: called once in each worker; picklable.
        workers: processes; each has one CPU and ``gpus_per_worker`` GPUs to itself.

    Raises:
        ValueError: fewer than one worker, or Ray is not installed.
    """
    if workers < 1:
        raise ValueError(f"workers: got {workers}, expected 1 or more")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ValueError(f"runner 'ray' needs Ray: pip install 'rlhf-prm[ray]' ({error})") from error
    if not ray.is_initialized():
        ray.init(log_to_driver=False)
    numbers = ray.data.from_items([{"shard": number} for number in shards], override_num_blocks=len(shards))
    done = numbers.map_batches(
        _Worker,
        fn_constructor_args=(make,),
        batch_size=1,
        concurrency=min(workers, len(shards)),
        num_cpus=1,
        num_gpus=gpus_per_worker,
        max_restarts=-1,
        max_task_retries=-1,
    )
    for row in done.iter_rows():
        yield int(row["shard"]), int(row["rows"])


class _Worker:
    """One of Ray Data's actors."""

    def __init__(self, make: Callable[[], Work]) -> None:
        self.work = make()

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {"shard": batch["shard"], "rows": [self.work(int(number)) for number in batch["shard"]]}
