"""Any decoder becomes a PRM: trained, saved, loaded, with the scores that the trainer itself saw."""

import json
import warnings

import pytest
import torch
from peft import LoraConfig
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING,
    AutoModelForCausalLM,
    AutoModelForTokenClassification,
    BertConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    Olmo2Config,
    Phi3Config,
    PhiConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForTokenClassification,
    Qwen3Config,
)

from rlhf_prm.prm import load_prm
from rlhf_prm.prm.decoders import decoder_class
from rlhf_prm.prm_training.along import go_on_learning
from rlhf_prm.prm_training.config import PRMConfig
from rlhf_prm.prm_training.trainer import PRMTrainer, merge_adapter
from rlhf_prm.prm_training.versions import Versions
from tests.prm_training.conftest import stepwise_rows

WORDS = ["<s>", "</s>", "<unk>", "add", "good", "bad", "so", "1", "2", "3", "user", "model"]
TEMPLATE = (  # Gemma's and Mistral's kind: BOS written out, and a system turn refused
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system turn') }}"
    "{% endif %}{{ m['role'] + ' ' + m['content'] + ' ' }}{% endfor %}"
)
SMALL = {
    "vocab_size": len(WORDS), "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "head_dim": 16,
    "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 128, "initializer_range": 0.3,
    "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": None,
}  # fmt: skip
DECODERS = {
    "llama": LlamaConfig(**SMALL),
    "mistral": MistralConfig(**SMALL, sliding_window=4),
    "gemma": GemmaConfig(**SMALL),
    "gemma2": Gemma2Config(**SMALL, sliding_window=4, query_pre_attn_scalar=16),
    "gemma3": Gemma3TextConfig(**SMALL, sliding_window=4, query_pre_attn_scalar=16),
    "phi": PhiConfig(**SMALL),
    "phi3": Phi3Config(**SMALL),
    "qwen2": Qwen2Config(**SMALL),
    "qwen3": Qwen3Config(**SMALL),
    "olmo2": Olmo2Config(**SMALL),
    "gpt2": GPT2Config(
        vocab_size=len(WORDS), n_embd=32, n_layer=2, n_head=2, n_positions=128, initializer_range=0.3,
        bos_token_id=0, eos_token_id=1,
    ),
}  # fmt: skip
ARCHITECTURES = {
    "qwen2": "Qwen2ForProcessRewardModel",
    "gemma3": "Gemma3ForTokenClassification",  # the name that vLLM knows the body by
    "llama": "LlamaForTokenClassification",
}


def tokenizer(chat_template: str | None) -> PreTrainedTokenizerFast:
    """Without a pad token and without a step tag, and with a BOS before every text, as Llama's."""
    inner = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=inner, chat_template=chat_template, **names)


@pytest.fixture
def language_model(tmp_path):
    def made(name, chat_template=TEMPLATE):
        torch.manual_seed(0)
        if name == "qwen2":  # Qwen2.5-Math-PRM's format has a system turn
            chat_template = chat_template and chat_template.replace("raise_exception('no system turn')", "''")
        folder = tmp_path / f"{name}-lm"
        AutoModelForCausalLM.from_config(DECODERS[name]).save_pretrained(folder)
        tokenizer(chat_template).save_pretrained(folder)
        return folder

    return made


def config(folder, **settings) -> PRMConfig:
    defaults = {
        "output_dir": str(folder), "per_device_train_batch_size": 8, "max_steps": 2, "learning_rate": 1e-2,
        "report_to": "none", "save_strategy": "no", "use_cpu": True, "disable_tqdm": True, "seed": 0,
        "lr_scheduler_type": "constant", "steps_after_error": "keep",
    }  # fmt: skip
    return PRMConfig(**defaults | settings)


def own_scores(trainer: PRMTrainer) -> list[list[float]]:
    """As the trainer's evaluation reads them, in the order of its (sorted) rows."""
    evaluated = trainer.predict(trainer.eval_dataset)
    return [[float(score) for score in row if score != -100] for row in evaluated.predictions]


def loaded_scores(folder, trainer: PRMTrainer, rows) -> list[list[float]]:
    """By ``load_prm``, in the same order: rows are told apart by their ids."""
    scorer = load_prm(folder)
    scores = scorer.score(list(rows["prompt"]), list(rows["completions"]))
    by_ids = {
        tuple(scorer.family.rendered(scorer.texts, row["prompt"], row["completions"]).ids): score
        for row, score in zip(rows, scores, strict=True)
    }
    return [by_ids[tuple(row["input_ids"])] for row in trainer.eval_dataset]


@pytest.mark.parametrize("chat_template", [TEMPLATE, None], ids=["chat", "plain"])
@pytest.mark.parametrize("name", DECODERS)
def test_trained_saved_loaded_scores_alike(name, chat_template, language_model, tmp_path):
    rows, out = stepwise_rows(24, seed=3), tmp_path / "prm"
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        trainer = PRMTrainer(str(language_model(name, chat_template)), config(out), stepwise_rows(32), rows)
    before = own_scores(trainer)
    trainer.train()
    expected = own_scores(trainer)
    trainer.save_model()
    found = loaded_scores(out, trainer, rows)
    for ours, theirs, first in zip(found, expected, before, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-5)
        assert ours != pytest.approx(first, abs=1e-3)  # two updates were made
    assert max(map(max, found)) - min(map(min, found)) > 0.02
    saved = json.loads((out / "config.json").read_text())
    assert saved["architectures"] == [ARCHITECTURES.get(name, saved["architectures"][0])]
    ids = torch.tensor([trainer.train_dataset[0]["input_ids"]])
    assert ids[0, 0] == 0 and (ids[0, 1:] != 0).all()  # one BOS, with a chat template and without
    if name != "qwen2" and type(DECODERS[name]) in MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING:
        plain = AutoModelForTokenClassification.from_pretrained(out).eval()
        torch.testing.assert_close(plain(ids).logits, trainer.model.eval()(ids).logits)


@pytest.mark.parametrize("name", DECODERS)
def test_the_head_at_step_ends_alone_gives_the_same_gradients(name, language_model, tmp_path):
    trainer = PRMTrainer(str(language_model(name)), config(tmp_path / "prm"), stepwise_rows(8))
    assert trainer._reads_step_ends
    batch = trainer.data_collator([trainer.train_dataset[index] for index in range(8)])
    model = trainer.model.eval()
    gradients = []
    for fast in (True, False):
        trainer._reads_step_ends = fast
        model.zero_grad()
        trainer.compute_loss(model, batch).backward()
        gradients.append({key: value.grad.clone() for key, value in model.named_parameters() if value.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for key, value in gradients[0].items():
        torch.testing.assert_close(value, gradients[1][key], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("target_modules", [["q_proj", "v_proj"], "all-linear"])
@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_lora(name, target_modules, language_model, tmp_path):
    rows, out, base = stepwise_rows(16, seed=3), tmp_path / "prm", language_model(name)
    lora = LoraConfig(r=4, target_modules=target_modules, init_lora_weights=False)
    trainer = PRMTrainer(str(base), config(out), stepwise_rows(32), rows, peft_config=lora)
    before = {key: value.detach().clone() for key, value in trainer.model.state_dict().items()}
    trainer.train()
    moved = {key for key, value in trainer.model.state_dict().items() if not torch.equal(value, before[key])}
    assert moved and all("lora_" in key or "modules_to_save" in key for key in moved)
    assert any("score.modules_to_save" in key for key in moved)
    expected = own_scores(trainer)
    trainer.save_model()
    merge_adapter(base, out / "adapter", tmp_path / "merged")
    for folder in (out, tmp_path / "merged"):
        for ours, theirs in zip(loaded_scores(folder, trainer, rows), expected, strict=True):
            assert ours == pytest.approx(theirs, abs=1e-5)


def test_a_prm_is_trained_on_with_its_own_head(language_model, tmp_path):
    first = PRMTrainer(str(language_model("llama")), config(tmp_path / "first"), stepwise_rows(16))
    first.train()
    first.save_model()
    again = PRMTrainer(str(tmp_path / "first"), config(tmp_path / "second"), stepwise_rows(16))
    torch.testing.assert_close(again.model.state_dict(), first.model.state_dict())
    assert len(again.processing_class) == len(WORDS) + 1


def test_a_token_classifier_of_others_keeps_its_head_and_is_marked_as_ours_once_trained(tmp_path):
    """A PRM trained with TRL reads line breaks; here it is trained on with step tags, and loaded so."""
    torch.manual_seed(0)
    theirs = Qwen2ForTokenClassification(Qwen2Config(**SMALL, num_labels=2))
    theirs.save_pretrained(tmp_path / "theirs")
    tokenizer(TEMPLATE).save_pretrained(tmp_path / "theirs")
    trainer = PRMTrainer(str(tmp_path / "theirs"), config(tmp_path / "ours"), stepwise_rows(16))
    torch.testing.assert_close(trainer.model.score.weight, theirs.score.weight)
    trainer.save_model()
    assert load_prm(tmp_path / "ours").family.name == "decoder_prm"


def test_what_is_no_decoder_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"type 'bert', expected a decoder .*must not depend on what is written after"):
        decoder_class(BertConfig())
    BertConfig(vocab_size=20).save_pretrained(tmp_path)
    tokenizer(None).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="expected a decoder"):
        PRMTrainer(str(tmp_path), config(tmp_path / "prm"), stepwise_rows(4))


def test_a_body_with_missing_weights_is_refused(language_model, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = language_model("llama")
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"no weights for model\.layers\.1\.mlp\.up_proj\.weight"):
        PRMTrainer(str(folder), config(tmp_path / "prm"), stepwise_rows(4))


@pytest.mark.parametrize("name", ["llama", "gemma3", "gpt2"])
def test_a_prm_that_learnt_along_is_saved_in_its_own_layout(name, language_model, tmp_path):
    """Gemma 3 has no token classifier of transformers' own, and GPT-2's body and head have other names."""
    PRMTrainer(str(language_model(name)), config(tmp_path / "old"), stepwise_rows(16)).save_model()
    scorer = load_prm(tmp_path / "old")
    go_on_learning(scorer, list(stepwise_rows(32)), updates=3, batch_size=16, learning_rate=1e-2, seed=0)
    assert Versions(scorer, None).export(tmp_path / "new", scorer.texts.tokenizer)
    problems, steps = ["add 1", "add 2"], [["so good 1", "so bad 2"], ["so bad 1"]]
    found, wanted = load_prm(tmp_path / "new"), scorer.score(problems, steps)
    assert found.family.name == "decoder_prm"
    assert found.score(problems, steps) == wanted != load_prm(tmp_path / "old").score(problems, steps)
