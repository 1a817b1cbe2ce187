#!/bin/bash
# What no compiler refuses and no reviewer should have to: formatting, clippy, and what the tree promises about
# itself (crates/xtask/src/tidy.rs).
set -euo pipefail
cd "$(dirname "$0")/.."
cargo fmt --all --check
(cd ebpf && cargo fmt --check)
# The profile of the tests: their build scripts, one of which builds ebpf/, have run already.
cargo clippy --locked --profile test --workspace --all-targets -- -D warnings
# The programs as this machine's own code: clippy has no core for theirs. What is a lint there is one here.
(cd ebpf && RUSTFLAGS="--cfg bpf_target_arch=\"$(uname -m)\"" \
    cargo clippy --locked --target-dir ../target/ebpf-clippy --bins -- -D warnings)
cargo run --locked --profile test -q -p cellwall-xtask -- tidy
