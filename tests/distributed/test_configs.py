"""The launch configs: accelerate reads them, each is what its name says, the Slurm script is a script."""

import subprocess
from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = sorted((ROOT / "recipes" / "accelerate").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_accelerate_reads_it(path):
    config = load_config_from_file(str(path))
    assert "accelerate launch" in path.read_text().splitlines()[0]
    if path.stem.startswith("cpu"):
        assert config.use_cpu and (config.num_machines, config.num_processes) == (1, 2)
        assert str(config.distributed_type) != "MULTI_CPU"  # starts one process only
    else:
        assert not config.use_cpu and (config.num_machines, config.num_processes) == (2, 16)
    if "zero" in path.stem:
        assert config.deepspeed_config["zero_stage"] == int(path.stem.split("zero")[1][0])


def test_slurm_script_is_a_script_and_names_files_that_are_there():
    script = ROOT / "recipes" / "slurm" / "train_2x8.sh"
    subprocess.run(["bash", "-n", str(script)], check=True)
    text = script.read_text()
    assert "recipes/accelerate/zero3_2x8.yaml" in text and (ROOT / "recipes/accelerate/zero3_2x8.yaml").exists()
    refused = subprocess.run(["bash", str(script)], capture_output=True, text=True)
    assert refused.returncode == 2 and "usage: sbatch" in refused.stderr
