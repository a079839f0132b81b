"""The toy world's tokenizer: one token per word of its small language; a text is the tokens' texts joined."""

from collections.abc import Sequence

from transformers import AddedToken, PreTrainedTokenizerFast, Qwen2Tokenizer

from rlhf_prm.toyworld.problems import ANSWER, FILLERS, HEADER, OPERATIONS, SEPARATOR

PAD, EOS, UNKNOWN, STEP_TAG = "<pad>", "<eos>", "<unk>", "<extra_0>"
WORDS = (SEPARATOR, HEADER, *(f" {name} " for name in OPERATIONS), " = ", ANSWER, "}", *FILLERS, *map(str, range(10)))

# How a process reward model reads a problem and its tagged steps: one after the other, as they are. The language has no
# words for a system message.
CHAT_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] != 'system' %}{{ message['content'] }}{% endif %}{% endfor %}"
)


def toy_tokenizer(more_words: Sequence[str] = ()) -> PreTrainedTokenizerFast:
    """A tokenizer of 25 tokens, and one for each of ``more_words``. ``decode`` gives back exactly the text that was
    encoded; characters that belong to no word of the language are left out.

    ``AutoTokenizer`` gives every Qwen2 checkpoint the class ``Qwen2Tokenizer``, which brings its own way of cutting a
    text. Added tokens are cut out before that, so every word is one.
    """
    words = (*WORDS, *more_words)
    vocabulary = {token: index for index, token in enumerate((PAD, EOS, UNKNOWN, STEP_TAG, *words))}
    tokenizer = Qwen2Tokenizer(
        vocab=vocabulary,
        merges=[],
        pad_token=PAD,
        eos_token=EOS,
        unk_token=UNKNOWN,
        additional_special_tokens=[STEP_TAG],
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=256,
        chat_template=CHAT_TEMPLATE,
    )
    tokenizer.add_tokens([AddedToken(word, normalized=False) for word in words])
    return tokenizer
