# Every target is one line; what takes more is a script or a program of its own. `make` alone lists them.
.DEFAULT_GOAL := help
.PHONY: help setup build test test-kernel proto

# The programs are built with the tests' profile, so that `make test`, `make demo` and `make e2e` share one build.
PROGRAMS := cargo build --locked --profile test -p cellwall-agent -p cellwall-cli

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Install what building and testing need; does nothing when all is there
	@scripts/setup.sh build

build: setup ## Build the agent and the command, optimised, into target/release
	cargo build --locked --release -p cellwall-agent -p cellwall-cli

test: setup ## Run all tests but those that need a cluster (as root also those of the kernel)
	@scripts/test.sh

test-kernel: setup ## Run only the tests that load programs into the kernel (root)
	@scripts/test.sh -p cellwall-datapath -p cellwall-agent

proto: setup ## Generate the code of proto/ again
	UPDATE_EXPECT=1 cargo test --locked -p cellwall-api --test generated

