# TextKeep: `make quickstart` shows it at work, `make test` checks it. Both set up .venv first, once.

PYTHON ?= python3
VENV   ?= .venv
WORKERS ?= 2
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check
START  := $(shell date +%s)
# Processes that share the tests, each on one thread: two cores are done in half the time.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS)

INSTALLED := $(VENV)/.installed
DEVELOP   := $(VENV)/.develop

# What tests need of `textkeep assets`, 340 MB once: a test that is skipped for want of it fails (tests/skips.py).
ASSETS := smollm2-135m-instruct whisper-tiny.en flite kokoro fact-sources wordnet prose-sources

ROOMS := callbacks datamodules evaluation foundation importance inference lightning_modules runs

.PHONY: quickstart test lint types slow docs assets install clean help

help:  ## this list
	@grep -hE '^[a-z]+:.*##' Makefile | sed -E 's/:.*## /\t/' | sort

install: $(INSTALLED)  ## .venv with the pinned versions of constraints.txt

# PyTorch first and alone: it is the largest part by far, and a change of the rest then leaves it in place.
$(VENV)/.torch:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "TextKeep needs Python 3.11 or later; name one: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@echo "Installing PyTorch into $(VENV) (once, 5 GB) ..."
	@$(PIP) "torch==2.14.1"
	@touch $@

$(INSTALLED): $(VENV)/.torch pyproject.toml constraints.txt
	@echo "Installing TextKeep and what it needs into $(VENV) ..."
	@$(PIP) --constraint constraints.txt --editable ".[speak]"
	@touch $@

$(DEVELOP): $(INSTALLED)
	@$(PIP) --constraint constraints.txt --editable ".[speak,dashboard,lm-eval,slurm,bench,dev,docs]"
	@mkdir -p $(VENV)/types && ln -sfn ../.. $(VENV)/types/textkeep  # what mypy_path in pyproject.toml is about
	@touch $@

# The remedy of the quickstart, over configs/quickstart.yaml: LoRA that acts where a question was spoken, at the rate
# that served it best in docs/results/study.md.
GATED := --config configs/tuning/lora_gated_turns.yaml --model.optimizer.init_args.lr 0.0005 \
	--trainer.default_root_dir outputs/quickstart-gated

# Do the scores foretell what a layer is worth? A short test; docs/importance.md has longer ones.
VERIFIED := --data plain-text/probe --granularity layer --shrink 1 --examples 8 --tokens 48

quickstart: $(INSTALLED)  ## teach a small LLM to listen twice, and show what its text lost and kept (9 minutes on 2 cores after the downloads)
	@set -e; ready=$$(date +%s); newest() { ls -td outputs/quickstart*/ | head -n 1 | sed 's:/$$::'; }; \
	$(BIN)/textkeep assets; fetched=$$(date +%s); \
	$(BIN)/textkeep fit --config configs/quickstart.yaml; full=$$(newest); \
	$(BIN)/textkeep fit --config configs/quickstart.yaml $(GATED); gated=$$(newest); trained=$$(date +%s); \
	for run in $$full $$gated; do \
		$(BIN)/textkeep test --config $$run/config.yaml --ckpt_path last --data.eval_limit 80; \
		$(BIN)/textkeep importance verify $$run $(VERIFIED); \
	done; tested=$$(date +%s); \
	$(BIN)/textkeep report $$full $$gated; reported=$$(date +%s); \
	echo; echo "runs:    $$full $$gated"; \
	echo "seconds: set-up $$((ready - $(START))), models $$((fetched - ready))," \
		"training and measuring $$((trained - fetched)), tests and checks $$((tested - trained)), report $$((reported - tested))"

test: lint types assets  ## lint, types and the quick tests
	$(PYTEST) --dist loadfile

lint: $(DEVELOP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(DEVELOP)
	$(BIN)/mypy

assets: $(DEVELOP)  ## the small models, voices and texts that the tests use
	@for asset in $(ASSETS); do $(BIN)/textkeep assets $$asset || echo "tests that need $$asset will fail"; done

slow: assets  ## the tests that take more than five seconds
	$(PYTEST) --dist worksteal -m "slow and not gpu"

# The packages under the name that they have when installed. With a file of its own the folder is all of the package:
# otherwise mkdocstrings would go through the whole clone, .venv and all.
API := build/api/textkeep
docs: $(DEVELOP)  ## the documents and the API reference as a site in site/, every link checked
	@mkdir -p $(API) && touch $(API)/__init__.py && for room in $(ROOMS); do ln -sfn ../../../$$room $(API)/$$room; done
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

clean:  ## caches and build outputs; leaves .venv and outputs
	rm -rf build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
