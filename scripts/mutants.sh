#!/bin/bash
# Plants each bug of mutants.txt and expects its test to fail. All of them are in one build (feature `mutants` of
# cellwall-abi) and are chosen by CELLWALL_MUTANT when a test runs. Names as arguments: only these.
set -euo pipefail
cd "$(dirname "$0")/.."

# All packages, as `make test` has them, so that no library is built again; of their tests only these.
tests=(--test differential --test packets --test tiers --test compile --test services --test kube --test run --test plugin --test files)
# Enough for every bug to show; a tenth of what `make test` does.
export CELLWALL_SETS=${CELLWALL_SETS:-1000}

rows() { grep -v '^#' mutants.txt | tr -s ' ' | sed 's/ *| */|/g'; }

# One test; true when it passed.
passes() {
    CELLWALL_MUTANT=$1 cargo test --quiet --locked --features cellwall-abi/mutants --test "$3" -- --exact "$4" \
        >"$log" 2>&1
}

log=$(mktemp) && trap 'rm -f "$log"' EXIT
echo "mutants: building"
cargo test --quiet --locked --features cellwall-abi/mutants "${tests[@]}" --no-run

# A test that fails anyway catches nothing.
rows | cut -d'|' -f2-4 | sort -u | while IFS='|' read -r package binary test; do
    passes none "$package" "$binary" "$test" && grep -q '1 passed' "$log" ||
        { tail -n 20 "$log"; echo "mutants: $test does not pass without any bug"; exit 1; }
done

caught=0 missed=0
while IFS='|' read -r name package binary test what; do
    [ $# = 0 ] || [[ " $* " == *" $name "* ]] || continue
    grep -rqF "planted(\"$name\")" crates || { echo "mutants: $name is planted nowhere"; exit 1; }
    if passes "$name" "$package" "$binary" "$test"; then
        missed=$((missed + 1)) && printf 'MISSED  %-34s %s: %s\n' "$name" "$test" "$what"
    else
        grep -q 'test result: FAILED' "$log" || { tail -n 20 "$log"; echo "mutants: $name was not tried"; exit 1; }
        caught=$((caught + 1)) && printf 'caught  %-34s %s\n' "$name" "$what"
    fi
done < <(rows)
unlisted=$(grep -rhoE 'planted\("[a-z-]+"\)' crates | sort -u | sed 's/planted("//; s/")//' | while read -r name; do
    grep -q "^$name |" mutants.txt || echo "$name"
done)
[ -z "$unlisted" ] || { echo "mutants: planted and not listed: $unlisted"; exit 1; }
echo "mutants: $caught caught, $missed missed"
[ "$missed" = 0 ]
