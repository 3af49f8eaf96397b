#!/bin/sh
# Shows what tope-store does, on two real consecutive releases of a published package: imports both, switches,
# rolls back, compares, and tells the space saved. Every command is printed before it is run.
#
#   sh deploy/demo.sh [DIR]
#
# Works in DIR and leaves it there, else in a temporary directory that is removed. May be run again in the same DIR.
# TOPE_STORE: the program to show, if it is not to be built.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
run() { printf '\n$ %s\n' "$*" && "$@"; }
tope() { printf '\n$ tope-store %s\n' "$*" && "$TOPE_STORE" "$@"; }

temporary=$(mktemp -d)
trap 'chmod -R u+w "$temporary" && rm -rf "$temporary"' EXIT
trap 'exit 130' INT TERM HUP
work=${1:-$temporary/store}
mkdir -p "$work"
work=$(cd "$work" && pwd)

if [ -z "${TOPE_STORE:-}" ]; then
    run cargo build --release --locked --manifest-path "$here/../Cargo.toml"
    target=${CARGO_TARGET_DIR:-$here/../target}
    TOPE_STORE=$(cd "$target/release" && pwd)/tope-store
fi

run sh "$here/demo_releases.sh" "$temporary/releases"
{ read -r old old_source && read -r new new_source; } <"$temporary/releases/list"

printf '\n$ export TOPE_ROOT=%s\n' "$work"
export TOPE_ROOT="$work"
tope init
tope import "$old_source" --version "$old"
tope import "$new_source" --version "$new"
tope activate "$old"
tope activate "$new"
tope rollback --not-bad
tope diff "$old" "$new" --stat
tope list
tope history
tope status
tope du
tope gc --keep-last 1 --dry-run
printf '\nThat was %s and %s in %s.\n' "$old" "$new" "$work"
