"""RMB (arXiv 2410.09893): the better answer must outscore the worse one, or the winner every loser.

Two sets are published: best-of-n (a winner and several losers) and pairs (chosen, rejected), each as a folder of one
file for each category.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rlhf_prm.evaluation.aggregation import solution_score
from rlhf_prm.evaluation.processbench import unscorable
from rlhf_prm.evaluation.rows import read_items, text, texts
from rlhf_prm.prm.protocol import StepScorer
from rlhf_prm.step_data import SUFFIXES
from rlhf_prm.steps import StepSplitter

BEST_OF_N, PAIRWISE = "best-of-n", "pairwise"


@dataclass(frozen=True)
class BestOfNItem:
    """A prompt with one answer that is better than each of the others; ``kind`` is the set it belongs to."""

    prompt: str
    winner: str
    losers: list[str]
    category: str = "all"
    kind: str = BEST_OF_N


def load_rmb(path: str | Path) -> list[BestOfNItem]:
    """RMB's files, each a JSON list or JSONL, or a folder of them, searched recursively.

    Read are best-of-n rows (``conversation_input``, ``bon_best``, ``loser_list``), pairs (``conversation_input``,
    ``chosen``, ``reject``), and plain rows {"prompt", "winner", "losers"} or {"prompt", "chosen", "rejected"}. In a
    folder a row without a category has that of its file's path. Raises ``ValueError`` for anything else.
    """
    path = Path(path)
    if not path.is_dir():
        return _file(path)
    files = sorted(found for found in path.rglob("*") if found.name.endswith(SUFFIXES))
    if not files:
        raise ValueError(f"no {', '.join(SUFFIXES)} file in the folder {path}, expected RMB's, one for each category")
    items = []
    for file in files:
        place = file.relative_to(path).as_posix().rsplit(".", 1)[0]
        items += [replace(item, category=place) if item.category == "all" else item for item in _file(file)]
    return items


def _file(path: Path) -> list[BestOfNItem]:
    kind = (
        "RMB's best-of-n part (conversation_input, bon_best, loser_list), its pairs (conversation_input, chosen, "
        "reject) or of prompt, winner, losers, or prompt, chosen, rejected"
    )
    return read_items(path, _item, kind)


def _item(row: dict[str, Any]) -> BestOfNItem:
    kind = PAIRWISE if "chosen" in row else BEST_OF_N
    if "conversation_input" in row:
        try:
            turns = row["conversation_input"]
            prompt = turns if isinstance(turns, str) else "\n\n".join(turn["content"] for turn in turns)
            worse = [row["reject"]] if kind == PAIRWISE else row["loser_list"]
            better = row["chosen"] if kind == PAIRWISE else row["bon_best"]
            losers, winner = [loser["answer"] for loser in worse], better["answer"]
            category = _category(row.get("category_path", "all"))
        except (KeyError, TypeError) as error:
            raise ValueError(f"{type(error).__name__} {error}") from error
        row = {"prompt": prompt, "winner": winner, "losers": losers, "category": category}
    elif kind == PAIRWISE:
        row = {**row, "winner": row["chosen"], "losers": [text(row, "rejected")]}
    category = row.get("category", "all")
    if not isinstance(category, str):
        raise ValueError(f"category: got {category!r:.60}, expected a text")
    return BestOfNItem(text(row, "prompt"), text(row, "winner"), texts(row, "losers"), category, kind)


def _category(path: str | list[str]) -> str:
    return path if isinstance(path, str) else "/".join(path)


def rmb(
    scorer: StepScorer, items: Sequence[BestOfNItem], how: str = "product", splitter: StepSplitter | None = None
) -> dict[str, dict[str, float]]:
    """Accuracy per category and over all items: an item counts iff the winner outscores every loser.

    A category of several levels ("Helpfulness/Chat/Discussion") has a row for each of them. Where a file or folder
    holds both sets there are two rows over all, ``all best-of-n`` and ``all pairwise``: a pair is easier than a list.
    Solutions are split into steps and their scores aggregated by ``how``; a tie does not count. Nor does an item that
    has an answer with a step without a score; ``unscorable`` counts such items.
    """
    splitter = splitter or StepSplitter()
    texts = [(item.prompt, text) for item in items for text in (item.winner, *item.losers)]
    rows = iter(scorer.score([prompt for prompt, _ in texts], [splitter.split(text) for _, text in texts]))
    both = len({item.kind for item in items}) > 1
    wins: dict[str, list[bool]] = defaultdict(list)
    without_score: dict[str, int] = defaultdict(int)
    for item in items:
        answers = [next(rows) for _ in range(1 + len(item.losers))]
        unscored = unscorable(answers) > 0
        winner, *losers = (solution_score(answer, how) for answer in answers)
        levels = item.category.split("/")
        overall = f"all {item.kind}" if both else "all"
        for name in {"/".join(levels[: depth + 1]) for depth in range(len(levels))} - {"all"} | {overall}:
            wins[name].append(not unscored and all(winner > loser for loser in losers))
            without_score[name] += unscored
    return {
        name: {"accuracy": sum(won) / len(won), "items": len(won), "unscorable": without_score[name]}
        for name, won in sorted(wins.items())
    }
