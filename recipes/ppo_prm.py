"""PPO with a critic, dense rewards from a PRM and outcomes from a verifier.

accelerate launch recipes/ppo_prm.py                                       # the embedded toy world
accelerate launch recipes/ppo_prm.py --config recipes/configs/ppo_gsm8k_smoke.yaml
accelerate launch --config_file recipes/accelerate/cpu_zero3.yaml recipes/ppo_prm.py --config …
"""

from pathlib import Path

from trl import ModelConfig, get_peft_config

from rlhf_prm.rl.master_weights import refuse_low_precision
from rlhf_prm.rl.ppo import ProcessPPOTrainer
from rlhf_prm.rl.ppo_config import ProcessPPOConfig
from rlhf_prm.runs.arguments import RecipeArguments, parse
from rlhf_prm.runs.errors import user_errors
from rlhf_prm.runs.sources import Sources, load_sources, refuse_revision
from rlhf_prm.runs.train import check_settings, run_and_compare

ARGUMENTS = (RecipeArguments, ProcessPPOConfig, ModelConfig)
TOY_WORLD = Path(__file__).parent / "configs" / "ppo_toyworld.yaml"


def main() -> None:
    with user_errors():
        recipe, config, model_args = parse(ARGUMENTS, default_config=TOY_WORLD)
        check_settings(recipe, config)
        refuse_revision(recipe, config, model_args)
        if not model_args.use_peft:
            refuse_low_precision(model_args.dtype, config, config.learning_rate)
        sources = load_sources(recipe, model_args, config.seed)

    def build_trainer(config: ProcessPPOConfig, callbacks: list, sources: Sources) -> ProcessPPOTrainer:
        return ProcessPPOTrainer(
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
