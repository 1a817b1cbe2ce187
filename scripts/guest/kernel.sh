#!/bin/bash
# Makes ready what a virtual machine boots: `kernel.sh SUITE ARCHITECTURE` leaves vmlinuz and root.cpio in
# target/kernels/SUITE-ARCHITECTURE and prints that folder. The kernel is Debian's cloud kernel of that suite; the root
# has its network modules and the few programs that the tests call.
#
# Packages come through this machine's apt, with lists and a state of their own: nothing is installed, and no setting
# of the machine changes, not even for another architecture. What is there is kept: remove target/kernels for newer ones.
set -euo pipefail
cd "$(dirname "$0")/../.."

readonly suite=$1 architecture=$2
# Of the newest suite, whose libc runs what was built on an older one.
readonly tools_suite=trixie tools=(busybox-static iproute2 nftables)
readonly modules='kernel/(net|lib|crypto|arch|drivers/net/(veth|dummy)\.)'
readonly cache=$PWD/target/kernels
readonly folder=$cache/$suite-$architecture

say() { echo "kernel: $*" >&2; }

# apt SUITE ARGUMENTS...: apt-get for that suite, as on a machine of this architecture with nothing installed.
apt() {
    local state=$cache/apt/$1-$architecture
    apt-get -qq -o APT::Architecture="$architecture" -o APT::Architectures="$architecture" \
        -o APT::Install-Recommends=false -o APT::Sandbox::User=root -o Acquire::Languages=none \
        -o Dir::Etc::SourceList="$state/sources.list" -o Dir::Etc::SourceParts=- -o Dir::State="$state" \
        -o Dir::State::Status="$state/status" -o Dir::Cache="$state" "${@:2}"
}

# Reads the lists of a suite, from the archive that this machine's apt uses.
lists() {
    local state=$cache/apt/$1-$architecture mirror
    [ ! -e "$state/read" ] || return 0
    mirror=$(apt-get indextargets --format '$(LABEL) $(REPO_URI)' | sed -n 's/^Debian //p' | head -1)
    [ -n "$mirror" ] || { say "apt has no lists of Debian: run apt-get update"; return 1; }
    mkdir -p "$state/lists/partial" "$state/archives/partial" && : >"$state/status"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $1 main" >"$state/sources.list"
    apt "$1" update >&2 && touch "$state/read"
}

# The name of the kernel's package has its version in it; the one without only depends on it.
add_kernel() {
    local package
    package=$(apt "$suite" install -s "linux-image-cloud-$architecture" | sed -n 's/^Inst \(linux-image-[0-9][^ ]*\) .*/\1/p')
    say "fetching $package of $suite (30 MB)"
    (cd "$work" && apt "$suite" download "$package" >&2 && dpkg-deb -x "$package"_*.deb kernel)
    mv "$work"/kernel/boot/vmlinuz-* "$work/vmlinuz"
    mv "$(find "$work/kernel" -path '*lib/modules')" "$work/root/usr/lib/"
    find "$work/root/usr/lib/modules" -name '*.ko*' | grep -vE "$modules" | xargs rm
    find "$work/root/usr/lib/modules" -name '*.xz' -exec xz -d {} +
    depmod -b "$work/root" "$(ls "$work/root/usr/lib/modules")"
}

add_tools() {
    local package
    say "fetching ${tools[*]} with their libraries (12 MB)"
    apt "$tools_suite" install -y --download-only "${tools[@]}" >&2
    for package in "$cache/apt/$tools_suite-$architecture"/archives/*.deb; do
        dpkg-deb -x "$package" "$work/root"
    done
    rm -r "$work/root/usr"/{share,include,lib/*/gconv}
    # The kernel asks this one for modules.
    ln -s ../bin/busybox "$work/root/usr/sbin/modprobe"
}

if ! [ -e "$folder/root.cpio" ]; then
    mkdir -p "$cache"
    work=$(mktemp -d "$cache/.work-XXXXXX") && trap 'rm -rf "$work"' EXIT
    mkdir -p "$work/root"/{usr/{bin,sbin,lib,lib64},proc,sys,dev,tmp,mnt,run}
    for name in bin sbin lib lib64; do ln -s usr/$name "$work/root/$name"; done
    lists "$suite"
    lists "$tools_suite"
    add_tools
    add_kernel
    (cd "$work/root" && find . | cpio --quiet -o -H newc -R 0:0) >"$work/root.cpio"
    mkdir -p "$folder" && mv "$work/vmlinuz" "$work/root.cpio" "$folder/"
fi
echo "$folder"
