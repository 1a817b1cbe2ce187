#!/bin/sh
# RUSTC_WRAPPER of the build of the kernel object: makes it byte-identical wherever it is built.
#
# Cargo's `-C metadata` hashes the absolute path of a path dependency outside its workspace (crates/abi and
# crates/verdict are), rustc puts the hash into every symbol, and the linker orders functions by symbol. Crate
# names are unique in this graph, so they can stand in for the hash.
compiler=$1
shift
case " $* " in
    *" --target bpfel-unknown-none "*) ;;
    *) exec "$compiler" "$@" ;;
esac
for argument; do
    shift
    case $argument in metadata=*) argument=metadata=cellwall ;; esac
    set -- "$@" "$argument"
done
exec "$compiler" "$@"
