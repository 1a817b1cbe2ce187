#!/bin/bash
# Makes this machine able to build ebpf/ and writes down how: target/bpf-tools/env, which
# crates/datapath/build.rs reads. About a minute the first time, a tenth of a second after that.
#
# Compiling for bpfel-unknown-none needs two things that a plain Rust installation lacks: a core library
# for that target, and bpf-linker with an LLVM at least as new as the compiler's. Routes, in this order:
#
#   rustup   the active toolchain with its component rust-src; core is built from source
#   debian   the packages rustc-web and libstd-rust-web-dev-bpf, which hold core ready-built (root)
#   path     what an aya developer has: bpf-linker on PATH and a nightly toolchain with rust-src
#
# The first two build bpf-linker against the very LLVM of the compiler in use.
#
#   BPF_TOOLS=rustup|debian|path   use only this route
#   BPF_LINKER=PATH                use this bpf-linker and build none
set -euo pipefail

readonly linker_version=0.13.0
cd "$(dirname "$0")/.."
readonly tools=$PWD/target/bpf-tools
started=$SECONDS

say() { echo "bpf-tools: $*" >&2; }

# Each route sets: compiler, build_std (1 or 0), llvm (the libLLVM to link with, or empty to keep `linker`).
linker=${BPF_LINKER:-$tools/bin/bpf-linker}

core_source() { [ -d "$1/lib/rustlib/src/rust/library/core" ]; }

route_rustup() {
    local sysroot
    command -v rustup >/dev/null || { say "rustup: not installed"; return 1; }
    sysroot=$(rustc --print sysroot) || return 1
    if ! core_source "$sysroot"; then
        say "adding the component rust-src to $(basename "$sysroot")"
        rustup component add rust-src >&2 && core_source "$sysroot" ||
            { say "rustup: the component rust-src cannot be had"; return 1; }
    fi
    compiler=$sysroot/bin/rustc build_std=1
    llvm=$(find "$sysroot/lib" -maxdepth 1 -name 'libLLVM.so.*' | head -1)
    [ -n "$llvm" ] || { say "rustup: no libLLVM in $sysroot/lib"; return 1; }
}

route_debian() {
    if ! [ -d /usr/lib/rustlib/bpfel-unknown-none ]; then
        command -v apt-get >/dev/null && [ "$(id -u)" = 0 ] ||
            { say "debian: needs apt-get and root to install rustc-web and libstd-rust-web-dev-bpf"; return 1; }
        say "installing rustc-web and libstd-rust-web-dev-bpf (120 MB)"
        { apt-get update -q && apt-get install -yq --no-install-recommends rustc-web libstd-rust-web-dev-bpf; } >&2 ||
            { say "debian: the packages cannot be had"; return 1; }
    fi
    compiler=/usr/bin/rustc build_std=0
    llvm=$(ldd "$(find /usr/lib -name 'librustc_driver-*.so' | head -1)" | awk '/libLLVM/ { print $3 }')
    [ -n "$llvm" ] || { say "debian: the compiler uses no shared libLLVM"; return 1; }
}

route_path() {
    local sysroot
    command -v bpf-linker >/dev/null || { say "path: no bpf-linker on PATH"; return 1; }
    for sysroot in "$(rustc --print sysroot)" "$(rustup run nightly rustc --print sysroot 2>/dev/null)"; do
        core_source "$sysroot" || continue
        compiler=$sysroot/bin/rustc build_std=1 llvm='' linker=$(command -v bpf-linker)
        return 0
    done
    say "path: neither the active toolchain nor nightly has rust-src"
    return 1
}

# bpf-linker finds LLVM through a prefix; a folder of links is enough of one.
build_linker() {
    local major key soname
    major=$("$compiler" -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
    key="$linker_version $llvm $(stat -c %Y "$llvm")"
    # One that does not start was built in a folder that has moved: it finds LLVM by its path.
    [ "$(cat "$tools/bin/.key" 2>/dev/null)" = "$key" ] && "$linker" --version >/dev/null 2>&1 && return 0
    say "building bpf-linker $linker_version against LLVM $major (about a minute)"
    soname=$(readelf -d "$llvm" | sed -n 's/.*SONAME.*\[\(.*\)\]/\1/p')
    rm -rf "$tools/llvm" && mkdir -p "$tools/llvm/lib" "$tools/bin"
    ln -s "$llvm" "$tools/llvm/lib/libLLVM.so"
    [ "${soname:-libLLVM.so}" = libLLVM.so ] || ln -s "$llvm" "$tools/llvm/lib/$soname"
    env -u RUSTC -u RUSTFLAGS -u CARGO_ENCODED_RUSTFLAGS -u CARGO_TARGET_DIR -u LD_LIBRARY_PATH \
        LLVM_PREFIX="$tools/llvm" CARGO_PROFILE_RELEASE_DEBUG=0 CARGO_PROFILE_RELEASE_OPT_LEVEL=1 \
        cargo install bpf-linker --locked --version "=$linker_version" --no-default-features \
        --features "llvm-$major" --root "$tools" --target-dir "$tools/build" --force >&2
    rm -rf "$tools/build"
    echo "$key" >"$tools/bin/.key"
}

choose() {
    local route
    for route in ${BPF_TOOLS:-rustup debian path}; do
        if "route_$route"; then chosen=$route; return 0; fi
    done
    say "no way to build for bpfel-unknown-none was found; the shortest cure: rustup component add rust-src"
    return 1
}

mkdir -p "$tools"
choose
[ -z "$llvm" ] || [ -n "${BPF_LINKER:-}" ] || build_linker
[ -x "$linker" ] || { say "$linker is not an executable file"; exit 1; }
answer=$(printf 'ROUTE=%s\nRUSTC=%s\nBUILD_STD=%s\nLINKER=%s' "$chosen" "$compiler" "$build_std" "$linker")
# An unchanged file keeps its time, so that nothing is built again.
[ "$(cat "$tools/env" 2>/dev/null)" = "$answer" ] || echo "$answer" >"$tools/env"
say "ready: $chosen, $("$compiler" -V), bpf-linker $linker_version ($((SECONDS - started)) s)"
