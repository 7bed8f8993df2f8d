BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: help install quickstart test slow bench clean

help:
	@echo "make quickstart   install into .venv, train ERM and BR-DRO on digits, print a table, write a figure"
	@echo "make test         install into .venv, then ruff, mypy --strict and pytest"
	@echo "make slow         the heavier tests"
	@echo "make bench        speed of every method beside a bare PyTorch loop"

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
	$(BIN)/python benchmarks/group_robust.py

clean:
	rm -rf .venv runs build *.egg-info
