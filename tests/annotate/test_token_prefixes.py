"""Step prefixes are the policy's own token ids: a blank line that it wrote as two tokens stays two tokens."""

import json

import pytest
import torch
from annotate_plugin import LastBoxVerifier
from annotate_server import Server
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from rlhf_prm.annotate import MonteCarloSettings, monte_carlo
from rlhf_prm.annotate.config import read_config
from rlhf_prm.annotate.pipeline import Pipeline
from rlhf_prm.evaluation.step_search import SearchSettings, step_search
from rlhf_prm.generation import backends
from rlhf_prm.generation.endpoint import EndpointGenerator
from rlhf_prm.generation.hf import HFGenerator
from rlhf_prm.generation.prefixes import ids_before_a_word, sampled_prefixes, step_ids, written_prefixes
from rlhf_prm.generation.requests import Sample
from rlhf_prm.steps import StepSplitter

WORDS = ["<pad>", "<eos>", "<s>", "\n\n", "\n", "Q", "So", "one", "two", " three", "\\boxed{7}", "\\boxed{8}", " "]
EOS, BOS, BLANK_LINE, BREAK, Q, SO, ONE, TWO, THREE, SEVEN, EIGHT = range(1, 12)


def cutting_tokenizer() -> PreTrainedTokenizerFast:
    """Cuts white space as GPT-2 and SmolLM do: a blank line is one token at the end of a text, two before a word."""
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<pad>"))
    inner.pre_tokenizer = pre_tokenizers.Split(Regex(r" ?[^\s]+|\s+(?!\S)|\s"), "isolated")
    inner.decoder = decoders.Fuse()
    inner.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", BOS)])
    names = {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<s>"}
    return PreTrainedTokenizerFast(tokenizer_object=inner, **names)


TOKENIZER = cutting_tokenizer()
PROMPT = [BOS, Q, BLANK_LINE]  # "Q" and a blank line at the end of the text
RESPONSE = [ONE, THREE, BREAK, BREAK, TWO, BREAK, BREAK, SEVEN, EOS]
TEXT, STEPS = "one three\n\ntwo\n\n\\boxed{7}", ["one three", "two", "\\boxed{7}"]
PREFIXES = [[*PROMPT, *RESPONSE[:4]], [*PROMPT, *RESPONSE[:7]]]


def test_the_tokenizer_of_these_tests_cuts_as_it_should():
    def ids(text):
        return TOKENIZER(text, add_special_tokens=False)["input_ids"]

    assert TOKENIZER("Q\n\n")["input_ids"] == PROMPT
    assert ids("one three\n\n") == [ONE, THREE, BLANK_LINE] != ids("one three\n\nSo")[:3]
    assert ids("one three\n\nSo") == [ONE, THREE, BREAK, BREAK, SO]
    assert TOKENIZER.decode(RESPONSE, skip_special_tokens=True) == TEXT


def test_prefixes_out_of_sampled_ids_and_out_of_text():
    splitter = StepSplitter()
    sampled = sampled_prefixes(TOKENIZER, PROMPT, RESPONSE, TEXT, splitter)
    written = written_prefixes(TOKENIZER, "Q\n\n", STEPS, "\n\n")
    assert [sampled.prompt(k) for k in (0, 1)] == [written.prompt(k) for k in (0, 1)] == PREFIXES
    assert sampled.text(0) == "one three\n\n" and sampled.text(1, "x") == "one three\n\ntwo\n\nx"
    assert sampled.text(0, Sample("three", [THREE])) == "one three\n\n three"  # decoded with what stands before
    other = [ONE, THREE, BLANK_LINE, TWO, BREAK, BREAK, SEVEN]  # what is odd in the sampled ids stays
    assert sampled_prefixes(TOKENIZER, PROMPT, other, TEXT, splitter).prompt(1) == [*PROMPT, *other[:6]]
    assert sampled_prefixes(TOKENIZER, PROMPT, RESPONSE, "another text", splitter) is None


def test_the_solutions_own_text_is_cut_where_it_is_known():
    """Its steps stand one line break apart, whatever the separator is that joins steps without a text."""
    text = "one three\ntwo\n\\boxed{7}"
    own = [text[: len("one three\n")], text[: len("one three\ntwo\n")], text]
    written = written_prefixes(TOKENIZER, "Q\n\n", STEPS, "\n\n", own)
    assert [written.prompt(step) for step in range(3)] == [
        [*PROMPT, ONE, THREE, BREAK],
        [*PROMPT, ONE, THREE, BREAK, TWO, BREAK],
        [*PROMPT, ONE, THREE, BREAK, TWO, BREAK, SEVEN],
    ]


def test_text_that_nothing_follows_yet_is_cut_as_before_a_word():
    assert ids_before_a_word(TOKENIZER, "one three\n\n") == [ONE, THREE, BREAK, BREAK]
    assert step_ids(TOKENIZER, "two", "two", "\n\n") == [TWO, BREAK, BREAK]
    assert step_ids(TOKENIZER, "two", Sample("two", [TWO, BLANK_LINE]), "\n\n") == [TWO, BLANK_LINE]
    assert step_ids(TOKENIZER, "two", Sample("two", [TWO, BLANK_LINE, SO]), "\n\n") == [TWO, BLANK_LINE]
    assert step_ids(TOKENIZER, "two", Sample("two", [TWO, EOS]), "\n\n") == [TWO, BREAK, BREAK]  # it ended there


class ScriptedModel(torch.nn.Module):
    """Stands for a causal LM: continues ids as the script says, and remembers what it was given."""

    device = torch.device("cpu")

    def __init__(self, script):
        super().__init__()
        self.config = LlamaConfig(vocab_size=len(WORDS), max_position_embeddings=64)
        self.generation_config = GenerationConfig()
        self.script, self.seen = script, []

    def generate(self, tokens, attention_mask, **_):
        given = [row[mask.bool()].tolist() for row, mask in zip(tokens, attention_mask, strict=True)]
        self.seen += given
        out = [self.script(tuple(row)) for row in given]
        width = max(map(len, out))
        return torch.cat([tokens, torch.tensor([row + [0] * (width - len(row)) for row in out])], 1)


def scripted(ids: tuple[int, ...]) -> list[int]:
    return RESPONSE if list(ids) == PROMPT else [SEVEN, EOS]


@pytest.fixture
def model(monkeypatch):
    model = ScriptedModel(scripted)
    monkeypatch.setitem(backends.BACKENDS, "hf", lambda config, concurrency: HFGenerator(model, TOKENIZER))
    return model


def pipeline(tmp_path, **settings) -> Pipeline:
    folder = tmp_path / "policy"
    TOKENIZER.save_pretrained(folder)
    policy = {"model": str(folder), "template": "{problem}\n\n"}
    own = {"out": str(tmp_path / "out"), "policies": [policy], "num_completions": 2, "num_responses": 1}
    return Pipeline(read_config(None, {**own, "verifier": "annotate_plugin.LastBoxVerifier", **settings}))


def test_sampled_rows_keep_their_ids_and_are_continued_from_them(tmp_path, model):
    (tmp_path / "problems.jsonl").write_text(json.dumps({"problem": "Q", "answer": "7"}) + "\n")
    stages = pipeline(tmp_path, problems=str(tmp_path / "problems.jsonl"))
    stages.run("sample")
    (record,) = [json.loads(line) for line in (tmp_path / "out" / "sample-0" / "00000.jsonl").open()]
    assert record["responses"] == [TEXT]
    assert (record["prompt_ids"], record["response_ids"]) == (PROMPT, [RESPONSE])
    model.seen.clear()
    stages.run("monte_carlo")
    assert model.seen == [prefix for prefix in PREFIXES for _ in range(2)]
    (row,) = [json.loads(line) for line in (tmp_path / "out" / "monte_carlo.jsonl").open()]
    assert row["labels"] == [True, True, True]


def test_another_model_continues_the_text_in_its_own_tokens(tmp_path, model):
    """The sampled ids are those of the model that sampled."""
    model.script = lambda ids: [TWO, BLANK_LINE, SEVEN, EOS] if list(ids) == PROMPT else [SEVEN, EOS]
    (tmp_path / "problems.jsonl").write_text(json.dumps({"problem": "Q", "answer": "7"}) + "\n")
    TOKENIZER.save_pretrained(tmp_path / "other")
    completer = {"model": str(tmp_path / "other"), "template": "{problem}\n\n"}
    stages = pipeline(tmp_path, problems=str(tmp_path / "problems.jsonl"), completer=completer)
    stages.run("sample")
    model.seen.clear()
    stages.run("monte_carlo")
    assert model.seen == [[*PROMPT, TWO, BREAK, BREAK]] * 2


def test_solutions_that_are_only_text_are_cut_where_the_tokenizer_cuts(tmp_path, model):
    path = tmp_path / "solutions.jsonl"
    path.write_text(json.dumps({"problem": "Q", "answer": "7", "steps": STEPS}) + "\n")
    pipeline(tmp_path, solutions=str(path)).run("monte_carlo")
    assert model.seen == [prefix for prefix in PREFIXES for _ in range(2)]


def test_in_memory_too():
    model = ScriptedModel(scripted)
    settings = MonteCarloSettings(num_completions=1)
    odd = [ONE, THREE, BLANK_LINE, TWO, BREAK, BREAK, SEVEN]
    common = {"settings": settings, "template": lambda problem: f"{problem}\n\n"}
    generator = HFGenerator(model, TOKENIZER)
    for sampled, wanted in ((None, PREFIXES), ([Sample(TEXT, odd)], [[*PROMPT, *odd[:3]], [*PROMPT, *odd[:6]]])):
        model.seen.clear()
        (labels,) = monte_carlo(["Q"], [STEPS], ["7"], generator, LastBoxVerifier(), sampled=sampled, **common)
        assert model.seen == wanted and labels.labels == [True] * 3
    with pytest.raises(ValueError, match="expected as many of each"):
        monte_carlo(["Q"], [STEPS], ["7"], generator, LastBoxVerifier(), sampled=[], **common)


class GoodScorer:
    def score(self, problems, steps):
        return [[0.9] * len(row) for row in steps]


def test_step_search_goes_on_from_the_ids_it_sampled():
    """HF generation stops at the token that completes the separator; the next step begins behind that very token."""
    answers = {
        tuple(PROMPT): [ONE, THREE, BREAK, BREAK],
        (*PROMPT, ONE, THREE, BREAK, BREAK): [TWO, BLANK_LINE],
        (*PROMPT, ONE, THREE, BREAK, BREAK, TWO, BLANK_LINE): [SEVEN, EOS],
    }
    model = ScriptedModel(answers.__getitem__)
    generator = HFGenerator(model, TOKENIZER)
    (search,) = step_search(generator, GoodScorer(), ["Q"], len, SearchSettings(), prompts=["Q\n\n"])
    assert search.best == STEPS and model.seen == [list(ids) for ids in answers]


def test_what_stop_strings_and_padding_leave_of_a_row():
    """Real generation: ids end with the end-of-sequence token, or with the token that completes the stop string."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(WORDS), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=64, eos_token_id=EOS, pad_token_id=0, bos_token_id=BOS,
    )  # fmt: skip
    generator = HFGenerator(LlamaForCausalLM(config), TOKENIZER, max_new_tokens=12)
    rows = generator.generate([PROMPT, [BOS, SO]], 40, seed=0, stop=["two"])
    assert [row.prompt_ids for row in rows[0]] == [PROMPT] * 40
    ended = stopped = 0
    for row in (*rows[0], *rows[1]):
        ended, stopped = ended + (row.ids[-1] == EOS), stopped + (TWO in row.ids)
        assert row.ids.count(EOS) == (row.ids[-1] == EOS) and TWO not in row.ids[:-1]
        assert len(row.ids) == 12 or row.ids[-1] in (EOS, TWO)
        text = TOKENIZER.decode(row.ids, skip_special_tokens=True)
        assert str(row) == text.partition("two")[0]
    assert ended and stopped
    assert rows == generator.generate(["Q\n\n", [BOS, SO]], 40, seed=0, stop=["two"])  # text or its ids: the same


def test_an_endpoint_is_given_ids_and_tells_those_it_sampled():
    with Server() as server:
        server.tells_ids = True
        generator = EndpointGenerator("m", [server.url])
        ((sample,),) = generator.generate([PROMPT], 1, seed=[5], stop=None)
        assert (sample.ids, sample.prompt_ids) == ([1, 2], [3])
        ((silent,),) = EndpointGenerator("m", [server.url], send_ids=False).generate(["Q"], 1, seed=[5], stop=None)
    bodies = [body for _, body in server.bodies]
    assert [path for path, _ in server.bodies] == ["/v1/completions"] * 2
    assert bodies[0]["prompt"] == PROMPT and bodies[0]["return_token_ids"] is True
    assert "return_token_ids" not in bodies[1] and silent.ids is None


def test_an_endpoint_whose_tokenizer_is_here_continues_ids_otherwise_text(tmp_path, caplog, monkeypatch):
    """The manifest says which of the two it was: their records are not mixed."""
    path = tmp_path / "solutions.jsonl"
    path.write_text(json.dumps({"problem": "Q", "answer": "7", "steps": STEPS}) + "\n")
    TOKENIZER.save_pretrained(tmp_path / "policy")
    with Server() as server:
        model = {"model": "served", "endpoints": [server.url], "template": "{problem}\n\n"}
        for out, more in (("ids", {"tokenizer": str(tmp_path / "policy")}), ("text", {})):
            settings = {"solutions": str(path), "out": str(tmp_path / out), "policies": [model | more]}
            pipeline(tmp_path, **settings).run("monte_carlo")
    prompts = [body["prompt"] for _, body in server.bodies]
    assert prompts[0] == PREFIXES[0] and "Q\n\none three\n\n" in prompts
    assert "step prefixes are sent to served as text" in caplog.text
    for out, prefixes in (("ids", "token ids"), ("text", "own text")):
        manifest = json.loads((tmp_path / out / "monte_carlo" / "manifest.json").read_text())
        assert manifest["settings"]["prefixes"] == prefixes
    monkeypatch.chdir(tmp_path)
    TOKENIZER.save_pretrained("served")  # now the name is a folder with the tokenizer
    with pytest.raises(ValueError, match="prefixes: 'own text' there, 'token ids' now"):
        pipeline(tmp_path, solutions=str(path), out=str(tmp_path / "text"), policies=[model]).run("monte_carlo")
