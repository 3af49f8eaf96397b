#!/bin/bash
# How import, gc, list, diff and the index grow with the number of versions and files. Prints a table.
# Works in a directory that it makes in the one given by TOPE_BENCH_DIR (default: the temporary one).
# usage: benches/scaling.sh [--versions "1 10 100"] FILES...
set -euo pipefail
export LC_ALL=C

counts='1 10 100'
if [ "${1:-}" = --versions ]; then
    counts=$2
    shift 2
fi
[ $# -gt 0 ] || { sed -n '2,4s/^# //p' "$0" >&2; exit 2; }

here=$(cd "$(dirname "$0")/.." && pwd)
binaries=${CARGO_TARGET_DIR:-$here/target}/release
(cd "$here" && cargo build --quiet --release --bin tope-store --example bench-tools)
work=$(mktemp -d "${TOPE_BENCH_DIR:-${TMPDIR:-/tmp}}/tope-scaling.XXXXXX")
trap 'rm -rf "$work"' EXIT

tope() { "$binaries/tope-store" --root "$work/root" --config /dev/null --quiet "$@" >/dev/null; }
# seconds COMMAND...: its wall time.
seconds() {
    local start end
    sync
    start=${EPOCHREALTIME/./}
    "$@"
    end=${EPOCHREALTIME/./}
    awk -v us=$((end - start)) 'BEGIN { printf "%.3f", us / 1e6 }'
}
optional() { # optional COMMAND...: a dash where this tope-store has no such command
    if tope "$1" --help 2>/dev/null; then seconds tope "$@"; else printf -- -; fi
}

echo "| files | versions | import, s | unchanged, s | diff, s | list, s | gc of one, s | index, MiB | index per file and version, bytes |"
echo "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
for files in "$@"; do
    rm -rf "$work/root" "$work/rel"
    # Four releases in turn: every version differs from the one before in a twentieth of its files.
    "$binaries/examples/bench-tools" generate "$work/rel" "$files" 4
    tope init
    present=0
    for versions in $counts; do
        while [ $present -lt $((versions - 1)) ]; do
            present=$((present + 1))
            tope import "$work/rel/$((present % 4 + 1))" --version "0.$present"
        done
        present=$((present + 1))
        release=$work/rel/$((present % 4 + 1))
        # New times, so that everything is read.
        find "$release" -type f -exec touch -d '2 minutes ago' {} +
        sleep 3
        import=$(seconds tope import "$release" --version "0.$present")
        unchanged=$(seconds tope import "$release" --version "0.$present-again")
        difference=$(optional diff "0.$((present > 1 ? present - 1 : 1))" "0.$present" --name-status)
        list=$(optional list)
        index=$(stat -c %s "$work/root/store/index.db")
        gc=$(seconds tope remove "0.$present-again")
        echo "$files $present $import $unchanged $difference $list $gc $index" | awk '{
            printf "| %d | %d | %s | %s | %s | %s | %s | %.1f | %.0f |\n", $1, $2, $3, $4, $5, $6, $7, $8 / 1048576, $8 / $1 / ($2 + 1) }'
    done
done
