"""A process reward model from step labels.

accelerate launch recipes/train_prm.py                                                    # the embedded toy world
accelerate launch recipes/train_prm.py --config recipes/configs/train_prm_qwen2.5-math-7b.yaml
accelerate launch --config_file recipes/accelerate/zero3_2x8.yaml recipes/train_prm.py --config …
"""

from pathlib import Path

from trl import ModelConfig, get_peft_config

from rlhf_prm.experiment.arguments import parse, user_errors
from rlhf_prm.experiment.prm import PRMRecipeArguments, load_prm_sources
from rlhf_prm.trainers.master_weights import refuse_low_precision
from rlhf_prm.trainers.prm import PRMTrainer
from rlhf_prm.trainers.prm_config import PRMConfig

ARGUMENTS = (PRMRecipeArguments, PRMConfig, ModelConfig)
TOY_WORLD = Path(__file__).parent / "configs" / "train_prm_toyworld.yaml"


def main() -> None:
    with user_errors():
        recipe, config, model_args = parse(ARGUMENTS, default_config=TOY_WORLD)
        load = {"dtype": model_args.dtype, "attn_implementation": model_args.attn_implementation}
        config.model_init_kwargs = {**load, "revision": model_args.model_revision} | (config.model_init_kwargs or {})
        if not model_args.use_peft:
            refuse_low_precision(config.model_init_kwargs["dtype"], config, config.learning_rate)
        sources = load_prm_sources(recipe, model_args.model_name_or_path, config.seed)
        trainer = PRMTrainer(
            model=sources.model,
            args=config,
            train_dataset=sources.train_dataset,
            eval_dataset=sources.eval_dataset,
            peft_config=get_peft_config(model_args),
        )
    trainer.train(resume_from_checkpoint=config.resume_from_checkpoint)
    trainer.save_model()
    if sources.eval_dataset is not None:
        metrics = trainer.evaluate()
        trainer.log_metrics("eval", metrics)
        trainer.save_metrics("eval", metrics)


if __name__ == "__main__":
    main()
