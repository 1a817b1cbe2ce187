# A target is a line or two; what takes more is a script or a program of its own. `make` alone lists them.
.DEFAULT_GOAL := help
.PHONY: help setup build image chart bench demo test test-kernel mutants fuzz soak lint proto cluster cluster-down e2e conformance ci

# The programs are built as `make test` builds them: the tests' profile, and all packages and one test, since each choice of
# packages has features of its own. With another choice cargo builds half of the libraries again.
E2E := --locked --workspace --test demo --test one_node --test nodes --test kube_proxy --test helm --test cni
PROGRAMS := cargo build --profile test $(E2E) --bins
BUILT := $${CARGO_TARGET_DIR:-target}/debug
# What a cluster is made of: NODES=3, CNI=ptp or bridge, PROXY=nftables or iptables, FAMILIES=dual, dual-ipv6, ipv4 or ipv6.
FLAVOUR = $(if $(CNI),--cni $(CNI)) $(if $(PROXY),--proxy $(PROXY)) $(if $(FAMILIES),--families $(FAMILIES))

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Install what building and testing need; does nothing when all is there
	@scripts/setup.sh build

build: setup ## Build the agent, the command and the CNI plugin, optimised, into target/release
	cargo build --locked --release -p cellwall-agent -p cellwall-cli -p cellwall-cni

image: setup ## Build the container image, an OCI archive, into target/image
	@scripts/image.sh $(ARCHITECTURES)

chart: ## Check the Helm chart: lint, what it renders against deploy/helm/golden, and what it has to refuse (Go)
	@scripts/setup.sh chart && scripts/chart.sh

bench: setup ## Measure what packets, tables and changes cost, into benches/RESULTS.md (root, half an hour; QUICK=1: fewer sizes)
	@scripts/setup.sh bench && cargo build --locked --release -p cellwall-bench
	target/release/cellwall-bench run $(if $(QUICK),--quick)

demo: setup ## Enforce policies between namespaces on this machine, and watch (root)
	@$(PROGRAMS) && $(BUILT)/demo

test: setup ## Run all tests but those that need a cluster (as root also those of the kernel)
	@scripts/test.sh

test-kernel: setup ## Run the tests that load programs into a kernel, here and on 6.1 and 6.12 in QEMU (root)
	@scripts/test-kernel.sh $(KERNELS)

mutants: setup ## Plant each bug of mutants.txt and see its test fail
	@scripts/mutants.sh

fuzz: setup ## Hostile frames at an isolated pod: what passes is allowed (root: also through the kernel); keeps what it finds
	CELLWALL_KEEP=$${CELLWALL_KEEP:-1} CELLWALL_FRAMES=$${CELLWALL_FRAMES:-100000} cargo test --locked -p cellwall-testkit --test differential -- --nocapture fuzz::

soak: setup ## The tests that count, with long counts: a million clusters, 50 million frames, 500 starts of pods (root, Go; some hours)
	@scripts/soak.sh
	@scripts/setup.sh cluster && scripts/setup.sh chart && scripts/image.sh && $(PROGRAMS) && scripts/soak.sh cluster

lint: setup ## Formatting, clippy without a warning, and what the tree promises about itself
	@scripts/lint.sh

proto: setup ## Generate the code of proto/ again
	UPDATE_EXPECT=1 cargo test --locked -p cellwall-api --test generated

cluster: ## Start a Kubernetes cluster on this machine: NAME, NODES, CNI, PROXY, FAMILIES (root, Go; 10 minutes the first time)
	@scripts/setup.sh cluster && $(PROGRAMS) && $(BUILT)/cluster up $(if $(NAME),--name $(NAME)) --nodes $(or $(NODES),1) $(FLAVOUR)

cluster-down: ## Remove the clusters, or the one of NAME
	@$(PROGRAMS) && $(BUILT)/cluster down $(NAME)

e2e: ## Run the tests that need a cluster, in one of their own (root, Go) or in the one of KUBECONFIG
	@$(if $(KUBECONFIG),scripts/setup.sh build,scripts/setup.sh cluster && scripts/setup.sh chart && scripts/image.sh) && $(PROGRAMS) && cargo test $(E2E) -- --nocapture

conformance: ## Run upstream's tests of NetworkPolicy, into e2e/RESULTS.md: NODES, CNI, PROXY, FAMILIES, RUNS, ALL=1, UNENFORCED=1
	@$(if $(KUBECONFIG),scripts/setup.sh build,scripts/setup.sh cluster) && $(PROGRAMS) && $(BUILT)/conformance --nodes $(or $(NODES),2) $(FLAVOUR) \
		$(if $(RUNS),--runs $(RUNS)) $(if $(ALL),--all) $(if $(UNENFORCED),--unenforced) $(if $(RECORD),--record "$(RECORD)")

ci: ## What has to pass before a change lands
	@.ci/run
