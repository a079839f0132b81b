"""The batched scorer against one rollout at a time, and what it does with rollouts that cannot be scored."""

import math

import naive
import prm_checkpoints
import pytest
import torch
from prm_checkpoints import qwen_prm
from prm_rollouts import ragged

from rlhf_prm.prm import StepScorer, load_prm


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return qwen_prm(tmp_path_factory.mktemp("qwen"))


@pytest.fixture(scope="module")
def scorer(folder):
    return load_prm(folder)


def rendered(scorer) -> list:
    return [scorer.family.rendered(scorer.texts, p, s) for p, s in zip(*ragged(), strict=True)]


def test_is_a_step_scorer(scorer):
    assert isinstance(scorer, StepScorer)


@pytest.mark.parametrize("budget", [1, 150, 16384])
def test_equals_the_naive_reading_whatever_the_batch(folder, scorer, budget):
    problems, steps = ragged()
    expected = [naive.qwen_prm(folder, p, s) for p, s in zip(problems, steps, strict=True)]
    scorer.max_batch_tokens = budget
    for order in (range(6), (5, 3, 1, 0, 2, 4), (4,)):
        got = scorer.score([problems[i] for i in order], [steps[i] for i in order])
        for scores, i in zip(got, order, strict=True):
            assert scores == pytest.approx(expected[i], abs=1e-5)
    spread = [score for scores in expected for score in scores]
    assert max(spread) - min(spread) > 0.1  # the model tells steps apart, so the test can fail


def test_no_rollouts_and_no_steps(scorer):
    assert scorer.score([], []) == []
    assert scorer.score(["What is 2 + 3?", "And 3 + 4?"], [[], ["7"]])[0] == []
    with pytest.raises(ValueError, match="2 problems and 1 lists"):
        scorer.score(["a", "b"], [["c"]])


def test_steps_past_the_context_are_nan_counted_and_warned_about(folder):
    problems, steps = ragged()
    whole = load_prm(folder).score(problems, steps)
    lengths = [len(r.ids) for r in rendered(load_prm(folder))]
    short = load_prm(folder, max_length=max(lengths) - 1)
    with pytest.warns(UserWarning, match=r"1 step\(s\) of 1 rollout\(s\) lie past the PRM's context"):
        cut = short.score(problems, steps)
    longest = lengths.index(max(lengths))
    assert math.isnan(cut[longest][-1])
    cut[longest][-1] = whole[longest][-1]
    assert [pytest.approx(row, abs=1e-5) for row in whole] == cut
    assert short.stats.unscored_steps == 1
    with pytest.warns(UserWarning, match="lie past"):
        assert all(math.isnan(s) for row in load_prm(folder, max_length=20).score(problems, steps) for s in row)


def test_nan_stays_with_the_rollout_it_came_from(folder):
    problems, steps = ragged()
    whole = load_prm(folder).score(problems, steps)
    scorer = load_prm(folder)
    (bad_token,) = {*scorer.texts.plain_ids([problems[4]])[0]} & {*scorer.texts.plain_ids(["ä"])[0][1:]}
    with torch.no_grad():
        scorer.placement.reader.body.embed_tokens.weight[bad_token] = math.nan
    with pytest.warns(UserWarning, match=r"NaN or infinity for 1 rollout\(s\): problem 'Ein Zug"):
        scores = scorer.score(problems, steps)
    assert all(math.isnan(score) for score in scores[4]) and scorer.stats.non_finite_steps == 5
    for i in (0, 1, 2, 3, 5):
        assert scores[i] == pytest.approx(whole[i], abs=1e-5)
    with torch.no_grad():
        scorer.placement.reader.head[2].weight[:] = math.nan
    with pytest.raises(ValueError, match="all 5 rollouts"):
        scorer.score(problems, steps)


def test_stats_count_the_work(folder):
    scorer = load_prm(folder, share_prefix=False)
    problems, steps = ragged()
    scorer.score(problems, steps)
    stats = scorer.stats.taken()
    lengths = {tuple(r.ids) for r in rendered(scorer)}
    assert (stats["calls"], stats["rollouts"], stats["duplicates"], stats["forwards"]) == (1, 6, 1, 1)
    assert stats["shared_prefixes"] == 0
    assert stats["tokens"] == sum(map(len, lengths))
    assert stats["padded_tokens"] == max(map(len, lengths)) * len(lengths)
    assert 0 < stats["seconds"] < 60
    assert scorer.stats.taken()["calls"] == 0


def test_offload_scores_alike_and_comes_home(folder):
    problems, steps = ragged()
    scorer = load_prm(folder, placement="offload")
    before = {name: tensor.data_ptr() for name, tensor in scorer.placement.reader.state_dict().items()}
    assert scorer.score(problems, steps) == load_prm(folder).score(problems, steps)
    assert {name: tensor.data_ptr() for name, tensor in scorer.placement.reader.state_dict().items()} == before
    with scorer.placement.resident() as reader:
        moved = {name: tensor.data_ptr() for name, tensor in reader.state_dict().items()}
        assert all(moved[name] != before[name] for name in before)


def test_an_unknown_placement_is_refused(folder):
    with pytest.raises(ValueError, match="placement='gpu'"):
        load_prm(folder, placement="gpu")


@pytest.mark.parametrize("budget", [60, 1024])
@pytest.mark.parametrize("name", ["qwen_prm", "math_shepherd", "rlhflow", "skywork", "token_classification"])
def test_a_shared_prompt_changes_no_score(tmp_path, name, budget):
    folder = getattr(prm_checkpoints, name)(tmp_path)
    told = {"family": "skywork_prm" if name == "skywork" else name, "max_batch_tokens": budget}
    alone, shared = (load_prm(folder, share_prefix=share, **told) for share in (False, True))
    problems, steps = ragged()
    assert shared.score(problems, steps) == [pytest.approx(row, abs=1e-5) for row in alone.score(problems, steps)]
    assert shared.stats.shared_prefixes == 2  # of two problems there is more than one rollout
    assert shared.stats.tokens < alone.stats.tokens


def test_prompts_are_shared_only_where_it_pays(folder):
    scorer = load_prm(folder)
    scorer.score(["long " * 60] * 4, [[f"{i}", "so " * i] for i in range(4)])
    assert scorer.stats.taken()["shared_prefixes"] == 1
    scorer.score(["short"] * 2, [[f"{i} " * 60] for i in range(2)])
    assert scorer.stats.taken()["shared_prefixes"] == 0
    with pytest.raises(ValueError, match="share_prefix='yes'"):
        load_prm(folder, share_prefix="yes")


def test_packed_rows_change_no_score(folder):
    """What flash attention gets: one row, positions that begin anew. Here the other attention masks accordingly."""
    problems, steps = ragged()
    scorer = load_prm(folder, share_prefix=False)
    assert not scorer.packs  # no flash attention on a CPU
    expected = scorer.score(problems, steps)
    scorer.packs = True
    scorer.stats.taken()
    assert scorer.score(problems, steps) == [pytest.approx(row, abs=1e-5) for row in expected]
    assert scorer.stats.tokens == scorer.stats.padded_tokens


def test_sliding_windows_are_not_handed_on(tmp_path):
    folder = prm_checkpoints.math_shepherd(tmp_path, sliding_window=32)
    scorer = load_prm(folder, "math_shepherd", share_prefix=True)
    assert math.isinf(scorer.sharing_from)
    problems, steps = ragged()
    expected = [naive.math_shepherd(folder, p, s) for p, s in zip(problems, steps, strict=True)]
    assert scorer.score(problems, steps) == [pytest.approx(row, abs=1e-5) for row in expected]
