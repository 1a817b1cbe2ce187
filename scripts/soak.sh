#!/bin/bash
# The tests that count, with counts that mean something: 0 of 1,000,000 is less than 3 in a million, with 95 %. One after the
# other, since each takes all the machine has. As root also those of the kernel; `soak.sh cluster` runs those of a cluster
# alone (Go, `make image`, and the programs of `make e2e`).
set -euo pipefail
cd "$(dirname "$0")/.."

# All packages, as `make test` has them, so that no library is built again; of their tests only these.
test() { cargo test --locked --test "$1" -- --nocapture --test-threads=1 "$2"; }

# Starts of pods and calls of ADD; agents killed and replaced, and a standstill of the API server, under connections; changes
# until they take hold.
cluster() {
    export CELLWALL_STARTS=500 CELLWALL_ADDS=1000 CELLWALL_KILLS=50 CELLWALL_UPGRADES=10 CELLWALL_STANDSTILL_S=60
    export CELLWALL_CHANGES=1000 CELLWALL_PODS=50
    cargo test --locked --workspace --test cni --test helm -- --nocapture --test-threads=1
}

if [ "${1:-}" = cluster ]; then
    cluster
    exit
fi

CELLWALL_SETS=1000000 test differential judged::tables
# Per class: in memory, through the programs, and over a veth in each direction.
CELLWALL_FRAMES=1000000 CELLWALL_DATAGRAMS=100000 test differential fuzz::
CELLWALL_OWNERS=2000 test restart places::
CELLWALL_REVOCATIONS=100 test kernel revoked::
CELLWALL_FLOOD_ROUNDS=20 CELLWALL_CONNECTIONS=100000 test kernel flood::
