#!/bin/bash
# Plants each bug of mutants.txt and expects its test to fail. All of them are in one build (feature `mutants` of
# cellwall-abi) and are chosen by CELLWALL_MUTANT when a test runs. Names as arguments: only these. As many at once as there
# are CPUs.
set -euo pipefail
cd "$(dirname "$0")/.."

# All packages, as `make test` has them, so that no library is built again; of their tests only these.
binaries=(differential packets tiers compile services kube run plugin files remote kernel node)
# Enough for every bug to show; a tenth of what `make test` does.
export CELLWALL_SETS=${CELLWALL_SETS:-1000}

# Tests of the last two binaries do nothing without root.
left_out='^$'
if [ "$(id -u)" != 0 ]; then
    left_out='^[^|]*[|][^|]*[|](kernel|node)[|]'
    echo "mutants: not root: those whose tests need it are left out"
fi

rows() { grep -v '^#' mutants.txt | tr -s ' ' | sed 's/ *| */|/g' | grep -vE "$left_out"; }

# run LOG MUTANT PACKAGE BINARY TEST: one test in its package's folder, as cargo runs it; true when it passed. Lines of the
# file `programs` are PACKAGE BINARY FOLDER PROGRAM.
run() {
    local folder program
    read -r folder program < <(sed -n "s/^$3 $4 //p" "$programs")
    (cd "$folder" && CARGO_MANIFEST_DIR=$folder CELLWALL_MUTANT=$2 "$program" --exact "$5" --color never) >"$1" 2>&1
}

# A test that fails anyway catches nothing.
unharmed() {
    local log=$work/none.$BASHPID
    run "$log" none "$@" && grep -q '1 passed' "$log" && return
    tail -n 20 "$log"
    echo "mutants: $3 does not pass without any bug"
    return 1
}

# One line that says what came of a bug; false unless its test caught it.
plant() {
    local name=$1 test=$4 what=$5 log=$work/$1
    if run "$log" "${@:1:4}"; then
        printf 'MISSED  %-34s %s: %s\n' "$name" "$test" "$what"
    elif grep -q 'test result: FAILED' "$log"; then
        printf 'caught  %-34s %s\n' "$name" "$what"
        return
    else
        printf 'UNTRIED %-34s %s\n' "$name" "$(tail -n 5 "$log" | tr '\n' ' ')"
    fi
    return 1
}

# each FUNCTION: calls it with the fields of every line of the input, on every CPU. False if one was.
each() { tr '\n' '\0' | xargs -0 -r -n 1 -P "$(nproc)" bash -c 'IFS="|" read -ra fields <<<"$1"; "$0" "${fields[@]}"' "$1"; }

work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
programs=$work/programs
export work programs
export -f run unharmed plant

echo "mutants: building; 6 minutes the first time on 2 cores"
cargo test --locked --features cellwall-abi/mutants "${binaries[@]/#/--test=}" --no-run --message-format json |
    grep -F '"reason":"compiler-artifact"' | grep -F '"kind":["test"]' |
    sed -nE 's/.*#([a-z-]*)@.*"manifest_path":"([^"]*)\/Cargo.toml".*"name":"([^"]*)","src_path".*"executable":"([^"]*)".*/\1 \3 \2 \4/p' >"$programs"

unlisted=$(grep -rhoE 'planted\("[a-z-]+"\)' crates | sort -u | sed 's/planted("//; s/")//' | while read -r name; do
    grep -q "^$name |" mutants.txt || echo "$name"
done)
[ -z "$unlisted" ] || { echo "mutants: planted and not listed: $unlisted"; exit 1; }
rows | while IFS='|' read -r name package binary test what; do
    grep -rqF "planted(\"$name\")" crates || { echo "mutants: $name is planted nowhere"; exit 1; }
done

rows | cut -d'|' -f2-4 | sort -u | each unharmed
rows | while IFS='|' read -r name rest; do
    [ $# != 0 ] && [[ " $* " != *" $name "* ]] || echo "$name|$rest"
done >"$work/rows"
each plant <"$work/rows" | tee "$work/told" || true
caught=$(grep -c '^caught' "$work/told" || true)
echo "mutants: $caught caught, $(($(wc -l <"$work/rows") - caught)) missed"
[ "$caught" = "$(wc -l <"$work/rows")" ]
