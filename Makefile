# Everything that people and the CI start. `make help` lists it.
# The toolchain is checked by name before anything is built; Python packages come from hashed lists into .venv;
# stamp files keep repeated calls quick.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules
# The order of a target's parts is a promise (builds before checks), and cargo uses every core by itself.
.NOTPARALLEL:

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/stamps
export PATH := $(CURDIR)/$(BIN):$(PATH)
export VIRTUAL_ENV := $(CURDIR)/$(VENV)
# uv runs beside pip's own cache and settings; hard links across file systems only warn.
export UV_LINK_MODE ?= copy

RUST := Cargo.toml Cargo.lock $(shell find router_core benches -name '*.rs' -not -path '*/target/*' 2>/dev/null) \
	$(shell find router_core benches -name Cargo.toml -not -path '*/target/*' 2>/dev/null)
REQUIREMENTS := requirements/runtime.txt requirements/test.txt requirements/lint.txt requirements/build.txt

.PHONY: help
help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: setup
setup: $(STAMPS)/packages ## Check the toolchain and install the Python packages into .venv

.PHONY: build
build: $(STAMPS)/release ## Build the release core; .venv/bin/kars works afterwards

.PHONY: dev
dev: $(STAMPS)/debug ## Build the debug core into .venv, as the tests use it

.PHONY: run
run: build ## Build, then run a demo model server with the router in front, and show its calls
	@exec $(BIN)/kars demo

.PHONY: test
test: test-rust dev lint tools test-python ## Run every check: Rust tests, linters, Python tests

.PHONY: test-rust
test-rust: $(STAMPS)/toolchain ## Run the Rust tests
	cargo test --locked --workspace

.PHONY: test-python
test-python: dev tools ## Run the Python tests
	.ci/pytest $(BIN)/pytest

.PHONY: tools
tools: $(STAMPS)/toolchain-test ## Build the control plane that the cluster tests run (minutes, once)
	@tests/cluster/tools/build >/dev/null

.PHONY: lint
lint: dev ## Check format, lints, types and floors of both languages
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/stubtest kars._core --mypy-config-file pyproject.toml
	$(BIN)/lint-imports --no-cache
	cargo fmt --check
	cargo clippy --locked --workspace --all-targets -- -D warnings

.PHONY: fmt
fmt: setup ## Format both languages
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix-only .
	cargo fmt

.PHONY: bench
bench: build ## Compare the router with other proxies on this machine (BENCH_FLAGS='--rounds 5'; see benches/load)
	cargo build --locked --release -p kars_load
	$(BIN)/python benches/load/run.py $(or $(BENCH_FLAGS),--quick)

.PHONY: bench-control
bench-control: build tools ## Measure the controller with many sandboxes on a real control plane (BENCH_FLAGS='--sandboxes 1000')
	$(BIN)/python benches/control/run.py $(or $(BENCH_FLAGS),--quick)

# As the chart's values-local-dev.yaml calls them.
IMAGES := guard:kars-guard router:kars-inference-router controller:kars-controller
IMAGE_BUILDER ?= $(or $(shell command -v docker || command -v podman || command -v buildah),docker)
.PHONY: images
images: export BUILDAH_LAYERS = true
images: ## Build the container images with docker, podman or buildah (IMAGE_BUILDER, IMAGE_TAG=dev, IMAGE_FLAGS)
	for image in $(IMAGES); do \
	  $(IMAGE_BUILDER) build $(IMAGE_FLAGS) --target "$${image%%:*}" --tag "$${image#*:}:$(or $(IMAGE_TAG),dev)" . || exit; \
	done

.PHONY: fuzz
fuzz: ## Fuzz each target for FUZZ_SECONDS (60); needs a nightly toolchain and cargo-fuzz
	@cargo +nightly fuzz --version >/dev/null 2>&1 || { echo "fuzz needs: rustup toolchain install nightly && cargo install cargo-fuzz" >&2; exit 1; }
	cd router_core && for target in $$(cargo +nightly fuzz list); do cargo +nightly fuzz run "$$target" -- -max_total_time=$${FUZZ_SECONDS:-60}; done

.PHONY: docs
docs: dev ## Write the generated documents
	$(BIN)/python -m kars.router.reference docs/configuration.md
	$(BIN)/python -m kars.controller.reference docs/controller.md

.PHONY: crds
crds: dev ## Write the chart's custom resource definitions
	$(BIN)/python -m kars.model.crds charts/kars-crds/templates

.PHONY: chart
chart: dev ## Write the chart's values schema and the page of its values
	$(BIN)/python charts/schema.py charts/kars docs/values.md

.PHONY: requirements
requirements: $(STAMPS)/packages ## Resolve requirements/*.in to hashed lists (REQUIREMENTS_FLAGS=--upgrade for newer ones)
	for name in runtime router test lint build; do \
	  $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	    --custom-compile-command 'make requirements' $(REQUIREMENTS_FLAGS) requirements/$$name.in -o requirements/$$name.txt; \
	done

.PHONY: clean
clean: ## Remove what was built (the virtual environment, too)
	rm -rf $(VENV) dist .mypy_cache .ruff_cache .pytest_cache .hypothesis kars/_core*.so
	@! command -v cargo >/dev/null || cargo clean

$(STAMPS)/toolchain: .ci/toolchain
	@.ci/toolchain
	@mkdir -p $(@D) && touch $@

$(STAMPS)/toolchain-test: .ci/toolchain
	@.ci/toolchain test
	@mkdir -p $(@D) && touch $@

# pip only brings uv, from the same hashed list; uv installs the rest and takes away what no list names.
$(STAMPS)/packages: $(STAMPS)/toolchain $(REQUIREMENTS)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --require-hashes -r requirements/build.txt
	$(BIN)/uv pip sync --quiet --require-hashes $(REQUIREMENTS)
	# A path hook that Python 3.11's venv brings along and every start would pay for.
	@$(BIN)/uv pip uninstall --quiet setuptools 2>/dev/null || true
	@rm -f $(STAMPS)/release $(STAMPS)/debug && touch $@

# One profile stands in .venv at a time; the other's stamp goes, cargo keeps what it compiled.
$(STAMPS)/release: $(STAMPS)/packages $(RUST) pyproject.toml
	$(BIN)/maturin develop --quiet --uv --release --locked
	@rm -f $(STAMPS)/debug && touch $@

$(STAMPS)/debug: $(STAMPS)/packages $(RUST) pyproject.toml
	$(BIN)/maturin develop --quiet --uv --locked
	@rm -f $(STAMPS)/release && touch $@
