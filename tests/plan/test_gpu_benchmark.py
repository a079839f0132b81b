"""benchmarks/gpu.py, rehearsed on a CPU at tiny sizes: every part runs, and the driver keeps what is finished."""

import json
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="the rehearsal of a machine without a GPU")


@pytest.fixture(scope="module")
def gpu():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        import gpu
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))
    return gpu


@pytest.fixture(scope="module")
def tiny(gpu):
    return gpu.SIZES["tiny"]


def test_scoring_compares_the_same_scores(gpu, tiny):
    found = gpu.scoring(tiny)
    assert found["rollouts"] == 16 and found["largest_score_gap"] < 1e-5
    ours, loop = found["ways"]["ours"], found["ways"]["padded_loop"]
    assert found["speedup"] == pytest.approx(loop["seconds"] / ours["seconds"])
    layers = 2 * tiny.prm.layers * tiny.prm.layer_parameters * found["tokens"]
    assert ours["share_of_matmul"] == pytest.approx(layers / ours["seconds"] / found["matmul_flops"])


def test_float32_weights_move_and_bfloat16_weights_hardly_do(gpu, tiny):
    found = gpu.precision(tiny)
    assert found["float32"]["share_of_weights_moved"]["3"] > 0.99
    assert found["bfloat16"]["share_of_weights_moved"]["3"] < 0.1


@pytest.mark.slow  # eight updates
def test_memory_is_set_beside_the_plan_for_each_setting(gpu, tiny):
    found = gpu.memory(tiny)
    assert len(found) == 4
    for one in found.values():
        assert set(one["measured"]) == set(one["planned"]) == {"generate", "score", "train"}
        assert one["planned"]["score"] >= 16 * tiny.policy.parameters + 2 * tiny.prm.body_parameters


def test_dense_updates_are_dense_and_outcome_only_ones_are_not(gpu, tiny):
    found = gpu.dense(tiny)
    assert found["dense"]["prm/tokens"] > 0 and "prm/tokens" not in found["outcome"]
    for name in ("outcome", "dense"):  # random text: full length, cut into steps
        assert found[name]["completions/mean_length"] == 8 and len(found[name]["update_seconds"]) == 4
    assert found["extra_seconds"] == pytest.approx(
        sorted(found["dense"]["update_seconds"][1:])[1] - sorted(found["outcome"]["update_seconds"][1:])[1]
    )


def test_updates_of_the_recipes_batch(gpu, tiny):
    found = gpu.updates(tiny)
    assert len(found["update_seconds"]) == 3 and found["prm/duplicates"] == 0
    assert gpu.SIZES["real"].prompts * gpu.GENERATIONS == 128  # as the recipe says: 8 × 16
    assert found["process/num_steps/mean"] > 1


def test_the_real_size_has_the_published_shapes(gpu):
    real = gpu.SIZES["real"]
    assert (real.policy.parameters, real.prm.body_parameters) == (1543714304, 7615616512 - 152064 * 3584)


def test_words_are_tokens_and_come_back(gpu):
    from gpu_models import SPECIAL, words_tokenizer

    tokenizer = words_tokenizer(512)
    ids = list(range(len(SPECIAL), 512))
    text = tokenizer.decode(ids)
    assert text.count("\n\n") == len([i for i in ids if i % 40 == 0])
    assert tokenizer(text, add_special_tokens=False)["input_ids"] == ids


def test_finished_parts_are_kept_and_failed_ones_run_again(gpu, tmp_path, monkeypatch):
    asked = []

    def run_part(name, size, limit):
        asked.append(name)
        return {"wall_seconds": 1.0} | ({"error": ["out of memory"]} if asked == ["scoring", "dense"] else {"value": 1})

    monkeypatch.setattr(gpu, "run_part", run_part)
    path = tmp_path / "results" / "gpu.json"
    assert gpu.run_all(["scoring", "dense"], "tiny", path, 60.0) is False
    assert json.loads(path.read_text())["parts"]["dense"]["error"] == ["out of memory"]
    assert gpu.run_all(["scoring", "dense", "memory"], "tiny", path, 60.0) is True
    assert asked == ["scoring", "dense", "dense", "memory"]
    assert json.loads(path.read_text())["card"] == "no GPU"


def test_results_of_another_card_are_not_mixed_in(gpu, tmp_path):
    path = tmp_path / "gpu.json"
    path.write_text(json.dumps(gpu.about("tiny") | {"card": "another", "parts": {}}))
    with pytest.raises(ValueError, match="card 'another' there, 'no GPU' here"):
        gpu.recorded(path, "tiny")


@pytest.mark.slow  # a second process that imports everything
def test_a_part_in_its_own_process_and_one_that_takes_too_long(gpu):
    assert gpu.run_part("precision", "tiny", 300.0)["float32"]["seconds"] > 0
    assert gpu.run_part("precision", "tiny", 0.1)["error"] == ["not finished after 0 s"]
