# Everything runs from the project root. Settings such as PORT, DATABASE_URL and REDIS_URL pass
# through the environment: PORT=9000 make dev

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

# uv is installed by pip into the tree: Debian's python3 has neither venv nor a writable prefix.
UV_VERSION := 0.13.9
UV := .gapless/tools/bin/uv
BIN := .venv/bin
# Two workers: more only queue for the processors of a small machine.
PYTEST := $(BIN)/pytest -n 2 backend/tests
LINTED := backend $(wildcard benchmarks)
RUFF_CONFIG := --config backend/pyproject.toml
COMPILE := uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header \
	--no-annotate --python-version 3.11 pyproject.toml
TEST_PACKAGES := chromium curl fonts-noto-color-emoji nginx haproxy libfaketime
# Wanted where Debian has them.
OPTIONAL_TEST_PACKAGES := libnginx-mod-nchan

PAGE := frontend/demo/dist/index.html
PAGE_SOURCES = $(shell find frontend/demo frontend/lib frontend/hooks -name dist -prune -o -type f -print)

HAS_NODE := node -e 'const [a, b] = process.versions.node.split("."); process.exit(a < 20 || (a == 20 && b < 19) ? 1 : 0)' \
	2> /dev/null

# `make dev` needs no test tools, and a tree that has them keeps them.
ifneq ($(wildcard .venv/.dev-synced),)
LOCK := backend/requirements-dev.lock
else
LOCK := backend/requirements.lock
endif

.PHONY: help
help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

.PHONY: dev
dev: .venv/.synced ## Start the server with its own PostgreSQL and Valkey, and the demo chat
	@$(MAKE) --no-print-directory page || echo "make dev: the server starts all the same."
	@# exec: a child of make would outlive a killed make
	@exec $(BIN)/gapless dev

.PHONY: page
page: ## Build the demo chat that the development server shows at /
	@$(HAS_NODE) || { echo "The demo chat needs Node 20.19 or newer, with npm, on the PATH."; exit 1; }
	@$(MAKE) --no-print-directory --silent $(PAGE)

.PHONY: test
test: lint test-frontend ## Lint, check types, run every test
	@code=0; $(PYTEST) || code=$$?; \
	if [ $$code -eq 5 ]; then echo "make test: no test ran."; fi; exit $$code

SCENARIOS := backend/tests/faults/scenarios
FAULTS_RESULTS := .gapless/faults
# One after the other: each has the machine for itself.
PLAY = rm -rf $(FAULTS_RESULTS); code=0; FAULTS=whole FAULTS_RESULTS=$(CURDIR)/$(FAULTS_RESULTS) $(1) \
	$(BIN)/pytest -q $(2) || code=$$?; $(REPORT) || true; exit $$code
REPORT = PYTHONPATH=backend $(BIN)/python -m tests.faults.kit.report $(FAULTS_RESULTS)

.PHONY: faults
faults: .venv/.dev-synced ## Play every fault scenario at full size, in under an hour (MINUTES=20: as many as fit)
	@$(call PLAY,FAULTS_MINUTES=$(MINUTES),$(SCENARIOS))

.PHONY: nemesis
nemesis: .venv/.dev-synced ## Play random faults for a while (MINUTES=30; SEED=... plays them again)
	@$(call PLAY,NEMESIS_MINUTES=$(or $(MINUTES),30),$(SCENARIOS)/test_nemesis.py)

.PHONY: soak
soak: .venv/.dev-synced ## Hold thousands of streams for an hour, then write to the same rows for another (MINUTES=60 each)
	@$(call PLAY,SOAK_MINUTES=$(or $(MINUTES),60),$(SCENARIOS)/test_soak.py \
		$(SCENARIOS)/test_postgres_storage.py::test_the_rows_that_count_are_written_for_long)

.PHONY: faults-docs
faults-docs: .venv/.synced ## Write the last run of the scenarios into docs/reliability.md, with its pictures
	@$(REPORT) docs/reliability.md

.PHONY: test-frontend
test-frontend: ## Lint, test and build the client library, the hook and the demo chat
	@if $(HAS_NODE); then $(MAKE) --no-print-directory .frontend-tested; \
	elif [ "$${CI:-}" = true ]; then echo "make test: the front end needs Node 20.19 or newer, with npm."; exit 1; \
	else echo "make test: skipped, for want of Node 20.19 or newer: lint, tests and build of frontend/."; fi

.PHONY: .frontend-tested
.frontend-tested: frontend/node_modules/.installed
	cd frontend && npm run --silent lint && npm test --silent && npm run --silent build
	@$(MAKE) --no-print-directory page

.PHONY: lint
lint: .venv/.dev-synced ## Check style and types
	$(BIN)/ruff check $(RUFF_CONFIG) $(LINTED)
	$(BIN)/ruff format --check $(RUFF_CONFIG) $(LINTED)
	cd backend && ../$(BIN)/mypy

.PHONY: format
format: .venv/.dev-synced ## Rewrite the Python files in the one style
	$(BIN)/ruff check --fix-only $(RUFF_CONFIG) $(LINTED)
	$(BIN)/ruff format $(RUFF_CONFIG) $(LINTED)

.PHONY: docs
docs: .venv/.synced ## Write the documents that are made of the code: docs/openapi.json, docs/asyncapi.yaml, .env.example
	@$(BIN)/python -m app.documents .

.PHONY: screenshots
screenshots: .venv/.dev-synced page ## Take the pictures of docs/images/ anew
	@cd backend && PYTHONPATH=. exec ../$(BIN)/python -m tests.screenshots

.PHONY: lock
lock: $(UV) ## Write the lock files anew (UPGRADE=--upgrade for newer versions)
	cd backend && ../$(dir $(UV))$(COMPILE) $(UPGRADE) --extra embedded --output-file requirements.lock > /dev/null
	cd backend && ../$(dir $(UV))$(COMPILE) $(UPGRADE) --constraint requirements.lock \
		--output-file requirements-server.lock > /dev/null
	cd backend && ../$(dir $(UV))$(COMPILE) $(UPGRADE) --extra embedded --group dev --constraint requirements.lock \
		--output-file requirements-dev.lock > /dev/null
	cd backend && ../$(dir $(UV))$(COMPILE) $(UPGRADE) --extra embedded --group bench --constraint requirements-dev.lock \
		--output-file requirements-bench.lock > /dev/null
	@# A lock file that names a download address ties every user to one network.
	@if grep -n '://' backend/*.lock; then echo "make lock: an address got into a lock file."; exit 1; fi

.PHONY: test-deps
test-deps: ## Install what the browser, proxy and clock tests use (Debian; root or sudo)
	@missing=(); optional=""; for package in $(TEST_PACKAGES); do \
		dpkg -s "$$package" > /dev/null 2>&1 || missing+=("$$package"); done; \
	for package in $(OPTIONAL_TEST_PACKAGES); do \
		dpkg -s "$$package" > /dev/null 2>&1 || optional+=" $$package"; done; \
	if [ $${#missing[@]} -eq 0 ] && [ -z "$${optional:-}" ]; then exit 0; fi; \
	if ! command -v apt-get > /dev/null; then \
		echo "make test-deps: no apt-get here. Install these yourself: $(TEST_PACKAGES)"; exit 1; fi; \
	if [ "$$(id -u)" -eq 0 ]; then as_root=(env); \
	elif command -v sudo > /dev/null; then as_root=(sudo env); \
	else echo "make test-deps: neither root nor sudo. Ask an administrator for: $(TEST_PACKAGES)"; exit 1; fi; \
	"$${as_root[@]}" apt-get update -qq; \
	for package in $${optional:-}; do \
		if apt-cache show "$$package" > /dev/null 2>&1; then missing+=("$$package"); fi; done; \
	if [ $${#missing[@]} -gt 0 ]; then \
		"$${as_root[@]}" DEBIAN_FRONTEND=noninteractive \
			apt-get install -qq -y --no-install-recommends "$${missing[@]}"; fi

.PHONY: bench-deps
bench-deps: .venv/.synced test-deps ## Install what the peers in benchmarks/ are made of
	@$(UV) pip install --quiet --require-hashes --python $(BIN)/python --requirement backend/requirements-bench.lock

.PHONY: compare
compare: .venv/.synced ## Measure Gapless beside its peers, in turn (make bench-deps first)
	@exec $(BIN)/python benchmarks/compare.py

.PHONY: clean
clean: ## Remove the environment and caches; keeps the data in .gapless/
	rm -rf .venv .gapless/tools dist backend/dist frontend/dist frontend/demo/dist
	find . -name node_modules -prune -o \( -name __pycache__ -o -name .mypy_cache -o -name .ruff_cache \
		-o -name .pytest_cache -o -name .hypothesis \) -print0 | xargs -0 rm -rf

# --no-save: an installation never rewrites the lock. No package here needs a script of its own.
frontend/node_modules/.installed: frontend/package.json frontend/package-lock.json
	@echo "Installing what the demo chat is built with ..."
	@cd frontend && npm install --no-save --ignore-scripts --no-audit --no-fund --loglevel=error > /dev/null
	@touch $@

$(PAGE): frontend/node_modules/.installed $(PAGE_SOURCES)
	@echo "Building the demo chat ..."
	@cd frontend && node_modules/.bin/vite build --config demo/vite.config.ts --logLevel warn
	@touch $@

# uv pip sync removes what is not in the lock, the editable install too, which therefore follows it.
define sync
	@$(UV) pip sync --quiet --require-hashes --python $(BIN)/python $(1)
	@$(UV) pip install --quiet --no-deps --python $(BIN)/python --editable backend
endef

.venv/.synced: $(LOCK) backend/pyproject.toml | $(BIN)/python
	$(call sync,$(LOCK))
	@touch $@

.venv/.dev-synced: backend/requirements-dev.lock backend/pyproject.toml | $(BIN)/python
	$(call sync,backend/requirements-dev.lock)
	@touch $@ .venv/.synced

$(BIN)/python: | $(UV)
	@$(UV) venv --quiet --allow-existing --no-python-downloads --python "$$(command -v python3)" .venv

$(UV):
	@command -v python3 > /dev/null || { echo "Gapless needs Python 3.11 or newer as python3."; exit 1; }
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Gapless needs Python 3.11 or newer; $$(command -v python3) is $$(python3 -V)."; exit 1; }
	@mkdir -p $(dir $@)
	@if python3 -m pip --version > /dev/null 2>&1; then \
		python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore \
			--target .gapless/tools --upgrade uv==$(UV_VERSION); \
	elif command -v uv > /dev/null; then \
		ln -sf "$$(command -v uv)" $@; \
	else \
		echo "This python3 has no pip: install it (on Debian: apt install python3-pip), or uv, and try again."; exit 1; \
	fi
