#!/bin/bash
# Builds the container image into target/image/cellwall.tar, an OCI archive: `ctr -n k8s.io images import` takes it.
# Without arguments for this machine's architecture; `image.sh amd64 arm64` for both, in one archive.
#
# One static program for each, against musl, so that the image needs no library. The same sources give the same digest,
# wherever they lie: folders are mapped to names, and there are no times but SOURCE_DATE_EPOCH (0 unless set).
set -euo pipefail
cd "$(dirname "$0")/.."

readonly folder=target/image
say() { echo "image: $*" >&2; }

case $(uname -m) in x86_64) own=amd64 ;; aarch64) own=arm64 ;; *) own=$(uname -m) ;; esac
architectures=("${@:-$own}")
started=$SECONDS

# build ARCHITECTURE: its program, in target/TRIPLE/ship.
build() {
    local triple cargo_home=${CARGO_HOME:-$HOME/.cargo}
    case $1 in
        amd64) triple=x86_64-unknown-linux-musl ;;
        arm64) triple=aarch64-unknown-linux-musl ;;
        *) say "unknown architecture: $1 (amd64, arm64)" && exit 2 ;;
    esac
    # Rust brings musl along. Of the compiler for C only what needs no library is asked, so one for another libc does.
    if [ "$1" != "$own" ]; then
        scripts/setup.sh "image-$1"
        local compiler=${triple/-unknown/} && compiler=${compiler/musl/gnu}-gcc
        export "CC_${triple//-/_}=$compiler"
        local linker=${triple^^} && export "CARGO_TARGET_${linker//-/_}_LINKER=$compiler"
    fi
    if command -v rustup >/dev/null; then
        rustup target add -q "$triple" 2>/dev/null || { say "rustup cannot add $triple; try: rustup target add $triple" && exit 1; }
    fi
    RUSTFLAGS="--remap-path-prefix=$cargo_home=/cargo --remap-path-prefix=$PWD=/cellwall" \
        cargo build --locked --profile ship --target "$triple" -p cellwall-multicall
    rm -rf "${folder:?}/$1" && mkdir -p "$folder/$1/bin" "$folder/$1/licenses"
    install -m 755 "target/$triple/ship/cellwall-multicall" "$folder/$1/bin/cellwall-agent"
    ln -s cellwall-agent "$folder/$1/bin/cellwall"
    ln -s cellwall-agent "$folder/$1/bin/cellwall-hook"
    install -m 644 LICENSE "$folder/$1/licenses/cellwall"
}

for architecture in "${architectures[@]}"; do
    say "building for $architecture (the first time some minutes)"
    build "$architecture"
done
version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
cargo run --locked --quiet -p cellwall-xtask -- image --out "$folder/cellwall.tar" --name "cellwall.dev/cellwall:$version" \
    "${architectures[@]/#/$folder/}" | tee "$folder/digest"
say "$folder/cellwall.tar: $(($(stat -c %s "$folder/cellwall.tar") / 1024)) KiB ($((SECONDS - started)) s)"
