"""Compare an answer with a gold answer."""

from latex2sympy2_extended import NormalizationConfig
from math_verify import LatexExtractionConfig, parse, verify


def judge(answer: str, gold: str) -> str:
    """ "correct", "incorrect", "unparseable" or "bad_gold"."""
    if answer.strip() == gold.strip():
        return "correct"
    config = [LatexExtractionConfig(normalization_config=NormalizationConfig(units=True), boxed_match_priority=0)]
    gold_parsed = parse(f"\\boxed{{{gold}}}", parsing_timeout=None)
    if not gold_parsed:
        return "bad_gold"
    parsed = parse(f"\\boxed{{{answer}}}", extraction_config=config, parsing_timeout=None)
    if not parsed:
        return "unparseable"
    return "correct" if verify(gold_parsed, parsed, timeout_seconds=None) else "incorrect"
