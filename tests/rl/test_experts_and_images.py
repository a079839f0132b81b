"""Policies that are not dense models of text: experts with their router's term of the loss, and images in prompts."""

import pandas
import pytest
import torch
from datasets import Dataset, Image
from PIL import Image as Picture
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
    set_seed,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from trl import GRPOConfig, GRPOTrainer

from rlhf_prm.rl.grpo import ProcessGRPOTrainer
from rlhf_prm.rl.live_values import LiveMonteCarloScorer
from rlhf_prm.rl.ppo import ProcessPPOTrainer
from rlhf_prm.rl.ppo_config import ProcessPPOConfig
from tests.tiny import WORDS, DigitVerifier, HashScorer, digit_reward, tiny_config, tiny_dataset, tiny_tokenizer

ROUTER = 0.3


def policy_of_experts() -> Qwen3MoeForCausalLM:
    set_seed(0)
    return Qwen3MoeForCausalLM(
        Qwen3MoeConfig(
            vocab_size=len(WORDS),
            hidden_size=32,
            intermediate_size=64,
            moe_intermediate_size=16,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
            num_experts=4,
            num_experts_per_tok=2,
            max_position_embeddings=128,
            eos_token_id=1,
            pad_token_id=0,
            bos_token_id=None,
            initializer_range=0.3,
        )
    )


def losses(trainer) -> torch.Tensor:
    return torch.tensor([[log["loss"], log["grad_norm"]] for log in trainer.state.log_history if "loss" in log])


def test_grpo_on_experts_is_trls(tmp_path):
    """Method "outcome": losses, gradient norms, router terms and weights of TRL's own trainer, to the last bit."""
    common = dict(train_dataset=tiny_dataset(), processing_class=tiny_tokenizer())
    settings = dict(router_aux_loss_coef=ROUTER, max_steps=2, gradient_accumulation_steps=2)
    ours = ProcessGRPOTrainer(
        model=policy_of_experts(),
        args=tiny_config(tmp_path / "ours", method="outcome", **settings),
        verifier=DigitVerifier(),
        **common,
    )
    ours.train()
    theirs = GRPOTrainer(
        model=policy_of_experts(),
        args=tiny_config(tmp_path / "theirs", GRPOConfig, **settings),
        reward_funcs=[digit_reward],
        **common,
    )
    theirs.train()
    terms = [[log["aux_loss"] for log in t.state.log_history if "aux_loss" in log] for t in (ours, theirs)]
    assert terms[0] == terms[1] and len(terms[0]) == 2 and min(terms[0]) > 0
    torch.testing.assert_close(losses(ours), losses(theirs), rtol=0, atol=0)
    for mine, other in zip(ours.model.parameters(), theirs.model.parameters(), strict=True):
        assert torch.equal(mine, other)


@pytest.mark.parametrize("kind", ["grpo", "ppo"])
def test_the_routers_term_is_added_once(tmp_path, kind):
    """The first update of two runs that differ in the coefficient alone: the losses differ by coefficient × term."""
    found = []
    for coefficient in (ROUTER, 0.0):
        folder = tmp_path / str(coefficient)
        settings = dict(max_steps=1, router_aux_loss_coef=coefficient)
        if kind == "ppo":
            trainer_class, args = (
                ProcessPPOTrainer,
                tiny_config(folder, ProcessPPOConfig, num_generations=1, **settings),
            )
        else:
            trainer_class, args = ProcessGRPOTrainer, tiny_config(folder, **settings)
        trainer = trainer_class(
            model=policy_of_experts(),
            args=args,
            train_dataset=tiny_dataset(),
            processing_class=tiny_tokenizer(),
            step_scorer=HashScorer(),
            verifier=DigitVerifier(),
        )
        trainer.train()
        found.append(trainer.state.log_history[0])
    with_term, without = found
    assert "aux_loss" not in without and with_term["reward"] == without["reward"]
    assert with_term["loss"] - without["loss"] == pytest.approx(ROUTER * with_term["aux_loss"], rel=1e-4)


# Images

IMAGE_WORDS = [*WORDS, "<image>", " user", " assistant", " look"]
TEMPLATE = (
    "{% for m in messages %} {{ m['role'] }}{% if m['content'] is string %}{{ m['content'] }}{% else %}"
    "{% for c in m['content'] %}{% if c['type'] == 'image' %}<image>{% else %}{{ c['text'] }}{% endif %}{% endfor %}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %} assistant{% endif %}"
)


def image_processor() -> LlavaProcessor:
    """Words as in ``tiny_tokenizer``; pictures of 8 × 8 in four patches."""
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(IMAGE_WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"\n\n|<image>| [a-z]{2,}| \S"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    words = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<eos>",
        pad_token="<pad>",
        unk_token="<unk>",
        padding_side="left",
        extra_special_tokens={"image_token": "<image>"},
    )
    pictures = CLIPImageProcessorPil(size={"shortest_edge": 8}, crop_size={"height": 8, "width": 8})
    return LlavaProcessor(
        image_processor=pictures,
        tokenizer=words,
        patch_size=4,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    )


def policy_that_sees() -> LlavaForConditionalGeneration:
    set_seed(0)
    vision = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        projection_dim=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=8,
        patch_size=4,
    )
    text = LlamaConfig(
        vocab_size=len(IMAGE_WORDS),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        eos_token_id=1,
        pad_token_id=0,
        bos_token_id=None,
        initializer_range=0.3,
    )
    return LlavaForConditionalGeneration(
        LlavaConfig(vision_config=vision, text_config=text, image_token_index=IMAGE_WORDS.index("<image>"))
    )


def pictures_and_questions(rows: int = 16) -> Dataset:
    """One grey picture and one question each."""
    data = {
        "prompt": [[{"role": "user", "content": f" look {i % 10} ="}] for i in range(rows)],
        "image": [Picture.new("RGB", (8, 8), (16 * i, 16 * i, 16 * i)) for i in range(rows)],
        "solution": [str(i % 10) for i in range(rows)],
    }
    return Dataset.from_dict(data).cast_column("image", Image())


class Recorded(HashScorer):
    def __init__(self) -> None:
        self.problems: list[str] = []

    def score(self, problems, steps):
        self.problems += problems
        return super().score(problems, steps)


def test_grpo_with_images(tmp_path):
    """The PRM reads the question's text; token advantages are the steps'; the picture reaches the policy's loss."""
    scorer = Recorded()
    trainer = ProcessGRPOTrainer(
        model=policy_that_sees(),
        args=tiny_config(tmp_path, max_steps=2, max_completion_length=12),
        train_dataset=pictures_and_questions(),
        processing_class=image_processor(),
        step_scorer=scorer,
        verifier=DigitVerifier(),
    )
    batches, prepare = [], trainer._generate_and_score_completions
    trainer._generate_and_score_completions = lambda inputs: batches.append(prepare(inputs)) or batches[-1]
    before = [p.detach().clone() for p in trainer.model.model.vision_tower.parameters()]
    trainer.train()
    assert set(scorer.problems) <= {f" look {i} =" for i in range(10)}
    for batch in batches:
        assert batch["pixel_values"].shape[1:] == (3, 8, 8)
        assert batch["advantages"].shape == batch["completion_mask"].shape
    assert torch.isfinite(losses(trainer)).all() and losses(trainer)[:, 1].max() > 0
    after = trainer.model.model.vision_tower.parameters()
    assert any(not torch.equal(old, new) for old, new in zip(before, after, strict=True))


def test_grpo_with_images_is_trls(tmp_path):
    """Method "outcome": losses and gradient norms of TRL's own trainer, to the last bit."""
    settings = dict(max_steps=2, max_completion_length=12)
    common = dict(train_dataset=pictures_and_questions(), processing_class=image_processor())
    ours = ProcessGRPOTrainer(
        model=policy_that_sees(),
        args=tiny_config(tmp_path / "ours", method="outcome", **settings),
        verifier=DigitVerifier(),
        **common,
    )
    ours.train()
    theirs = GRPOTrainer(
        model=policy_that_sees(),
        args=tiny_config(tmp_path / "theirs", GRPOConfig, **settings),
        reward_funcs=[digit_reward],
        **common,
    )
    theirs.train()
    assert losses(ours)[:, 1].max() > 0
    torch.testing.assert_close(losses(ours), losses(theirs), rtol=0, atol=0)


class Tracker:
    """What TRL asks of a tracker that takes tables."""

    def __init__(self) -> None:
        self.tables: list[pandas.DataFrame] = []

    def Table(self, dataframe):
        return dataframe

    def Image(self, picture):
        return picture.size

    def log(self, what):
        self.tables.append(what["completions"])


def test_completions_go_to_a_tracker_with_our_columns_and_the_pictures(tmp_path, monkeypatch):
    """``log_unique_prompts`` leaves one row of each prompt; a row's columns are still those of one rollout."""
    tracker = Tracker()
    monkeypatch.setattr("trl.trainer.grpo_trainer.trackio", tracker, raising=False)
    tables = {"log_completions": True, "num_completions_to_print": 0, "log_multimodal": True}
    trainer = ProcessGRPOTrainer(
        model=policy_that_sees(),
        args=tiny_config(tmp_path, max_steps=1, log_unique_prompts=True, **tables),
        train_dataset=pictures_and_questions(8),
        processing_class=image_processor(),
        step_scorer=HashScorer(),
        verifier=DigitVerifier(),
    )
    log = trainer.log

    def with_a_tracker(*arguments):  # only here: TRL sends timings from elsewhere
        trainer.args.report_to = ["trackio"]
        log(*arguments)
        trainer.args.report_to = []

    trainer.log = with_a_tracker
    trainer.train()
    sent = tracker.tables[0]
    whole = pandas.read_parquet(tmp_path / "completions" / "completions_00001.parquet")
    rows = trainer.last_rollouts.rows
    assert len(whole) == 8 and len(sent) == 2 and list(sent["image"]) == [[(8, 8)]] * 2
    assert list(sent.columns) == [*whole.columns, "image"]
    for number, row in sent.iterrows():
        assert row["steps"] == rows[number].steps and row["step_scores"] == rows[number].scores


def test_what_reads_no_images_refuses_them(tmp_path):
    common = dict(train_dataset=pictures_and_questions(8), processing_class=image_processor(), verifier=DigitVerifier())
    with pytest.raises(ValueError, match="got a policy that reads images, expected one of text only"):
        ProcessGRPOTrainer(
            model=policy_that_sees(), args=tiny_config(tmp_path), step_scorer=LiveMonteCarloScorer(2), **common
        )
    with pytest.raises(ValueError, match="got a processor of images and text, expected a tokenizer"):
        ProcessPPOTrainer(
            model=policy_that_sees(),
            args=tiny_config(tmp_path, ProcessPPOConfig, num_generations=1),
            step_scorer=HashScorer(),
            **common,
        )
