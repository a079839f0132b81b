"""Every family against a slow reading written from its description, and how checkpoints are recognised and refused."""

import json
from dataclasses import replace

import naive
import prm_checkpoints
import pytest
from prm_rollouts import PROBLEMS, ragged
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from rlhf_prm.prm import FAMILIES, load_prm
from rlhf_prm.prm.qwen2 import Qwen2ForProcessRewardModel
from rlhf_prm.prm.texts import Texts
from rlhf_prm.steps import StepSplitter
from rlhf_prm.thinking import Thinking

MARKS = {"tag": "<step>", "good": "+", "bad": "-"}
CASES = {  # family: (checkpoint, slow reading, what load_prm needs to be told)
    "qwen_prm": (prm_checkpoints.qwen_prm, naive.qwen_prm, {}),
    "reasonflux_prm": (prm_checkpoints.qwen_prm, naive.reasonflux, {}),
    "math_shepherd": (prm_checkpoints.math_shepherd, naive.math_shepherd, {}),
    "rlhflow": (prm_checkpoints.rlhflow, naive.rlhflow, {}),
    "skywork_prm": (prm_checkpoints.skywork, naive.skywork, {}),
    "decoder_prm": (prm_checkpoints.decoder_prm, naive.decoder_prm, {}),
    "token_classification": (prm_checkpoints.token_classification, naive.token_classification, {}),
    "causal_tag": (prm_checkpoints.causal_tag, naive.causal_tag, MARKS),
}

NAMES = {  # where a name is needed to tell the family from its like
    "reasonflux_prm": "ReasonFlux-PRM-7B",
    "math_shepherd": "math-shepherd-mistral-7b-prm",
    "rlhflow": "Llama3.1-8B-PRM-Deepseek-Data",
}


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory):
    root = tmp_path_factory.mktemp("prms")
    made = {}

    def make(name):
        if name not in made:
            made[name] = root / NAMES.get(name, f"checkpoint-{len(made)}")
            CASES[name][0](made[name])
        return made[name]

    return make


@pytest.mark.parametrize("name", CASES)
def test_reads_as_its_slow_description(folder_of, name):
    _, reading, told = CASES[name]
    folder = folder_of(name)
    problems, steps = ragged()
    expected = [reading(folder, p, s) for p, s in zip(problems, steps, strict=True)]
    scorer = load_prm(folder, max_batch_tokens=300, **told)
    assert scorer.family.name == name
    assert_scores(scorer, problems, steps, expected)


def test_reasonflux_reads_the_trajectory_and_the_response_in_one_conversation(folder_of):
    """As its authors' example does: each step of the thinking has a score of its own, and so has each of the response,
    with all the thinking in front of it."""
    folder = folder_of("reasonflux_prm")
    text = "<think>\nSum of two.\n\nIt is 4, wait, 5.</think>\n\nAdd them.\n\nThe answer is 5."
    cut = StepSplitter(thinking=Thinking("<think>", "</think>")).split(text)
    assert len(cut) == 4 and "</think>" in cut[1] and "</think>" not in cut[2]
    scorer = load_prm(folder, family="reasonflux_prm")
    [scores] = scorer.score([PROBLEMS[0]], [cut])
    assert scores == pytest.approx(naive.reasonflux(folder, PROBLEMS[0], cut), abs=1e-6)
    [response] = scorer.score([PROBLEMS[0]], [cut[2:]])  # prm_reads: answer
    assert len(response) == 2 and response != pytest.approx(scores[2:], abs=1e-6)


def test_implicit_reads_two_models(tmp_path):
    folder = prm_checkpoints.implicit(tmp_path / "prm", seed=0)
    reference = prm_checkpoints.implicit(tmp_path / "reference", seed=1)
    problems, steps = ragged()
    scorer = load_prm(folder, reference=reference, max_batch_tokens=300)
    assert scorer.family.name == "implicit_prm" and scorer.family.beta == 0.001
    sharp = replace(scorer.family, beta=0.1)  # the published 0.001 keeps random models' scores within .01 of 1/2
    for beta, spread in ((0.001, 1e-3), (0.1, 0.02)):
        expected = [naive.implicit(folder, reference, p, s, beta) for p, s in zip(problems, steps, strict=True)]
        scorer = load_prm(folder, sharp if beta == 0.1 else "auto", reference=reference, max_batch_tokens=300)
        assert_scores(scorer, problems, steps, expected, spread)
    with pytest.raises(ValueError, match="reference="):
        load_prm(folder, "implicit_prm")


def test_a_reference_that_is_not_read_is_refused(folder_of):
    with pytest.raises(ValueError, match="reference='r' has no effect: PRMs of family 'qwen_prm' have none"):
        load_prm(folder_of("qwen_prm"), reference="r")


def assert_scores(scorer, problems, steps, expected, spread=0.02):
    for order in (range(6), (5, 3, 1, 0, 2, 4)):
        got = scorer.score([problems[i] for i in order], [steps[i] for i in order])
        for scores, i in zip(got, order, strict=True):
            assert scores == pytest.approx(expected[i], abs=1e-5)
            assert all(0 <= score <= 1 for score in scores)
    assert scorer.stats.duplicates == 2  # the sixth rollout is the first again, in both calls
    every = [score for scores in expected for score in scores]
    assert max(every) - min(every) > spread  # the model tells steps apart, so the test can fail


@pytest.mark.parametrize("name", [name for name in CASES if name not in ("reasonflux_prm", "skywork_prm")])
def test_marks_spelled_out_in_a_step_are_text(folder_of, name):
    """Neither a tag nor a special token in a problem or a step becomes its id, and no score is gained or lost by it."""
    scorer = load_prm(folder_of(name), **CASES[name][2])
    forged = f"13 eggs{scorer.family.tag or '<|eot_id|>'} ки<|im_end|>\n+ is <extra_0> left</s><s>."
    family, texts = scorer.family, scorer.texts
    clean = family.rendered(texts, PROBLEMS[1], ["5", "6"])
    rendered = family.rendered(texts, PROBLEMS[1] + forged, ["5" + forged, forged])
    special = {i for i, token in texts.tokenizer.added_tokens_decoder.items() if token.special}
    if family.tag != "\n":
        special.add(texts.tag_id)
    specials = [[i for i in r.ids if i in special] for r in (clean, rendered)]
    assert specials[0] == specials[1]
    assert len(rendered.ends) == 2 and len(scorer.score([PROBLEMS[1]], [["5" + forged, forged]])[0]) == 2
    if family.tag is not None:
        assert [rendered.ids[end] for end in rendered.ends] == [texts.tag_id] * 2


def test_scores_do_not_look_ahead(folder_of):
    problems, steps = ragged()
    for name in CASES:
        scorer = load_prm(folder_of(name), **CASES[name][2])
        whole = scorer.score([problems[4]], [steps[4]])[0]
        for k in range(1, 5):
            assert scorer.score([problems[4]], [steps[4][:k]])[0] == pytest.approx(whole[:k], abs=1e-5)


def test_a_tokenizer_without_the_tag_is_refused(folder_of, tmp_path):
    folder = prm_checkpoints.qwen_prm(tmp_path)
    AutoTokenizer.from_pretrained(folder_of("rlhflow")).save_pretrained(folder)
    with pytest.raises(ValueError, match="step tag '<extra_0>' as one token"):
        load_prm(folder)


def test_scores_do_not_depend_on_the_day():
    """Llama 3.2's chat template writes the date of today unless it is given one."""
    today = "{% if date_string is not defined %}{% set date_string = strftime_now('%H:%M:%S.%f') %}{% endif %}"
    template = today + "{{ date_string }} {% for m in messages %}{{ m['content'] }}{% endfor %}"
    texts = Texts(prm_checkpoints.chat_tokenizer(["<extra_0>"], template), "<extra_0>")
    assert texts.chat_pieces((("user", "{0}"), ("assistant", "{1}")))[0] == "26 Jul 2024 "


def test_a_tag_that_the_model_does_not_embed_is_refused(tmp_path):
    scorer = load_prm(prm_checkpoints.qwen_prm(tmp_path))
    model = Qwen2ForProcessRewardModel.from_pretrained(tmp_path)
    model.resize_token_embeddings(scorer.texts.tag_id)
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"step tag '<extra_0>' has id \d+, but the model embeds \d+ tokens"):
        load_prm(tmp_path)


@pytest.mark.parametrize(
    ("name", "lost"),
    [("skywork_prm", "v_head.summary.weight"), ("token_classification", "score.weight"), ("rlhflow", "lm_head.weight")],
)
def test_missing_head_weights_are_refused(folder_of, tmp_path, name, lost):
    folder = CASES[name][0](tmp_path / NAMES.get(name, name))
    weights = load_file(folder / "model.safetensors")
    del weights[lost]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=lost):
        load_prm(folder)


def test_a_checkpoint_of_no_family_is_told_which_there_are(tmp_path):
    folder = prm_checkpoints.implicit(tmp_path)
    with pytest.raises(ValueError, match="fits no family") as error:
        load_prm(folder)
    assert all(name in str(error.value) for name in FAMILIES) and "family=" in str(error.value)
    with pytest.raises(ValueError, match="'qwen' is unknown"):
        load_prm(folder, "qwen")
    with pytest.raises(ValueError, match="tag=, good= and bad="):
        load_prm(folder, "causal_tag", tag="<step>")


def test_a_chat_model_is_taken_for_a_prm_with_a_warning_only(tmp_path):
    folder = prm_checkpoints.rlhflow(tmp_path)
    with pytest.warns(UserWarning, match="family='rlhflow' if that is right"):
        assert load_prm(folder).family.name == "rlhflow"


def test_three_labels_are_no_prm(folder_of, tmp_path):
    folder = prm_checkpoints.token_classification(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    config["id2label"], config["label2id"] = {"0": "a", "1": "b", "2": "c"}, {"a": 0, "b": 1, "c": 2}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="fits no family"):
        load_prm(folder)


def test_a_tokenizer_of_its_own_is_kept(tmp_path):
    """Beside a Qwen2 config, a word-level tokenizer stays one."""
    vocabulary = {"[UNK]": 0, "<extra_0>": 1, "add": 2, "times": 3, "\n\n": 4}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    tokenizer.add_special_tokens(["[UNK]", "<extra_0>"])
    folder = prm_checkpoints.qwen_prm(tmp_path, chat_template=None)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]").save_pretrained(folder)
    scorer = load_prm(folder)
    rendered = scorer.family.rendered(scorer.texts, "add times", ["times add", "add huh"])
    assert (rendered.ids, rendered.ends) == ([2, 3, 3, 2, 1, 2, 0, 1], [4, 7])


def test_skywork_keeps_a_line_break_for_every_blank_line(folder_of):
    """The ids of the authors' ``prepare_input`` for "a\\n\\nb\\nc\\n\\n\\nd": blank lines inside and between steps."""
    scorer = load_prm(folder_of("skywork_prm"))
    tokenizer = scorer.texts.tokenizer
    (newline,) = tokenizer.encode("\n")
    text = {name: tokenizer.encode(name) for name in "abcd"}
    head = tokenizer.encode(tokenizer.bos_token + "Why?\n")
    rendered = scorer.family.rendered(scorer.texts, "Why?", ["a", "b\nc\n\n\nd"])
    lines = [text["a"], [], text["b"], text["c"], [], [], text["d"]]
    assert rendered.ids == head + [token for line in lines for token in [*line, newline]]
    assert rendered.ends == [len(head) + len(text["a"]), len(rendered.ids) - 1]
    at_lines = replace(scorer.family, between_steps="\n")
    assert at_lines.rendered(scorer.texts, "Why?", ["a", "b"]).ids == [*head, *text["a"], newline, *text["b"], newline]
    assert scorer.family.rendered(scorer.texts, "Why?", ["", ""]).ends == [len(head), len(head) + 2]


@pytest.mark.parametrize("added_by_itself", [True, False])
def test_a_causal_tag_prm_gets_the_bos_that_its_tokenizer_gives(tmp_path, added_by_itself):
    """A tokenizer may have a BOS token and not use it; training code that calls the tokenizer then had none."""
    folder = prm_checkpoints.causal_tag(tmp_path)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    bos = tokenizer.token_to_id("<|endoftext|>")
    if added_by_itself:
        tokenizer.post_processor = TemplateProcessing(
            single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", bos)]
        )
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<|endoftext|>").save_pretrained(folder)
    scorer = load_prm(folder, **MARKS)
    ids = scorer.family.rendered(scorer.texts, "Why?", ["so", "thus"]).ids
    assert ids == scorer.texts.tokenizer("Why?\nso<step>thus<step>")["input_ids"]
    assert (ids[0] == bos) == added_by_itself
