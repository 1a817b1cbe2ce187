#!/bin/bash
# The tests that count, with counts that mean something: 0 of 1,000,000 is less than 3 in a million, with 95 %. One after the
# other, since each takes all the machine has. As root also those of the kernel.
set -euo pipefail
cd "$(dirname "$0")/.."

# All packages, as `make test` has them, so that no library is built again; of their tests only these.
test() { cargo test --locked --test "$1" -- --nocapture --test-threads=1 "$2"; }

CELLWALL_SETS=1000000 test differential judged::tables
# Per class: in memory, through the programs, and over a veth in each direction.
CELLWALL_FRAMES=1000000 CELLWALL_DATAGRAMS=100000 test differential fuzz::
CELLWALL_REVOCATIONS=1000 test kernel revoked::
CELLWALL_FLOOD_ROUNDS=20 CELLWALL_CONNECTIONS=100000 test kernel flood::
