"""RMB (arXiv 2410.09893), best-of-n part: does the winner outscore every loser?"""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf_prm.evaluation.aggregation import solution_score
from rlhf_prm.prm.protocol import StepScorer
from rlhf_prm.steps import StepSplitter


@dataclass(frozen=True)
class BestOfNItem:
    """A prompt with one answer that is better than each of the others."""

    prompt: str
    winner: str
    losers: list[str]
    category: str = "all"


def load_rmb(path: str | Path) -> list[BestOfNItem]:
    """RMB's best-of-n files (``conversation_input``, ``bon_best``, ``loser_list``), a JSON list or JSONL.

    Plain rows {"prompt", "winner", "losers"} are read too. Raises ``ValueError`` for anything else.
    """
    text = Path(path).read_text()
    rows = (
        json.loads(text) if text.lstrip().startswith("[") else [json.loads(x) for x in text.splitlines() if x.strip()]
    )
    return [_item(row, f"{path}, row {number}") for number, row in enumerate(rows, start=1)]


def _item(row: dict[str, Any], where: str) -> BestOfNItem:
    try:
        if "bon_best" in row:
            turns = row["conversation_input"]
            prompt = turns if isinstance(turns, str) else "\n\n".join(turn["content"] for turn in turns)
            losers = [loser["answer"] for loser in row["loser_list"]]
            return BestOfNItem(prompt, row["bon_best"]["answer"], losers, _category(row.get("category_path", "all")))
        return BestOfNItem(row["prompt"], row["winner"], list(row["losers"]), row.get("category", "all"))
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{where}: {error!r}, expected RMB's conversation_input, bon_best and loser_list, or prompt, winner, losers"
        ) from error


def _category(path: str | list[str]) -> str:
    return path if isinstance(path, str) else "/".join(path)


def rmb(
    scorer: StepScorer, items: Sequence[BestOfNItem], how: str = "product", splitter: StepSplitter | None = None
) -> dict[str, dict[str, float]]:
    """Best-of-n accuracy per category and over ``"all"`` items: an item counts iff the winner outscores every loser.

    Solutions are split into steps and their scores aggregated by ``how``; a tie does not outscore.
    """
    splitter = splitter or StepSplitter()
    texts = [(item.prompt, text) for item in items for text in (item.winner, *item.losers)]
    rows = iter(scorer.score([prompt for prompt, _ in texts], [splitter.split(text) for _, text in texts]))
    wins: dict[str, list[bool]] = defaultdict(list)
    for item in items:
        winner, *losers = (solution_score(next(rows), how) for _ in range(1 + len(item.losers)))
        for name in {item.category, "all"}:
            wins[name].append(all(winner > loser for loser in losers))
    return {name: {"accuracy": sum(won) / len(won), "items": len(won)} for name, won in sorted(wins.items())}
