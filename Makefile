BIN := .venv/bin
STAMP := .venv/.installed
BENCH ?= runs/benchmarks

.PHONY: help install quickstart test slow bench clean

help:
	@echo "make quickstart   install into .venv, train ERM and BR-DRO on digits, print a table, write a figure"
	@echo "make test         install into .venv, then ruff, mypy --strict and pytest"
	@echo "make slow         the heavier tests"
	@echo "make bench        all benchmarks that need no peer; BENCH=FOLDER takes what they write"

install: $(STAMP)

$(STAMP): requirements/cpu.lock requirements/install.sh pyproject.toml
	requirements/install.sh
	@touch $@

quickstart: $(STAMP)
	$(BIN)/surefoot fit --config configs/erm_digits.yaml
	$(BIN)/surefoot fit --config configs/br_dro_digits.yaml
	$(BIN)/surefoot report runs/erm_digits/latest runs/br_dro_digits/latest --out runs/quickstart

test: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -n 2

slow: $(STAMP)
	$(BIN)/pytest -m slow

bench: $(STAMP)
	@mkdir -p $(BENCH)
	$(BIN)/python benchmarks/group_robust.py --out $(BENCH)
	$(BIN)/python benchmarks/reasoning_learning.py --out $(BENCH)/reasoning_learning.json
	$(BIN)/python benchmarks/reasoning.py --cases generate logits --out $(BENCH)/reasoning.json
	$(BIN)/python benchmarks/monte_carlo.py --out $(BENCH)/monte_carlo.json
ifdef SUREFOOT_DATA
	$(BIN)/python benchmarks/constant_solution.py --out $(BENCH)
	$(BIN)/python benchmarks/smollm2_gsm8k.py --out $(BENCH)/smollm2_gsm8k.json
	$(BIN)/python benchmarks/smollm2_verifiers.py --out $(BENCH)/smollm2_verifiers.json
	$(BIN)/python benchmarks/preference_pairs.py --out $(BENCH)/preference_pairs.json
else
	@echo "SUREFOOT_DATA=FOLDER make bench also runs what needs CIFAR-10, GSM8K and BIG-Bench Mistake:"
	@echo "  benchmarks/constant_solution.py, benchmarks/smollm2_gsm8k.py, benchmarks/smollm2_verifiers.py"
	@echo "  and benchmarks/preference_pairs.py"
endif
	@echo "written to $(BENCH). Beside peers, in an environment of their own:"
	@echo "  python benchmarks/reasoning.py --peers PYTHON_WITH_TRL_1.16 --out $(BENCH)/reasoning.json"
	@echo "  PYTHONPATH=. PYTHON_WITH_OPACUS_1.6 benchmarks/private_linear.py --out $(BENCH)"

clean:
	rm -rf .venv runs build *.egg-info
