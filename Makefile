# The commands of the kit. `make` alone lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
INVENTORY ?= inventories/sandbox
VENV := .venv
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export ANSIBLE_INVENTORY := $(INVENTORY)
# Who is not root and whose sudo asks for a password is asked for it once.
ifneq ($(shell id -u),0)
ifneq ($(shell sudo -n true 2>/dev/null && echo yes),yes)
export ANSIBLE_BECOME_ASK_PASS := true
endif
endif

.PHONY: help
help: ## list these commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

.PHONY: up
up: $(VENV)/control ## install what is missing and deploy the stack (INVENTORY=inventories/sandbox unless you name another)
	@ansible-playbook site.yml

.PHONY: down
down: $(VENV)/control ## remove the stack's containers and networks; logins and secrets stay
	@ansible-playbook playbooks/teardown.yml -e confirm=true

.PHONY: smoke
smoke: $(VENV)/control ## log in, chat, stream and refresh once against the running stack
	@ansible-playbook playbooks/smoke.yml

.PHONY: images
images: $(VENV)/control ## start the engine and build the images, nothing more
	@ansible-playbook site.yml --tags images

.PHONY: check
check: $(VENV)/dev ## the quick part of the tests, under a minute
	@tests/run check

.PHONY: lint
lint: $(VENV)/dev ## ruff, mypy, ansible-lint and yamllint
	@tests/run lint

.PHONY: test
test: $(VENV)/dev ## the whole test suite
	@tests/run all

.PHONY: chaos
chaos: $(VENV)/dev ## the fault tests for long (CHAOS_KILLS=1000 processes killed, CHAOS_GATEWAY_KILLS=50, CHAOS_STEPS=5000)
	@tests/run chaos

.PHONY: bench
bench: $(VENV)/dev images ## the figures of benchmarks/README.md that need no deployed stack
	@benchmarks/refresh
	@benchmarks/bulk
	@benchmarks/bulk 10000 50
	@benchmarks/gateway
	@BENCH_WORKERS=1 benchmarks/against
	@BENCH_BODIES=200 BENCH_ROUND=5 BENCH_TURNS=5 benchmarks/memory
	@benchmarks/departure

.PHONY: migrations
migrations: $(VENV)/dev ## write migrations/add_claude_oauth_tokens.sql from files/migrations
	@python scripts/join_migrations.py

.PHONY: lock
lock: $(VENV)/dev ## resolve requirements/*.in, with hashes
	@for file in requirements/control requirements/dev requirements/gateway requirements/gateway-build images/sandbox/requirements; do \
	  echo "locking $$file.txt"; \
	  uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
	    --custom-compile-command "make lock" --output-file $$file.txt $$file.in; \
	done
	@for platform in x86_64 aarch64; do for python in 3.11 3.13; do \
	  echo "looking for packages of the gateway for Python $$python on $$platform"; \
	  uv pip install --quiet --dry-run --target $(VENV)/none --python-platform $$platform-manylinux_2_28 \
	    --python-version $$python --only-binary :all: --require-hashes -r requirements/gateway.txt; \
	done; done

# The virtual environments' stamps: made again when a lock file changes.
$(VENV)/bin/python:
	@scripts/make-venv $(PYTHON) $(VENV)

$(VENV)/control: requirements/control.txt | $(VENV)/bin/python
	@echo "Installing the control node's packages into $(VENV) (about half a minute)"
	@$(VENV)/bin/pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

$(VENV)/dev: requirements/dev.txt | $(VENV)/bin/python
	@echo "Installing the developer's packages into $(VENV) (about a minute)"
	@$(VENV)/bin/pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@ $(VENV)/control
