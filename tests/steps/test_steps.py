"""Steps: hand-cut texts, and token counts against a prefix-decoding reference on any ids."""

import random
import time

import pytest
from hypothesis import given, settings, strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from rlhf_prm.steps import StepSplitter, step_lengths

CORPUS = [
    "First, 3 + 4 = 7.\n\nThen 7 × 2 = 14 — so.\n\nAnswer: \\boxed{14}",
    "日本語の段落。\n\n次の段落。",
    "a\n\n\n\nb 🙂\n",
]


def byte_level_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, special_tokens=["<eos>", "<pad>"])
    tokenizer.train_from_iterator(CORPUS * 4, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<pad>")


def metaspace_tokenizer() -> PreTrainedTokenizerFast:
    """A Llama-2-like tokenizer: ▁ for blanks, single bytes for what is not in the vocabulary."""
    vocab = {"<unk>": 0, "<eos>": 1, "<pad>": 2}
    for piece in [*(f"<0x{b:02X}>" for b in range(256)), *"▁abc.\n", "▁a", "▁b", ".\n\n", "\n\n", "ab"]:
        vocab.setdefault(piece, len(vocab))
    merges = [("▁", "a"), ("▁", "b"), ("\n", "\n"), (".", "\n\n"), ("a", "b")]
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(content=" ", left=1)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<pad>", unk_token="<unk>")


TOKENIZERS = {"byte_level": byte_level_tokenizer(), "metaspace": metaspace_tokenizer()}


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("a\n\nb\n\nc", ["a", "b", "c"]),
        ("", [""]),
        ("\n\n", [""]),
        ("one line\nstill the same step", ["one line\nstill the same step"]),
        ("\n\na\n\n\n\n \n\nb\n\n", ["a", "b"]),
        ("a\n\n```\nx\n\ny\n```\n\nb", ["a", "```\nx\n\ny\n```", "b"]),
        ("a $$x\n\n+y$$ b\n\nc", ["a $$x\n\n+y$$ b", "c"]),
        ("\\[x\n\n=1\\]\n\nso", ["\\[x\n\n=1\\]", "so"]),
        ("\\begin{align*}x\n\n=1\\end{align*}\n\nso", ["\\begin{align*}x\n\n=1\\end{align*}", "so"]),
        ("\\\\[2pt] rows\n\nb\\]", ["\\\\[2pt] rows", "b\\]"]),
        ("never closed ```\n\nb", ["never closed ```", "b"]),
        ("never closed \\[ 1\n\n$$x\n\ny$$\n\nz", ["never closed \\[ 1", "$$x\n\ny$$", "z"]),
        ("it costs her $$ 5\n\nso we get $$x\n\n+y$$ is\n\nz", ["it costs her $$ 5", "so we get $$x\n\n+y$$ is", "z"]),
        ("\\[ x = 1.\n\nTo find y: \\[ y\n\n= 2 \\]\n\nz", ["\\[ x = 1.", "To find y: \\[ y\n\n= 2 \\]", "z"]),
        (
            "a\n\n```python\nx = 1\n\n# twice\ny = 2 * x\n```\n\nb",
            ["a", "```python\nx = 1\n\n# twice\ny = 2 * x\n```", "b"],
        ),
        ("in line ```x\n\ny``` b", ["in line ```x", "y``` b"]),
        ("```\na\n\n```py\nx\n\ny\n```\n\nb\n```", ["```\na", "```py\nx\n\ny\n```", "b\n```"]),
        ("\\[x\n\n=1\\]\n", ["\\[x", "=1\\]"]),
        ("a\n\n$$1\n\n2\n\n3\n\n4\n\n5$$", ["a", "$$1", "2", "3", "4", "5$$"]),
    ],
)
def test_split_by_hand(text, steps):
    splitter = StepSplitter()
    assert splitter.split(text) == steps
    spans = splitter.spans(text)
    assert "".join(text[start:end] for start, end in spans) == text
    assert len(spans) == len(steps)


PROSE = [f"So {k} + {k} = {2 * k}, which is what we need next." for k in range(1, 19)]
NUMBERS = [f"{k} + {k} = {2 * k}" for k in range(1, 19)]
WRAPPERS = [
    ("$$", "$$"),
    ("\\[", "\\]"),
    ("\\begin{align*}", "\\end{align*}"),
    ("```\n", "\n```"),
    ("```markdown\n", "\n```"),
]


@pytest.mark.parametrize("steps", [PROSE, NUMBERS], ids=["sentences", "numbers"])
@pytest.mark.parametrize(("opening", "closing"), WRAPPERS)
def test_a_delimiter_around_steps_merges_none_of_them(opening, closing, steps):
    """Around everything, from the first step to the last, from the second on, and left open."""
    splitter = StepSplitter()
    everything = opening + "\n\n".join(steps) + closing
    first_to_last = "\n\n".join([f"{steps[0]} {opening}", *steps[1:-1], f"{closing} {steps[-1]}"])
    from_the_second = "\n\n".join([steps[0], opening + steps[1], *steps[2:-1], steps[-1] + closing])
    open_ended = "\n\n".join([opening + steps[0], *steps[1:]])
    for text in (everything, first_to_last, from_the_second, open_ended):
        assert len(splitter.split(text)) == 18
    lines = StepSplitter("\n")
    assert (
        len(lines.split("\n".join([f"{steps[0]} {opening.strip()}", *steps[1:-1], f"{closing.strip()} {steps[-1]}"])))
        == 18
    )


@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_delimiters_anywhere_never_merge_sentences(data):
    """Whatever delimiters and formulas a policy puts between its sentences, each keeps a step of its own."""
    steps = PROSE[: data.draw(st.integers(2, 8))]
    marks = ["$$", "\\[", "\\]", "\\begin{align}", "\\end{align}", "\n```\n", "\n```python\n", "\\", "`", "$$1\n\n+2$$"]
    written = []
    for step in steps:
        before, after = (" ".join(data.draw(st.lists(st.sampled_from(marks), max_size=3))) for _ in range(2))
        written.append(f"{before} {step} {after}")
    for separator in ("\n\n", " ки\n"):
        cut = StepSplitter(separator).split(separator.join(written))
        assert all(sum(sentence in step for sentence in steps) <= 1 for step in cut)


@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_maths_delimiters_in_mid_sentence_never_merge_steps(data):
    steps = PROSE[: data.draw(st.integers(2, 8))]
    marks = ["$$", "\\[", "\\]", "\\begin{align}", "\\end{align}", "\\"]
    written = []
    for step in steps:
        words = step.split(" ")
        for _ in range(data.draw(st.integers(0, 4))):
            words.insert(data.draw(st.integers(0, len(words))), data.draw(st.sampled_from(marks)))
        written.append(" ".join(words))
    assert len(StepSplitter().split("\n\n".join(written))) == len(steps)


def test_split_by_pattern_and_other_separators():
    assert StepSplitter(pattern=r"\n(?=Step \d+:)").split("Step 1: a\nb\nStep 2: c") == ["Step 1: a\nb", "Step 2: c"]
    assert StepSplitter(separator=" ки").split("a ки\nb ки") == ["a", "b"]
    assert StepSplitter().occurs_in("a\n\nb") and not StepSplitter().occurs_in("a\nb")


@pytest.mark.parametrize("bad", [{"separator": ""}, {"pattern": "("}, {"pattern": "x*"}])
def test_bad_separators_are_refused(bad):
    with pytest.raises(ValueError, match=r"step (separator|pattern)"):
        StepSplitter(**bad)


def complete_characters(ids: list[int], tokenizer, text: str) -> list[int]:
    """Slow reference: how far the decoded prefix agrees with the whole text."""
    prefixes = [tokenizer.decode(ids[: i + 1], skip_special_tokens=True) for i in range(len(ids))]
    pairs = [list(zip(prefix, text, strict=False)) for prefix in prefixes]
    return [next((i for i, (a, b) in enumerate(pair) if a != b), len(pair)) for pair in pairs]


def check_against_prefix_decoding(ids, tokenizer):
    splitter = StepSplitter()
    texts, lengths = step_lengths(ids, tokenizer, splitter)
    text = tokenizer.decode(ids, skip_special_tokens=True)
    assert sum(lengths) == len(ids) and len(texts) == len(lengths) >= 1
    assert all(length > 0 for length in lengths) or not ids
    complete = complete_characters(ids, tokenizer, text)
    expected = []
    for _, end in splitter.spans(text)[:-1]:
        stop = next(i + 1 for i, characters in enumerate(complete) if characters >= end)
        if stop not in expected:
            expected.append(stop)
    expected = [stop for stop in expected if stop < len(ids)]
    stops = [sum(lengths[: k + 1]) for k in range(len(lengths) - 1)]
    # the last step may share its only token with the one before
    assert stops == expected[: len(stops)] and len(expected) - len(stops) <= 1


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_step_ends_for_text_like_ids(name, data):
    """Tokens of real text with special tokens, cut anywhere: in mid-character too."""
    tokenizer = TOKENIZERS[name]
    alphabet = ["a", "b", ". ", "\n\n", "\n", "é", "日", "🙂", "ab.\n\n", " c"]
    text = "".join(data.draw(st.lists(st.sampled_from(alphabet), max_size=25)))
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    for _ in range(data.draw(st.integers(0, 3))):
        ids.insert(data.draw(st.integers(0, len(ids))), tokenizer.eos_token_id)
    ids = ids[: data.draw(st.integers(0, len(ids)))]
    check_against_prefix_decoding(ids, tokenizer)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_lengths_sum_for_random_ids(name):
    """Ids that no text gives: broken bytes, specials in the middle. The counts stay exact."""
    tokenizer, draw = TOKENIZERS[name], random.Random(0)
    for _ in range(200):
        ids = [draw.randrange(len(tokenizer)) for _ in range(draw.randrange(40))]
        texts, lengths = step_lengths(ids, tokenizer, StepSplitter())
        assert sum(lengths) == len(ids) and len(texts) == len(lengths)


def test_separator_merged_into_its_neighbour():
    tokenizer = TOKENIZERS["metaspace"]
    ids = [tokenizer.convert_tokens_to_ids(t) for t in ["▁a", ".\n\n", "b", "<eos>"]]
    assert step_lengths(ids, tokenizer, StepSplitter()) == (["a.", "b"], [2, 2])


def test_a_character_split_over_tokens_and_cut_in_the_middle():
    tokenizer = TOKENIZERS["metaspace"]
    smile = [tokenizer.convert_tokens_to_ids(f"<0x{b:02X}>") for b in "🙂".encode()]
    paragraph = tokenizer.convert_tokens_to_ids("\n\n")
    ids = [*smile, paragraph, *smile[:2]]
    texts, lengths = step_lengths(ids, tokenizer, StepSplitter())
    assert lengths == [5, 2] and texts[0] == "🙂"


def test_linear_time():
    tokenizer, splitter = TOKENIZERS["byte_level"], StepSplitter()

    def seconds(copies: int) -> float:
        ids = tokenizer("日 x = 1.\n\n" * copies, add_special_tokens=False)["input_ids"]
        ids = [*ids, *tokenizer("🙂")["input_ids"][:1]]  # a broken character sends it down the slow path
        start = time.thread_time()
        step_lengths(ids, tokenizer, splitter)
        splitter.spans("\\[ ``` $$" * copies)
        return time.thread_time() - start

    seconds(20)
    many, few = (min(seconds(copies) for _ in range(5)) for copies in (1600, 100))
    assert many < 40 * few  # 16 times the text; quadratic would be 256


def word_tokenizer(*pieces: str) -> PreTrainedTokenizerFast:
    """A tokenizer whose tokens are the given texts."""
    vocab = {"<eos>": 0} | {piece: 1 + k for k, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="<eos>"))
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>")


def test_merged_steps_keep_the_text_between_them():
    """Not the literal separator: with a pattern it is not used, and in the text there may be more of it."""
    splitter = StepSplitter(pattern=r" #+ ")
    tokenizer = word_tokenizer("a", " ## b ### c", " # ", "d")
    assert step_lengths([1, 2, 3, 4, 0], tokenizer, splitter) == (["a", "b ### c", "d"], [2, 1, 2])
    assert step_lengths([1, 2, 0], tokenizer, splitter) == (["a ## b ### c"], [3])
    tokenizer = word_tokenizer("a", "\n\nb\n\n\n\nc", "d")
    assert step_lengths([1, 2, 3], tokenizer, StepSplitter()) == (["a", "b\n\n\n\ncd"], [2, 1])
