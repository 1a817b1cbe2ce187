#!/bin/bash
# Makes this machine able to build and test the tree: `setup.sh build`, for a cluster `setup.sh cluster`, for virtual
# machines with other kernels `setup.sh kernels`, for those of arm64 `setup.sh arm64`, to measure `setup.sh bench`, for the
# chart `setup.sh chart` (helm, into target/tools), and to build the image for another architecture `setup.sh image-arm64`.
# Does nothing, in less than a second, when everything is there. Installs Debian packages, which needs root;
# without root it says which are missing.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { echo "setup: $*" >&2; }

# command:package
tools=(cc:gcc readelf:binutils ip:iproute2 nft:nftables)
# A compiler without headers and start files links nothing; gcc only recommends them.
folders=(/usr/include/stdio.h:libc6-dev)
if [ "${1:-build}" = cluster ]; then
    tools+=(containerd:containerd runc:runc iptables:iptables unshare:util-linux nsenter:util-linux pgrep:procps)
    folders+=(/usr/lib/cni/bridge:containernetworking-plugins)
fi
case ${1:-build} in
    bench) tools+=(nft:nftables iptables:iptables ipset:ipset) ;;
    kernels) tools+=(qemu-system-x86_64:qemu-system-x86 cpio:cpio depmod:kmod xz:xz-utils) ;;
    arm64)
        tools+=(qemu-system-aarch64:qemu-system-arm cpio:cpio depmod:kmod xz:xz-utils)
        tools+=(aarch64-linux-gnu-gcc:gcc-aarch64-linux-gnu)
        folders+=(/usr/aarch64-linux-gnu/include:libc6-dev-arm64-cross)
        ;;
    image-amd64) tools+=(x86_64-linux-gnu-gcc:gcc-x86-64-linux-gnu) ;;
    image-arm64)
        tools+=(aarch64-linux-gnu-gcc:gcc-aarch64-linux-gnu)
        folders+=(/usr/aarch64-linux-gnu/include:libc6-dev-arm64-cross)
        ;;
    # Nothing of Rust is needed for it.
    chart) tools=() ;;
esac

missing=()
for tool in "${tools[@]}"; do
    # A user's PATH may lack sbin; root's has it.
    PATH=$PATH:/usr/sbin:/sbin command -v "${tool%%:*}" >/dev/null || missing+=("${tool##*:}")
done
for folder in "${folders[@]}"; do
    [ -e "${folder%%:*}" ] || missing+=("${folder##*:}")
done

if [ ${#missing[@]} -gt 0 ]; then
    if ! command -v apt-get >/dev/null || [ "$(id -u)" != 0 ]; then
        say "missing: ${missing[*]} (names of Debian packages); as root: apt-get install ${missing[*]}"
        exit 1
    fi
    say "installing ${missing[*]} (up to a minute)"
    started=$SECONDS
    log=$(mktemp --suffix=.cellwall-apt)
    if ! { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -yq --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
        tail -20 "$log" >&2
        say "the packages could not be installed, see above (all of it: $log)"
        exit 1
    fi
    rm "$log"
    say "installed in $((SECONDS - started)) s"
fi

# Go before 1.21 cannot fetch the version that a module asks for.
need_go() {
    local version
    version=$(go env GOVERSION 2>/dev/null | sed 's/^go1\.\([0-9]*\).*/\1/')
    if [ "${version:-0}" -lt 21 ]; then
        say "missing: Go 1.21 or later (on Debian 12 the package golang-1.22-go or later of bookworm-backports)"
        exit 1
    fi
}

# helm has no Debian package; its Go module does. Built without a version of Kubernetes it takes every cluster for 1.20.
helm() {
    local version=3.22.0 major=1 minor=37 name flags=()
    [ "$(target/tools/helm version --template '{{.Version}}' 2>/dev/null)" = "v$version" ] && return
    need_go
    say "building helm $version from its Go module (some minutes the first time)"
    flags=(-s -w -X "helm.sh/helm/v3/internal/version.version=v$version")
    for name in pkg/chartutil pkg/lint/rules; do
        flags+=(-X "helm.sh/helm/v3/$name.k8sVersionMajor=$major" -X "helm.sh/helm/v3/$name.k8sVersionMinor=$minor")
    done
    GOBIN=$PWD/target/tools CGO_ENABLED=0 go install -trimpath -ldflags "${flags[*]}" "helm.sh/helm/v3/cmd/helm@v$version"
}

case ${1:-build} in
    chart)
        helm
        exit
        ;;
    cluster)
        need_go
        if [ "$(id -u)" != 0 ]; then
            say "a cluster needs root"
            exit 1
        fi
        ;;
esac

if ! command -v cargo >/dev/null; then
    say "missing: Rust 1.95 or later, best by rustup; then run this again"
    exit 1
fi

# Quick when done: it compares a few files. It speaks only when it has something to do.
if ! scripts/bpf-tools.sh 2> >(grep -v "^bpf-tools: ready" >&2); then
    exit 1
fi
