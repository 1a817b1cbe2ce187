#!/bin/bash
# Checks the chart: helm's own lint, what it renders for each deploy/helm/golden/NAME.values.yaml against NAME.yaml beside it,
# and that it refuses each file of deploy/helm/rejected, whose first line says in which words. `chart.sh update` writes
# the rendered files, and deploy/cleanup.yaml, again: read the difference before you commit it.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly chart=deploy/helm/cellwall golden=deploy/helm/golden rejected=deploy/helm/rejected
helm=${HELM:-target/tools/helm}
wrong=0
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT

fail() { echo "chart: $*" >&2 && wrong=$((wrong + 1)); }

# render VALUES ARGUMENTS...: the name of the release and its namespace are part of what is rendered.
render() { "$helm" template cellwall "$chart" --namespace cellwall --kube-version 1.37.0 --values "$1" "${@:2}"; }

# What uninstalls without helm: the DaemonSet of the hook, without what only helm reads.
cleanup() {
    echo "# Removes what Cellwall left on the nodes, for those whose tools do not run the hooks of a chart. The agents have to be gone:"
    echo "# on a node where one still runs it waits. Written by scripts/chart.sh from the chart."
    echo "#"
    echo "#   kubectl apply -f cleanup.yaml && kubectl -n kube-system rollout status daemonset/cellwall-cleanup"
    echo "#   kubectl delete -f cleanup.yaml"
    "$helm" template cellwall "$chart" --namespace kube-system --kube-version 1.37.0 \
        --show-only templates/cleanup/daemonset.yaml |
        grep -vE '^(---|# (Source|Runs)| +# |  annotations:$)|helm.sh/|managed-by'
}

# compare FILE TEXT-FILE
compare() {
    if [ "$mode" = update ]; then
        cp "$2" "$1"
    elif ! diff -u "$1" "$2"; then
        fail "$1 is not what the chart renders; if that is meant: scripts/chart.sh update"
    fi
}

mode=${1:-check}
[ -x "$helm" ] || { echo "chart: no helm; run: scripts/setup.sh chart" >&2 && exit 1; }

"$helm" lint --strict --quiet "$chart" || fail "helm lint found something"
version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
for field in version appVersion; do
    grep -qx "$field: $version" "$chart/Chart.yaml" || fail "$chart/Chart.yaml: $field is not $version, as Cargo.toml has it"
done

rendered=0
for values in "$golden"/*.values.yaml; do
    name=$(basename "$values" .values.yaml)
    if render "$values" >"$work/$name" && ! grep -n ' $' "$work/$name"; then
        compare "$golden/$name.yaml" "$work/$name"
    else
        fail "$values cannot be rendered, or has spaces at the ends of lines"
    fi
    rendered=$((rendered + 1))
done
cleanup >"$work/cleanup" && compare deploy/cleanup.yaml "$work/cleanup"

refused=0
for values in "$rejected"/*.yaml; do
    words=$(sed -n '1s/^# //p' "$values")
    if render "$values" >"$work/out" 2>"$work/said"; then
        fail "$values is taken, and should be refused"
    elif ! grep -qF -- "$words" "$work/said"; then
        fail "$values is refused in other words than: $words" && cat "$work/said" >&2
    fi
    refused=$((refused + 1))
done
[ "$wrong" = 0 ] && echo "chart: $rendered renderings as they should be, $refused wrong values refused"
