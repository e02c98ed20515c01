# `make` lists what there is. Every target sets up what it needs, once.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# What to build .venv with; any Python from 3.10 on.
PYTHON ?= python3
export PYTHON

BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest
PRODUCT := .venv/ready
TORCH := .venv-torch/ready
VLLM_ENV := .venv-vllm/ready
NCCL := .cache/nccl/ready
ROUTERS := .cache/routers/ready
MODEL := .cache/tiny-model/ready
# `make test ARGS="-k peers"` passes arguments on to pytest, `make run ARGS=…` to the daemon.
ARGS ?=

.PHONY: help
help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile

.PHONY: setup
setup: $(PRODUCT) ## apt packages (as root) and the virtual environment .venv
	@echo "ready: $(BIN)/vllmwall"

.PHONY: run
run: $(PRODUCT) ## run the daemon on this host with the default configuration (root)
	@$(BIN)/vllmwall daemon $(ARGS)

.PHONY: demo
demo: $(PRODUCT) $(if $(VLLM),$(VLLM_ENV) $(MODEL),$(TORCH)) ## see it work on real torch, in namespaces of its own (root); VLLM=1: real vLLM
	@$(BIN)/python -m tests.demo $(if $(VLLM),--vllm)

.PHONY: test
test: $(PRODUCT) .cache/promtool-looked-for $(TORCH) $(ROUTERS) ## unit, kernel and real torch tests, side by side (root for most; minutes)
	@$(BIN)/python -m tests.suites fast $(ARGS)

.PHONY: test-all
test-all: ready-for-all ## every test: stories, real vLLM, packages, booted systems too (root)
	@$(BIN)/python -m tests.suites all $(ARGS)

.PHONY: ready-for-all
ready-for-all: $(PRODUCT) .cache/promtool-looked-for $(TORCH) $(VLLM_ENV) $(NCCL) $(MODEL) $(ROUTERS) .cache/cloud/ready

.PHONY: test-unit
test-unit: $(PRODUCT) .cache/promtool-looked-for ## what needs no namespaces: seconds, no root
	@$(PYTEST) -m "not kernel and not real and not system" -n auto --dist loadfile $(ARGS)

.PHONY: test-kernel
test-kernel: $(PRODUCT) ## real rules and real packets in network namespaces (root)
	@$(BIN)/python -m tests.suites kernel $(ARGS)

.PHONY: test-real
test-real: $(PRODUCT) $(TORCH) $(VLLM_ENV) $(NCCL) $(MODEL) $(ROUTERS) ## real torchrun, NCCL and vLLM behind the wall (root, minutes)
	@$(PYTEST) -m real $(ARGS)

.PHONY: test-qemu
test-qemu: $(PRODUCT) .cache/apt-qemu ## the .deb on Debian's stock kernel in an emulated machine (root, minutes); SUITE=trixie: 6.12
	@$(PYTEST) tests/qemu/stock_kernel.py -rP $(ARGS)

.PHONY: upstream
upstream: $(PRODUCT) $(MODEL) ## what the newest vLLM, SGLang, Ray, LMDeploy and Dynamo have that our tables do not know (root, minutes)
	@$(BIN)/python -m tests.upstream $(ARGS)

.PHONY: test-qemu-modules
test-qemu-modules: $(PRODUCT) .cache/apt-qemu ## VRF, ipvlan and IPVS there, by packets and a real daemon (root, minutes)
	@$(PYTEST) tests/qemu/modules.py -rP $(ARGS)

.PHONY: bench
bench: $(PRODUCT) .cache/apt-bench ## measure it beside its rivals (root, minutes); QUICK=1: one minute; ONLY=exposure: one part
	@$(BIN)/python -m tests.bench $(if $(QUICK),--quick) $(if $(ONLY),--only $(ONLY)) $(ARGS)

.PHONY: lint
lint: $(PRODUCT) ## ruff, mypy and the import layers
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --check --quiet
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/lint-imports >.cache/lint-imports.log || { cat .cache/lint-imports.log; exit 1; }
	@echo "lint: all good"

.PHONY: docs
docs: $(PRODUCT) ## regenerate the generated pages, figures and samples
	@$(BIN)/python packaging/config_docs.py
	@$(BIN)/python packaging/cli_docs.py
	@$(BIN)/python packaging/metrics_docs.py
	@$(BIN)/python packaging/findings.py >.cache/page && cp .cache/page docs/reference/findings.md
	@$(BIN)/python -m tests.bench.figures docs/reference/bench.json $$(grep -rl '<!-- figure' README.md docs)

.PHONY: man
man: $(PRODUCT) ## man pages and shell completions into build/
	@$(BIN)/python packaging/manpages.py build

.PHONY: deb rpm packages
deb: $(PRODUCT) ## the Debian package into dist/
	@packaging/build deb
rpm: $(PRODUCT) ## the RPM package into dist/
	@packaging/build rpm
packages: $(PRODUCT) ## both, and what is in them (CycloneDX)
	@packaging/build deb rpm

.PHONY: clean
clean: ## remove what make made, virtual environments too
	@rm -rf .venv .venv-torch .venv-vllm .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@rm -rf build dist *.egg-info .coverage*
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

.cache:
	@mkdir -p $@

.cache/apt: tests/setup/apt | .cache
	@tests/setup/apt
	@touch $@

.cache/apt-bench: tests/setup/bench .cache/apt
	@tests/setup/bench
	@touch $@

.cache/apt-qemu: tests/setup/qemu | .cache
	@tests/setup/qemu
	@touch $@

.cache/promtool-looked-for: tests/setup/promtool | .cache
	@tests/setup/promtool .cache
	@touch $@

.cache/cloud/ready: tests/setup/cloud .cache/apt
	@tests/setup/cloud $(@D)
	@touch $@

$(PRODUCT): pyproject.toml .cache/apt
	@echo "  · .venv: vllmwall and its tools"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
		|| { echo "$(PYTHON) is too old: Python 3.10 or newer is needed (make PYTHON=…)" >&2; exit 1; }
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip --disable-pip-version-check -qq install -e '.[dev]'
	@touch $@

$(TORCH): tests/setup/torch .cache/apt
	@echo "  · .venv-torch: real torch.distributed (half a minute)"
	@tests/setup/torch .venv-torch
	@touch $@

$(VLLM_ENV): tests/setup/torch .cache/apt
	@echo "  · .venv-vllm: real vLLM for the CPU (minutes)"
	@tests/setup/torch .venv-vllm vllm
	@touch $@

$(NCCL): tests/setup/nccl
	@echo "  · real NCCL (350 MB)"
	@tests/setup/nccl $(@D)
	@touch $@

$(ROUTERS): tests/setup/routers
	@echo "  · routers in Rust: vllm-router, sglang-router, smg (seconds)"
	@$< $(@D) || echo "  ! no routers: their tests are skipped"
	@mkdir -p $(@D) && touch $@

$(MODEL): tests/workloads/tiny_model.py $(VLLM_ENV)
	@echo "  · a tiny model with random weights"
	@.venv-vllm/bin/python $< $(@D) 2>.cache/tiny-model.log || { cat .cache/tiny-model.log; exit 1; }
	@touch $@
