"""Texts of generated ids and where their steps end, against the slow way: decode every prefix."""

import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings, strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from rlhf_prm import token_text as module
from rlhf_prm.steps import StepSplitter, step_lengths
from rlhf_prm.token_text import texts_of_tokens, token_text
from rlhf_prm.toyworld.tokenizer import toy_tokenizer
from tests.tiny_models import byte_level_tokenizer, word_tokenizer

TEXTS = [
    "First, 3 + 4 = 7.\n\nThen 7 × 2 = 14 — so.\n\nAnswer: \\boxed{14}",
    "日本語の段落。\n\n次の段落。",
    "a\n\n\n\nb 🙂\n",
]


def sentencepiece_tokenizer(*, strips: bool) -> PreTrainedTokenizerFast:
    """▁ for blanks and single bytes for what is not in the vocabulary, as Llama 2's and Gemma's."""
    vocabulary = {"<unk>": 0, "<eos>": 1, "<pad>": 2}
    for piece in [*(f"<0x{byte:02X}>" for byte in range(256)), "<0xZZ>", *"▁abc.\n", "▁a", ".\n\n", "\n\n", "é"]:
        vocabulary.setdefault(piece, len(vocabulary))
    merges = [("▁", "a"), ("\n", "\n"), (".", "\n\n")]
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", byte_fallback=True))
    inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first" if strips else "never", split=False)
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    inner.decoder = decoders.Sequence([*parts, *([decoders.Strip(content=" ", left=1)] if strips else [])])
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<eos>", pad_token="<pad>", unk_token="<unk>")


def byte_level() -> PreTrainedTokenizerFast:
    tokenizer = byte_level_tokenizer(TEXTS, ["<eos>", "<pad>"], 300, eos_token="<eos>", pad_token="<pad>")
    tokenizer.add_tokens(["\n\nOh", "日 x"])  # added as they are: one of their characters is no byte's
    return tokenizer


KNOWN = {
    "byte_level": byte_level(),
    "llama_2": sentencepiece_tokenizer(strips=True),
    "gemma": sentencepiece_tokenizer(strips=False),
}
ASKED = {
    "toy_world": toy_tokenizer(),
    "words": word_tokenizer(["<pad>", "<eos>", "<unk>", "a", "b.", "\n\n", "日", "a\n\nb\n\nc"], r"\n\n| "),
}
TOKENIZERS = KNOWN | ASKED
SPLITTERS = [StepSplitter(), StepSplitter("\n"), StepSplitter("a"), StepSplitter(pattern=r"[.🙂]\s*|日")]


def slow_step_lengths(ids: Sequence[int], tokenizer, splitter: StepSplitter) -> tuple[list[str], list[int]]:
    """By decoding every prefix: a step ends with the first token after which the text is right up to its end."""
    prefixes = [tokenizer.decode(ids[:count], skip_special_tokens=True) for count in range(len(ids) + 1)]
    text = prefixes[-1]
    right = []
    for count, prefix in enumerate(prefixes):
        agreeing = [a == b for a, b in zip(prefix, text, strict=False)]
        right.append(agreeing.index(False) if False in agreeing else len(agreeing))
        following = next((n for n in range(count, len(ids)) if ids[n] != tokenizer.eos_token_id), None)
        if prefix.endswith("\ufffd") and following is not None and prefixes[following + 1] == prefix:
            right[-1] = min(right[-1], len(prefix) - 1)  # the next token is a part of the same broken character
    spans, lengths, begin = [], [], 0
    for _, content, end in splitter.cuts(text):
        count = next(n for n, characters in enumerate(right) if characters >= end)
        if count > sum(lengths):
            spans.append((begin, content))
            lengths.append(count - sum(lengths))
            begin = end
        elif end == len(text) and spans:
            spans[-1] = (spans[-1][0], content)
    if not spans:
        return [text.strip()], [len(ids)]
    lengths[-1] += len(ids) - sum(lengths)
    return [text[start:stop].strip() for start, stop in spans], lengths


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_steps_of_texts_are_those_of_the_slow_way(name, data):
    """Real text with special tokens in it, cut anywhere: in mid-character too."""
    tokenizer, splitter = TOKENIZERS[name], data.draw(st.sampled_from(SPLITTERS))
    alphabet = ["a", "b.", " ", "\n\n", "\n", "é", "日", "🙂", "\ufffd", "a.\n\n", " c", "\n\nOh"]
    ids = tokenizer("".join(data.draw(st.lists(st.sampled_from(alphabet), max_size=20))))["input_ids"]
    for _ in range(data.draw(st.integers(0, 3))):
        ids.insert(data.draw(st.integers(0, len(ids))), tokenizer.eos_token_id)
    ids = ids[: data.draw(st.integers(0, len(ids)))]
    assert step_lengths(ids, tokenizer, splitter) == slow_step_lengths(ids, tokenizer, splitter)


@pytest.mark.parametrize("name", KNOWN)
@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_steps_of_any_ids_are_those_of_the_slow_way(name, data):
    """Ids that no text gives: broken characters, specials in the middle, ids past the vocabulary."""
    tokenizer, splitter = TOKENIZERS[name], data.draw(st.sampled_from(SPLITTERS[:3]))
    paragraph = tokenizer("\n\n")["input_ids"]
    parts = [i for text in ("🙂", "日", "é") for i in tokenizer(text)["input_ids"]]
    one = st.one_of(st.sampled_from([*parts, *paragraph]), st.integers(0, len(tokenizer) + 3))
    ids = data.draw(st.lists(one, max_size=24))
    assert token_text(ids, tokenizer).text == tokenizer.decode(ids, skip_special_tokens=True)
    assert step_lengths(ids, tokenizer, splitter) == slow_step_lengths(ids, tokenizer, splitter)


def test_what_is_not_yet_complete_does_not_count():
    """By hand: "日" is three bytes, and a broken "🙂" of two is one replacement character."""
    tokenizer = KNOWN["llama_2"]
    byte = {b: tokenizer.convert_tokens_to_ids(f"<0x{b:02X}>") for b in range(256)}
    day = [byte[b] for b in "日".encode()]
    assert token_text(day, tokenizer).tokens_until([0, 1]) == [0, 3]
    assert token_text([*day, 1, *day], tokenizer).tokens_until([1, 2]) == [3, 7]  # <eos> in the middle
    level = KNOWN["byte_level"]
    smile = level("🙂")["input_ids"]
    if len(smile) == 4:
        written = token_text([*smile[:2], *level("b")["input_ids"]], level)
        assert (written.text, written.tokens_until([1, 2])) == ("\ufffdb", [2, 3])


@pytest.mark.parametrize("name", KNOWN)
def test_the_tokenizer_is_not_asked_for_the_text(name, monkeypatch):
    tokenizer = TOKENIZERS[name]
    ids = tokenizer("a b.\n\n🙂 日\n\n" * 30)["input_ids"]
    monkeypatch.setattr(tokenizer, "decode", lambda *a, **k: pytest.fail("asked"))
    token_text(ids, tokenizer)


def test_where_the_tokenizer_is_asked_only_parts_of_characters_are_decoded_one_by_one(monkeypatch):
    """A long text with a few characters of several tokens: a handful of decodings, the same ends as by all of them."""
    for tokenizer in KNOWN.values():
        ids = tokenizer("ab. c\n\na 🙂 b.\n\n" * 40, add_special_tokens=False)["input_ids"]
        smile = [i for i in tokenizer("🙂", add_special_tokens=False)["input_ids"] if tokenizer.decode([i]) == "\ufffd"]
        ids[7:7] = [
            *smile[:2],
            tokenizer.eos_token_id,
            *smile[2:],
        ]  # decoded without the special token, it is one smile
        text, ends = module._character_ends(ids, tokenizer)
        assert ends == module._incremental_ends(ids, tokenizer, len(text)) and ends[-1] == len(text)
        calls, decode = [], tokenizer.decode
        monkeypatch.setattr(tokenizer, "decode", lambda *a, _d=decode, _c=calls, **k: _c.append(1) or _d(*a, **k))
        module._character_ends(ids, tokenizer)
        assert len(calls) < len(ids) / 1.2


def test_tokens_added_later_are_known():
    tokenizer = byte_level()
    token_text([5], tokenizer)
    tokenizer.add_tokens(["new one"])
    assert token_text([len(tokenizer) - 1], tokenizer).text == "new one"


def test_a_negative_id_is_refused():
    with pytest.raises(ValueError, match="got -1"):
        token_text([4, -1], KNOWN["byte_level"])


def test_random_ids_of_a_long_completion():
    draw = random.Random(0)
    for tokenizer in KNOWN.values():
        ids = [draw.randrange(len(tokenizer)) for _ in range(3000)]
        assert token_text(ids, tokenizer).text == tokenizer.decode(ids, skip_special_tokens=True)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_the_texts_of_tokens_are_the_text_cut_where_its_characters_are_complete(name):
    tokenizer = TOKENIZERS[name]
    for text in TEXTS:
        ids = [*tokenizer(text, add_special_tokens=False).input_ids, tokenizer.eos_token_id]
        texts = texts_of_tokens(ids, tokenizer)
        assert len(texts) == len(ids) and texts[-1] == ""
        assert "".join(texts) == tokenizer.decode(ids, skip_special_tokens=True)
    assert texts_of_tokens([], tokenizer) == []


def test_a_character_of_several_tokens_belongs_to_the_one_that_completes_it():
    tokenizer = KNOWN["gemma"]
    ids = [tokenizer.convert_tokens_to_ids(piece) for piece in ("▁a", "<0xE6>", "<0x97>", "<0xA5>", ".")]
    assert texts_of_tokens(ids, tokenizer) == [" a", "", "", "日", "."]
