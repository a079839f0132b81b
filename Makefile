# Two commands from a machine with only Python 3.11 and make:  make run   make test
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export TOKENIZERS_PARALLELISM := false

.PHONY: run test test-slow test-vllm ablate lint clean

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -c constraints.txt setuptools wheel ninja
	$(BIN)/pip install -q -c constraints.txt torch==2.13.0
	$(BIN)/pip install -q -c constraints.txt -e '.[test,peft,trackio]'
	DS_BUILD_OPS=0 $(BIN)/pip install -q -c constraints.txt --no-build-isolation -e '.[deepspeed]'
	touch $@

run: $(VENV)/.installed
	$(BIN)/accelerate launch --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no recipes/grpo_prm.py

test: $(VENV)/.installed
	$(BIN)/python -m pytest -n 2

test-slow: $(VENV)/.installed
	$(BIN)/python -m pytest -m slow

ablate: $(VENV)/.installed
	$(BIN)/rlhf-prm ablate --config recipes/configs/ablation_smoke.yaml

test-vllm: $(VENV)/.installed
	$(BIN)/python tests/vllm/install.py
	$(BIN)/python -m pytest -m vllm

lint: $(VENV)/.installed
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

clean:
	rm -rf runs build *.egg-info
