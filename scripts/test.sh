#!/bin/bash
# Runs the tests, or with arguments those of some packages (`-p NAME`), and closes with one line of counts.
set -uo pipefail
cd "$(dirname "$0")/.."

log=target/test.log
mkdir -p target
if [ "$(id -u)" != 0 ]; then
    echo "test: not root: the tests that load programs into the kernel are skipped, each says so" >&2
fi
echo "test: building and running; the first build takes some 10 minutes on 2 cores" >&2
cargo test --locked --no-fail-fast "$@" -- --show-output 2>&1 | tee "$log" |
    # What a passing test printed stays in the log, but for what it skipped and what the judge was asked.
    # Line by line (`-u`), since a build takes minutes: awk waits until it has a buffer of them.
    sed -uE '/^successes:$/,/^(failures:|test result:)/{/^(failures:|test result:|skipped)|differences$/!d}'
status=${PIPESTATUS[0]}
awk -f scripts/counts.awk "$log"
if [ "$status" != 0 ]; then
    # Once more at the very end, where whoever reads only that sees it.
    grep -aE -A 3 '^test .*FAILED|panicked at' "$log" | cut -c 1-400 | head -n 60 >&2
    echo "test: failed; the whole output is in $log" >&2
fi
exit "$status"
