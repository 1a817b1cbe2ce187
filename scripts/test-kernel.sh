#!/bin/bash
# Runs the tests that load programs into a kernel: on the running one and, in virtual machines without KVM, on Debian's
# 6.1 and 6.12. `test-kernel.sh 6.1 arm64` runs only these; arm64 (6.12) is built for it and runs only when named. Closes
# with one line of counts; what a virtual machine printed is in target/kernels/NAME.log.
#
# GUEST_TESTS: parts of the names of the tests of cellwall-datapath that run in virtual machines; all without it.
# CELLWALL_KERNEL_SETS: how many clusters the loaded programs are asked about there.
# CELLWALL_KERNEL_FRAMES: how many hostile frames of each class, besides those that are kept, through the programs and over a veth.
# CELLWALL_KERNEL_DATAGRAMS: how many datagrams in fragments of each kind.
set -uo pipefail
cd "$(dirname "$0")/.."

# Many times what an idle machine takes: a guest that hangs has failed.
readonly limit_s=3000
readonly folder=target/kernels
logs=() broken=()

say() { echo "test-kernel: $*" >&2; }

# pack FILE [TARGET]: builds the tests, for another target than this machine's, and packs them for a guest.
pack() {
    local work name executable
    work=$(mktemp -d "$folder/.tests-XXXXXX") && mkdir "$work/tests" || return 1
    # Of the packages that `make test` builds, so that nothing is built twice.
    cargo test --locked --no-run --test kernel --test differential ${2:+--target "$2"} 2>&1 | tee "$folder/build.log" >&2
    [ "${PIPESTATUS[0]}" = 0 ] || return 1
    while read -r name executable; do
        # Without what only a debugger reads: the guest keeps it all in memory.
        "${OBJCOPY:-objcopy}" --strip-debug "$executable" "$work/tests/$name" || return 1
    done < <(sed -n 's/^ *Executable tests\/\([a-z]*\)\/main.rs (\(.*\))$/\1 \2/p' "$folder/build.log")
    # What tests say comes at once, so that the log has it also of a guest that does not reach its end.
    cat >"$work/tests/run" <<-END
		export CELLWALL_KERNEL_SETS=${CELLWALL_KERNEL_SETS:-25}
		export CELLWALL_FRAMES=${CELLWALL_KERNEL_FRAMES:-100}
		export CELLWALL_DATAGRAMS=${CELLWALL_KERNEL_DATAGRAMS:-20}
		run differential kernel:: fuzz::programs fuzz::veth fuzz::fragments fuzz::overlaps fuzz::neighbours --nocapture
		run kernel ${GUEST_TESTS:-} --nocapture
	END
    install -m 755 scripts/guest/init "$work/init"
    (cd "$work" && find . | cpio --quiet -o -H newc -R 0:0) >"$1" && rm -r "$work"
}

# boot NAME KERNEL TESTS QEMU ARGUMENTS...: true when every program ended well and the machine switched itself off.
boot() {
    local name=$1 kernel=$2 log=$folder/$1.log initrd status
    initrd=$(mktemp "$folder/.initrd-XXXXXX") && cat "$kernel/root.cpio" "$3" >"$initrd" || return 1
    say "$name: booting, up to some minutes; what it prints is in $log"
    # A busy host may not tick in time while the guest looks for its timer, hence no_timer_check.
    timeout "$limit_s" "${@:4}" -accel tcg -smp 2 -m 2048 -nodefaults -no-reboot -display none -serial stdio \
        -kernel "$kernel/vmlinuz" -initrd "$initrd" -append "loglevel=1 oops=panic panic=-1 mitigations=off no_timer_check ${console:-}" \
        >"$log" 2>&1 </dev/null
    status=$?
    rm "$initrd"
    logs+=("$log")
    grep -aE '^(guest:|skipped|test .* FAILED)' "$log" | sort -u
    grep -aE -A 3 'panicked at' "$log" | cut -c 1-400 | head -n 40
    [ $status = 0 ] || { say "$name: ended with $status (124: not within $limit_s s)"; return 1; }
    # Both programs, and each ran a test.
    grep -aq '^guest: all ended well' "$log" && [ "$(grep -ac '^test result: ok. [1-9]' "$log")" = 2 ]
}

# guest NAME SUITE: on this machine's architecture.
guest() {
    local kernel
    [ "$(uname -m)" = x86_64 ] || { say "$1: the tests are built for this machine, which is not amd64"; return 1; }
    scripts/setup.sh kernels && kernel=$(scripts/guest/kernel.sh "$2" amd64) || return 1
    [ -e "$folder/tests.cpio" ] || pack "$folder/tests.cpio" || return 1
    console=console=ttyS0 boot "$1" "$kernel" "$folder/tests.cpio" qemu-system-x86_64 -machine q35 -cpu Haswell-v4
}

arm64() {
    local kernel triple=aarch64-unknown-linux-gnu
    scripts/setup.sh arm64 && rustup target add "$triple" >&2 || return 1
    kernel=$(scripts/guest/kernel.sh trixie arm64) || return 1
    export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc OBJCOPY=aarch64-linux-gnu-objcopy
    # All that is shipped, in the one choice of packages that the tests are built in.
    cargo build --locked --profile test --target "$triple" --workspace --bins --test kernel --test differential >&2 || return 1
    pack "$folder/tests-arm64.cpio" "$triple" &&
        boot arm64 "$kernel" "$folder/tests-arm64.cpio" qemu-system-aarch64 -machine virt -cpu cortex-a72
}

running() { logs+=(target/test.log) && scripts/test.sh -p cellwall-datapath -p cellwall-agent; }

names=("$@")
[ $# -gt 0 ] || names=(running 6.1 6.12)
mkdir -p "$folder" && rm -f "$folder"/tests*.cpio
for name in "${names[@]}"; do
    case $name in
        running) running ;;
        6.1) guest 6.1 bookworm ;;
        6.12) guest 6.12 trixie ;;
        arm64) arm64 ;;
        *) say "unknown: $name (running, 6.1, 6.12, arm64)" && exit 2 ;;
    esac || broken+=("$name")
done
[ ${#broken[@]} = 0 ] || say "failed: ${broken[*]}"
[ ${#logs[@]} = 0 ] || awk -f scripts/counts.awk "${logs[@]}"
[ ${#broken[@]} = 0 ]
