.DEFAULT_GOAL := help
.PHONY: help format lint type test cover docs bench demo layout all

help: ## Show what there is
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "%-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

format: ## Format and mend what can be mended
	uv run --group lint ruff format .
	uv run --group lint ruff check --fix .

lint: ## Check style and layers
	uv run --group lint ruff check .
	uv run --group lint ruff format --check .
	uv run --group lint lint-imports

type: ## Check types
	uv run --group typing mypy

test: ## Run the tests
	uv run --group test pytest

cover: ## Run the tests and show what they do not reach
	uv run --group test pytest --cov --cov-report=term-missing

docs: ## Build the docs, strictly
	uv run --group docs mkdocs build --strict

bench: ## A short look at every benchmark
	for script in benchmarks/*.py; do uv run --group test python $$script --quick || exit 1; done

demo: ## The whole story
	uv run streamguard demo

layout: ## Renew the layout table of CONTRIBUTING.md
	python3 .ci/layout.py

all: ## What CI checks
	bash .ci/run
