#!/bin/bash
# Builds the container image into target/image/cellwall.tar, an OCI archive: `ctr -n k8s.io images import` takes it.
# Without arguments for this machine's architecture; `image.sh amd64 arm64` for both, in one archive.
#
# One static program for each, against musl, so that the image needs no library. No folder of this machine is in it, and no
# time but SOURCE_DATE_EPOCH (0 unless set), so that the same sources can give the same digest elsewhere.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly folder=target/image built=${CARGO_TARGET_DIR:-target}
say() { echo "image: $*" >&2; }

case $(uname -m) in x86_64) own=amd64 ;; aarch64) own=arm64 ;; *) own=$(uname -m) ;; esac
architectures=("${@:-$own}")
started=$SECONDS

# The standard library for a target, which rustup fetches.
need_target() {
    [ ! -d "$(rustc --print target-libdir --target "$1" 2>/dev/null)" ] || return 0
    command -v rustup >/dev/null && rustup target add "$1" >&2 || {
        say "Rust has no library for $1 here; as who installed Rust: rustup target add $1"
        exit 1
    }
}

# build ARCHITECTURE: its program, in TRIPLE/ship.
build() {
    local triple compiler=gcc cargo_home=${CARGO_HOME:-$HOME/.cargo}
    case $1 in
        amd64) triple=x86_64-unknown-linux-musl ;;
        arm64) triple=aarch64-unknown-linux-musl ;;
        *) say "unknown architecture: $1 (amd64, arm64)" && exit 2 ;;
    esac
    need_target "$triple"
    if [ "$1" != "$own" ]; then
        scripts/setup.sh "image-$1"
        compiler=${triple%%-*}-linux-gnu-gcc
    fi
    # Rust brings musl along. Of the compiler for C only what needs no library is asked, so one for another libc does.
    local variable=${triple//-/_}
    export "CC_$variable=$compiler" "CARGO_TARGET_${variable^^}_LINKER=$compiler"
    RUSTFLAGS="--remap-path-prefix=$cargo_home=/cargo --remap-path-prefix=$PWD=/cellwall" \
        cargo build --locked --profile ship --target "$triple" -p cellwall-multicall
    local program=$built/$triple/ship/cellwall-multicall
    if grep -qaF -e "$PWD/" -e "$cargo_home/" "$program"; then
        say "$program has folders of this machine in it; see: strings $program | grep -F -e $PWD/ -e $cargo_home/"
        exit 1
    fi
    rm -rf "${folder:?}/$1" && mkdir -p "$folder/$1/bin" "$folder/$1/licenses"
    install -m 755 "$program" "$folder/$1/bin/cellwall-agent"
    ln -s cellwall-agent "$folder/$1/bin/cellwall"
    ln -s cellwall-agent "$folder/$1/bin/cellwall-hook"
    install -m 644 LICENSE "$folder/$1/licenses/cellwall"
}

for architecture in "${architectures[@]}"; do
    say "building for $architecture (the first time some minutes)"
    build "$architecture"
done
version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
# As `make test` builds it, or cargo would build its libraries again.
cargo build --locked --quiet --profile test --workspace --bin cellwall-xtask
"$built/debug/cellwall-xtask" image --out "$folder/cellwall.tar" --name "cellwall.dev/cellwall:$version" \
    "${architectures[@]/#/$folder/}" | tee "$folder/digest"
say "$folder/cellwall.tar: $(($(stat -c %s "$folder/cellwall.tar") / 1024)) KiB ($((SECONDS - started)) s)"
