"""GRPO with dense step rewards from a PRM and outcomes from a verifier.

accelerate launch recipes/grpo_prm.py                                      # the embedded toy world
accelerate launch recipes/grpo_prm.py --config recipes/configs/gsm8k_smoke.yaml
accelerate launch recipes/grpo_prm.py --config recipes/configs/qwen2.5-math-1.5b_prm-7b.yaml
"""

from pathlib import Path

from trl import ModelConfig, get_peft_config

from rlhf_prm.rl.config import ProcessGRPOConfig
from rlhf_prm.rl.grpo import ProcessGRPOTrainer
from rlhf_prm.rl.master_weights import refuse_low_precision
from rlhf_prm.runs.arguments import RecipeArguments, parse
from rlhf_prm.runs.errors import user_errors
from rlhf_prm.runs.sources import Sources, load_sources, refuse_revision
from rlhf_prm.runs.train import check_settings, run_and_compare

ARGUMENTS = (RecipeArguments, ProcessGRPOConfig, ModelConfig)
TOY_WORLD = Path(__file__).parent / "configs" / "grpo_toyworld.yaml"


def main() -> None:
    with user_errors():
        recipe, config, model_args = parse(ARGUMENTS, default_config=TOY_WORLD)
        check_settings(recipe, config)
        refuse_revision(recipe, config, model_args)
        if not model_args.use_peft:
            refuse_low_precision(model_args.dtype, config, config.learning_rate)
        sources = load_sources(recipe, model_args, config.seed)

    def build_trainer(config: ProcessGRPOConfig, callbacks: list, sources: Sources) -> ProcessGRPOTrainer:
        return ProcessGRPOTrainer(
            model=sources.policy(),
            args=config,
            train_dataset=sources.train_dataset,
            eval_dataset=sources.eval_dataset,
            processing_class=sources.tokenizer,
            step_scorer=sources.step_scorer,
            verifier=sources.verifier,
            callbacks=callbacks,
            peft_config=get_peft_config(model_args),
        )

    with sources:
        run_and_compare(recipe, config, sources, build_trainer)


if __name__ == "__main__":
    main()
