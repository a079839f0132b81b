"""The toy world's tokenizer: one token per word of its little language, and text = the tokens' texts in a row."""

import re

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from rlhf_prm.toyworld.problems import ANSWER, FILLERS, HEADER, OPERATIONS, SEPARATOR

PAD, EOS, UNKNOWN, STEP_TAG = "<pad>", "<eos>", "<unk>", "<extra_0>"
WORDS = (SEPARATOR, HEADER, *(f" {name} " for name in OPERATIONS), " = ", ANSWER, "}", *FILLERS, *map(str, range(10)))

# A problem and its tagged steps as a process reward model reads them; the system message does not exist here.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ message['content'] | trim }}{{ '\n\n' }}{% endif %}"
    "{% if message['role'] == 'assistant' %}{{ message['content'] }}{{ eos_token }}{% endif %}"
    "{% endfor %}"
)


def toy_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer of 25 tokens. ``decode`` gives back exactly the text that was encoded, except that text which belongs
    to no word of the language becomes ``<unk>``."""
    vocabulary = {token: index for index, token in enumerate((PAD, EOS, UNKNOWN, STEP_TAG, *WORDS))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    longest_first = sorted(WORDS, key=len, reverse=True)
    pattern = Regex("|".join(re.escape(word) for word in longest_first))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(pattern, behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=EOS,
        unk_token=UNKNOWN,
        additional_special_tokens=[STEP_TAG],
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=256,
        chat_template=CHAT_TEMPLATE,
    )
    # Beside a qwen2 config.json AutoTokenizer rebuilds a byte-level BPE of the vocabulary, without this pre-tokenizer;
    # added tokens are found in the text before that, so the words survive.
    fast.add_tokens([AddedToken(word, normalized=False) for word in WORDS])
    return fast
