"""GRPO for a policy that acts: tools or an environment, scores of its turns, outcomes from a verifier.

accelerate launch recipes/grpo_tools.py                                      # the embedded tool world
accelerate launch recipes/grpo_tools.py --config recipes/configs/qwen3-1.7b_python.yaml
"""

from pathlib import Path

from trl import ModelConfig, get_peft_config

from rlhf_prm.rl.config import ProcessGRPOConfig
from rlhf_prm.rl.grpo import ProcessGRPOTrainer
from rlhf_prm.rl.master_weights import refuse_low_precision
from rlhf_prm.runs.arguments import RecipeArguments, parse
from rlhf_prm.runs.errors import user_errors
from rlhf_prm.runs.sources import Sources, load_sources, refuse_revision
from rlhf_prm.runs.tools import ToolArguments, tool_world
from rlhf_prm.runs.train import check_settings, run_and_compare

ARGUMENTS = (RecipeArguments, ToolArguments, ProcessGRPOConfig, ModelConfig)
TOOL_WORLD = Path(__file__).parent / "configs" / "grpo_tool_world.yaml"


def main() -> None:
    with user_errors():
        recipe, tools, config, model_args = parse(ARGUMENTS, default_config=TOOL_WORLD)
        check_settings(recipe, config)
        if recipe.prm_refresh:
            raise ValueError("prm_refresh: got settings with tools, expected none: it does not read tool results yet")
        refuse_revision(recipe, config, model_args)
        if not model_args.use_peft:
            refuse_low_precision(model_args.dtype, config, config.learning_rate)
        if recipe.dataset is None:
            if tools.tools or tools.environment or model_args.model_name_or_path:
                raise ValueError("tools: got a model, tools or an environment without a dataset, expected all or none")
            sources, acting = tool_world(recipe, config.seed)
        else:
            acting = tools.trainer_arguments()
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
            **acting,
        )

    with sources:
        run_and_compare(recipe, config, sources, build_trainer)


if __name__ == "__main__":
    main()
