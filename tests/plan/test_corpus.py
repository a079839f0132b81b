"""The paper calculation of a corpus: by hand on a tiny model, and as docs/scaling.md has it."""

from pathlib import Path

import pytest

from rlhf_prm.plan.corpus import Corpus, stages, table
from rlhf_prm.plan.shapes import ModelShape
from rlhf_prm.plan.timing import Efficiency, Hardware

TINY = ModelShape(hidden=8, layers=2, heads=2, kv_heads=1, intermediate=16, vocab=10, tied=False)
FAST_MEMORY = Hardware(memory_bytes=10**9, flops=1e6, memory_bandwidth=1e15, link_bandwidth=1e3)


def test_tokens_and_seconds_by_hand():
    """3 problems of 10 tokens × 2 solutions of 20 × 4 steps × 5 completions of 10; layers of 608 parameters."""
    corpus = Corpus(3, 2, 5, 4, prompt_tokens=10, completion_tokens=20, policy=TINY, prm=TINY)
    sampled, completed, scored, trained = stages(corpus, FAST_MEMORY, Efficiency(1.0, 1.0, 1.0, 1.0))
    assert [one.tokens for one in (sampled, completed, scored, trained)] == [120, 1200, 180, 180]
    linear, attention = 2 * (2 * 608 + 80), 2 * 2 * 8  # attention: per token of the text's length
    assert sampled.gpu_seconds == pytest.approx(6 * (10 * linear + 20 * (linear + 30 * attention)) / 1e6)
    # A completion goes on from 20 tokens for 10; of five, one reads the prefix.
    assert completed.gpu_seconds == pytest.approx(120 * (20 / 5 * linear + 10 * (linear + 30 * attention)) / 1e6)
    assert scored.gpu_seconds == pytest.approx(180 * (2 * 2 * 608 + 30 * attention) / 1e6)
    assert trained.gpu_seconds == pytest.approx(180 * 4 * (linear + 30 * attention) / 1e6)


def test_the_table_of_the_docs_is_what_the_code_prints():
    docs = (Path(__file__).parents[2] / "docs" / "scaling.md").read_text()
    assert table() in docs
