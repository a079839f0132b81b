"""A PRM that goes on learning: its gradient, what is kept, put back, held out, replayed and resumed."""

import json
import math
import random

import pytest
import torch

from rlhf_prm.annotate.labellers import ConsensusLabeller, OutcomeLabeller
from rlhf_prm.generation.tasks import Rejection
from rlhf_prm.prm import load_prm
from rlhf_prm.prm.server import ServerScorer
from rlhf_prm.prm_training.along import go_on_learning, refuse_unteachable, step_quality
from rlhf_prm.prm_training.config import PRMConfig
from rlhf_prm.prm_training.refresh import PRMRefresher, RefreshSettings, not_worse
from rlhf_prm.prm_training.trainer import PRMTrainer
from rlhf_prm.step_data import FreshRollout, StepLabels
from tests.prm_training.conftest import stepwise_rows, untrained_prm


@pytest.fixture
def folder(tmp_path):
    return untrained_prm(tmp_path / "prm")


def weights(scorer) -> dict:
    return {name: t.clone() for name, t in scorer.placement.reader.state_dict().items()}


def same(one: dict, other: dict) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def fresh(size: int, seed: int = 0) -> list[FreshRollout]:
    """A step that says "bad" is wrong; many problems, so that some are held out."""
    rng = random.Random(seed)
    return [
        FreshRollout(
            f"add {rng.randint(1, 3)} {rng.randint(1, 3)} {rng.randint(1, 3)} {rng.randint(1, 3)}",
            tuple(f"so {rng.choice(['good', 'good', 'bad'])} {rng.randint(1, 3)}" for _ in range(rng.randint(1, 4))),
            "1",
            float(rng.random() < 0.5),
        )
        for _ in range(size)
    ]


class Words:
    """Labels by the word; every seventh rollout gets none. ``upside_down`` is a labeller that is always mistaken."""

    def __init__(self, upside_down: bool = False) -> None:
        self.upside_down, self.seen = upside_down, []

    def labels(self, rollouts, seed):
        self.seen.append((list(rollouts), seed))
        return [self._one(one) if i % 7 != 3 else Rejection("tie") for i, one in enumerate(rollouts)]

    def _one(self, one):
        labels = [("bad" not in step) != self.upside_down for step in one.steps]
        error = labels.index(False) if False in labels else len(labels) - 1
        return StepLabels(labels[: error + 1], [float(x) for x in labels[: error + 1]], "words")


SETTINGS = RefreshSettings(every=2, rows=120, updates=30, batch_size=16, learning_rate=1e-2, held_out=0.3)


@pytest.mark.parametrize("placement", ["replicate", "offload"])
def test_it_learns_and_the_scores_are_those_of_the_new_weights(folder, placement):
    """From chance to every label right, in the scorer's own weights, without a trace in the global random state."""
    scorer = load_prm(folder, placement=placement)
    refresher = PRMRefresher(scorer, Words(), SETTINGS)
    refresher.collect(fresh(120))
    old, drawn = weights(scorer), torch.get_rng_state()
    told = refresher.refresh(2)
    assert torch.equal(torch.get_rng_state(), drawn)
    assert told["auroc_before"] < 0.8 and told["auroc_after"] > 0.95 and told["f1_after"] > 0.9
    assert (told["swapped"], told["version"], refresher.version) == (1.0, 1, 1)
    assert not same(old, weights(scorer)) and not any(p.requires_grad for p in scorer.placement.reader.parameters())
    good, bad = scorer.score(["add 1", "add 1"], [["so good 1"], ["so bad 1"]])
    assert good[0] > 0.8 and bad[0] < 0.2


def test_placements_end_with_the_same_weights(folder):
    ends = []
    for placement in ("replicate", "offload"):
        scorer = load_prm(folder, placement=placement)
        refresher = PRMRefresher(scorer, Words(), SETTINGS)
        refresher.collect(fresh(120))
        refresher.refresh(2)
        ends.append(weights(scorer))
    assert same(*ends)


def test_one_update_is_prm_trainers(folder, tokenizer, tmp_path):
    """The gradient of the mean cross-entropy over labelled steps: the same weights after one plain update of each."""
    rows = stepwise_rows(12)
    scorer = load_prm(folder, max_batch_tokens=40)  # several micro-batches
    go_on_learning(scorer, list(rows), updates=1, batch_size=12, learning_rate=5e-3, seed=0)
    args = PRMConfig(
        output_dir=str(tmp_path / "out"), max_steps=1, per_device_train_batch_size=12, learning_rate=1e-3,  # 5e-3 / 5
        report_to="none", save_strategy="no", use_cpu=True, disable_tqdm=True, lr_scheduler_type="constant", bf16=False,
    )  # fmt: skip
    trainer = PRMTrainer(str(folder), args, rows)
    trainer.train()
    theirs = trainer.model.state_dict()
    old = load_prm(folder).placement.reader.state_dict()
    for part, name in (("body", "model"), ("head", "score")):
        for key, value in scorer.placement.reader.state_dict().items():
            if key.startswith(f"{part}."):
                wanted = theirs[name + key.removeprefix(part)]
                assert (value - wanted).abs().max() < 2e-5, key
    moved = max((value - old[key]).abs().max().item() for key, value in scorer.placement.reader.state_dict().items())
    assert moved > 5e-4  # Adam's first step is the learning rate


def test_bfloat16_weights_learn_through_float32_copies(folder):
    """At this rate no single update moves a bfloat16 weight of 0.1; ninety of them do."""
    scorer = load_prm(folder, dtype="bfloat16")
    old = weights(scorer)
    go_on_learning(scorer, list(stepwise_rows(64)), updates=90, batch_size=16, learning_rate=5e-5, seed=0)
    moved = [(old[name] != value) & (old[name].abs() > 0.05) for name, value in weights(scorer).items()]
    assert sum(int(m.sum()) for m in moved) > 20


def test_a_worse_prm_is_put_back(folder, tmp_path):
    """The candidate is measured on rows of the labeller; here it is trained on the opposite of them."""
    scorer = load_prm(folder)
    refresher = PRMRefresher(scorer, Words(), SETTINGS, folder=tmp_path / "refresh")
    refresher.collect(fresh(120))
    refresher.refresh(2)
    good = weights(scorer)
    many = fresh(400, seed=5)
    pairs = zip(many, Words(upside_down=True).labels(many, 0), strict=True)
    wrong = [labels.row(one.prompt, list(one.steps)) for one, labels in pairs if isinstance(labels, StepLabels)]
    refresher.first_rows = [row for row in wrong if not refresher.is_held_out(row["prompt"])]
    refresher.settings = RefreshSettings(every=2, rows=120, updates=60, learning_rate=1e-2, replay=0.95, held_out=0.3)
    refresher.collect(fresh(120, seed=1))
    told = refresher.refresh(4)
    assert told["auroc_after"] < told["auroc_before"] and told["swapped"] == 0.0
    assert same(good, weights(scorer)) and refresher.version == 1
    assert sorted(path.name for path in (tmp_path / "refresh").glob("version*")) == ["version_0.pt", "version_1.pt"]


def test_not_worse_by_hand():
    assert not_worse({"f1": 0.5}, {"f1": 0.5}, "f1") and not_worse({"f1": 0.5}, {"f1": 0.6}, "f1")
    assert not not_worse({"f1": 0.5}, {"f1": 0.49}, "f1")
    assert not not_worse({"auroc": math.nan}, {"auroc": math.nan}, "auroc")  # nothing measured: the old one stays


def test_held_out_problems_are_never_learnt_from(folder, tmp_path):
    first = list(stepwise_rows(200))
    scorer, labeller = load_prm(folder), Words()
    refresher = PRMRefresher(scorer, labeller, SETTINGS, folder=tmp_path / "refresh", first_rows=first)
    for update in (2, 4):
        refresher.collect(fresh(120, seed=update))
        refresher.refresh(update)
    read = lambda name: [json.loads(x) for x in (tmp_path / "refresh" / name).read_text().splitlines()]  # noqa: E731
    held = {row["prompt"] for u in (2, 4) for row in read(f"held_out_{u:06d}.jsonl")}
    learnt = {row["prompt"] for u in (2, 4) for row in read(f"rows_{u:06d}.jsonl")}
    assert held and learnt and not held & learnt
    assert not any(refresher.is_held_out(row["prompt"]) for row in refresher.first_rows)
    assert 0 < len(refresher.first_rows) < len(first)


def test_replay_is_the_share_it_says_and_remembers_earlier_refreshes(folder):
    scorer = load_prm(folder)
    refresher = PRMRefresher(scorer, Words(), SETTINGS, first_rows=list(stepwise_rows(10)))
    refresher.collect(fresh(120))
    first = refresher.refresh(2)
    assert first["rows"] == first["fresh"] + len(refresher.first_rows)  # there are no more older ones
    refresher.collect(fresh(120, seed=1))
    second = refresher.refresh(4)
    assert second["rows"] == 2 * second["fresh"]  # a half is older: those of the first refresh too


def test_only_the_newest_distinct_rollouts_are_labelled_and_only_once(folder):
    labeller = Words()
    refresher = PRMRefresher(load_prm(folder), labeller, SETTINGS)
    old, new = fresh(100, seed=1), fresh(150, seed=2)
    refresher.collect([*old, *new, *new])
    refresher.refresh(2)
    (labelled, _), wanted = labeller.seen[0], list(dict.fromkeys((one.prompt, one.steps) for one in reversed(new)))
    assert len(labelled) == 120
    assert [(one.prompt, one.steps) for one in reversed(labelled)] == wanted[:120]  # newest first
    assert refresher.refresh(4)["skipped"] == 1.0  # nothing is left to label


def test_too_few_labels_leave_the_prm_alone_and_the_rollouts_for_later(folder, caplog):
    scorer = load_prm(folder)
    refresher = PRMRefresher(scorer, Words(), SETTINGS)
    old = weights(scorer)
    refresher.collect(fresh(9))
    told = refresher.refresh(2)
    assert told["skipped"] == 1.0 and "swapped" not in told and same(old, weights(scorer))
    assert "left out" in caplog.text and len(refresher.state()["fresh"]) == 9


def test_going_on_from_a_state_is_going_on(folder, tmp_path):
    """Two refreshes in one piece, or the second by another object after a restart: equal to the last bit."""

    def batch(update):
        return fresh(70, seed=update)

    whole = PRMRefresher(load_prm(folder), Words(), SETTINGS, folder=tmp_path / "whole" / "refresh")
    for update in range(1, 5):
        whole.collect(batch(update))
        if whole.due(update):
            whole.refresh(update)
    cut = PRMRefresher(load_prm(folder), Words(), SETTINGS, folder=tmp_path / "cut" / "refresh")
    for update in range(1, 4):
        cut.collect(batch(update))
        if cut.due(update):
            cut.refresh(update)
    state = json.loads(json.dumps(cut.state()))
    cut.collect(batch(4))
    cut.refresh(4)  # what the killed run did after its checkpoint
    again = PRMRefresher(load_prm(folder), Words(), SETTINGS, folder=tmp_path / "cut" / "refresh")
    again.load(state, update=3)
    assert again.version == 1
    again.collect(batch(4))
    told = again.refresh(4)
    assert same(weights(whole.scorer), weights(again.scorer)) and told["version"] == whole.version
    logs = [
        [{k: v for k, v in json.loads(x).items() if "seconds" not in k} for x in path.read_text().splitlines()]
        for path in (tmp_path / "whole/refresh/refreshes.jsonl", tmp_path / "cut/refresh/refreshes.jsonl")
    ]
    assert logs[0] == logs[1] and [row["update"] for row in logs[0]] == [2, 4]


def test_a_state_without_its_files_is_refused(folder, tmp_path):
    refresher = PRMRefresher(load_prm(folder), Words(), SETTINGS, folder=tmp_path)
    with pytest.raises(ValueError, match="no labelled rows of update 2"):
        refresher.load({"version": 1, "refreshed": [2], "fresh": []}, 3)
    with pytest.raises(ValueError, match="no weights of version 1"):
        refresher.load({"version": 1, "refreshed": [], "fresh": []}, 3)


def test_versions_that_a_checkpoint_needs_are_kept(folder, tmp_path):
    run = tmp_path / "run"
    refresher = PRMRefresher(load_prm(folder), Words(), SETTINGS, folder=run / "prm_refresh")
    (run / "checkpoint-3").mkdir(parents=True)
    for update in (2, 4, 6, 8):
        refresher.versions.add(refresher.versions.weights())
        if update == 4:
            (run / "checkpoint-3" / "prm_refresh.json").write_text(json.dumps({"version": 1}))
    kept = sorted(path.name for path in (run / "prm_refresh").glob("version_*.pt"))
    assert kept == ["version_0.pt", "version_1.pt", "version_3.pt", "version_4.pt"]


def test_the_new_prm_can_be_loaded_by_others(folder, tokenizer, tmp_path):
    scorer = load_prm(folder)
    go_on_learning(scorer, list(stepwise_rows(32)), updates=5, batch_size=16, learning_rate=1e-2, seed=0)
    refresher = PRMRefresher(scorer, Words(), SETTINGS)
    assert refresher.versions.export(tmp_path / "new", tokenizer)
    problems, steps = ["add 1", "add 2"], [["so good 1", "so bad 2"], ["so bad 1"]]
    got, wanted = load_prm(tmp_path / "new").score(problems, steps), scorer.score(problems, steps)
    assert got == wanted != load_prm(folder).score(problems, steps)


def test_quality_by_hand():
    """Row 1: first error found; row 2: one is seen where there is none; the step after an error does not count."""

    class Given:
        def score(self, problems, steps):
            return [[0.9, 0.2, 0.99], [0.4, 0.8]]

    rows = [
        {"prompt": "p", "completions": ["a", "b", "c"], "labels": [True, False, False]},
        {"prompt": "p", "completions": ["a", "b"], "labels": [True, True]},
    ]
    told = step_quality(Given(), rows)
    assert told["f1"] == 0.0 and told["auroc"] == 1.0  # .9, .4, .8 are right, .2 is wrong
    assert step_quality(Given(), rows, drop_after_error=False)["auroc"] == 0.5


def test_outcome_labels_give_every_step_the_verdict():
    right, wrong, unknown = (FreshRollout("p", ("a", "b"), None, v) for v in (1.0, 0.0, math.nan))
    found = OutcomeLabeller().labels([right, wrong, unknown], 0)
    assert found[0].labels == [True, True] and found[1].labels == [False, False] and isinstance(found[2], Rejection)


def test_consensus_keeps_what_both_say():
    one = FreshRollout("p", ("so good 1", "so bad 2"))
    both = ConsensusLabeller(Words(), Words()).labels([one], 0)
    assert both[0].labels == [True, False]
    assert isinstance(ConsensusLabeller(Words(), Words(upside_down=True)).labels([one], 0)[0], Rejection)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"every": 0}, "every: got 0"), ({"rows": 0}, "rows: got 0"), ({"labels": "me"}, "labels: got 'me'"),
        ({"replay": 1.0}, "replay: got 1.0"), ({"held_out": 0.0}, "held_out: got 0.0"),
        ({"learning_rate": 0.0}, "learning_rate: got 0.0"),
    ],
)  # fmt: skip
def test_settings_out_of_range_are_refused(settings, told):
    with pytest.raises(ValueError, match=told):
        RefreshSettings(**settings)


def test_scorers_that_cannot_learn_are_refused_with_what_to_do(folder):
    scorer = load_prm(folder)
    server = ServerScorer(scorer.family, scorer.texts, url="http://127.0.0.1:1", model="m", context=64)
    with pytest.raises(ValueError, match=r"behind a server.*By hand: stop the run"):
        refuse_unteachable(server)
    with pytest.raises(ValueError, match="object, which is not a PRM"):
        refuse_unteachable(object())
    scorer.placement = type("Zero3", (), {"reader": scorer.placement.reader})()
    with pytest.raises(ValueError, match="zero3, whose shards have no optimizer"):
        refuse_unteachable(scorer)
