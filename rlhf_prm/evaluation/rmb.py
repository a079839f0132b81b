"""RMB (arXiv 2410.09893), best-of-n part: does the winner outscore every loser?"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf_prm.evaluation.aggregation import solution_score
from rlhf_prm.evaluation.rows import read_items, text, texts
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
    kind = "RMB's best-of-n part (conversation_input, bon_best, loser_list) or of prompt, winner, losers"
    return read_items(path, _item, kind)


def _item(row: dict[str, Any]) -> BestOfNItem:
    if "bon_best" in row:
        try:
            turns = row["conversation_input"]
            prompt = turns if isinstance(turns, str) else "\n\n".join(turn["content"] for turn in turns)
            losers = [loser["answer"] for loser in row["loser_list"]]
            winner, category = row["bon_best"]["answer"], _category(row.get("category_path", "all"))
        except (KeyError, TypeError) as error:
            raise ValueError(f"{type(error).__name__} {error}") from error
        row = {"prompt": prompt, "winner": winner, "losers": losers, "category": category}
    category = row.get("category", "all")
    if not isinstance(category, str):
        raise ValueError(f"category: got {category!r:.60}, expected a text")
    return BestOfNItem(text(row, "prompt"), text(row, "winner"), texts(row, "losers"), category)


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
