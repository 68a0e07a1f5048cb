# The ways into medseg from a checkout. `make` alone lists them.
.PHONY: help demo test check bench
.DEFAULT_GOAL := help

bin := .venv/bin
installed := .venv/.installed

help: ## show this list
	@sed -n 's/^\([a-z.]*\):.*## /  make \1\t/p' Makefile | expand -t 16

# Made anew whenever pyproject.toml changes, so that nothing that was dropped stays behind.
$(installed): pyproject.toml
	@python=$$(.ci/prerequisites) && rm -rf .venv && $$python -m venv .venv
	@echo "installing medseg and its dependencies into .venv (7 GB, some minutes)"
	@$(bin)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	@touch $@

.venv: $(installed) ## the environment that the other targets use

demo: $(installed) ## phantoms, training, masks and scores in demo/
	@$(bin)/medseg demo -o demo

test: $(installed) ## the test suite
	@$(bin)/python -m pytest -q -n logical --dist loadscope

check: $(installed) ## lint, format, types, direction of the imports
	@$(bin)/ruff check .
	@$(bin)/ruff format --check .
	@$(bin)/mypy
	@$(bin)/lint-imports --no-cache

# Longer ones have folders and parts of their own: benchmarks/vessels.py, vessel_speed.py, real_volumes.py.
bench: $(installed) ## the benchmarks, about an hour; never part of the tests
	@for name in features reconstruction filter_bank memory; do \
		echo "benchmarks/$$name.py"; $(bin)/python benchmarks/$$name.py || exit 1; \
	done
