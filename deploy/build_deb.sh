#!/bin/sh
# Builds the Debian package: the release binary, its manual pages and completions, and what Cargo.toml lists under
# [package.metadata.deb]. Needs cargo-deb (cargo install cargo-deb).
#
#   sh deploy/build_deb.sh [ARGUMENT...]     of `cargo deb`, as in --output DIR
#
# TOPE_STORE: a program to package instead of one built here.
set -eu

cd "$(dirname "$0")/.."
built=${CARGO_TARGET_DIR:-target}/release/tope-store
if [ -z "${TOPE_STORE:-}" ]; then
    cargo build --release --locked
    TOPE_STORE=$built
fi
# Where Cargo.toml looks for it, whatever the target directory is.
parts=target/deb
rm -rf "$parts"
mkdir -p "$parts"
install -s -m 755 "$TOPE_STORE" "$parts/tope-store"
"$TOPE_STORE" --quiet man --out "$parts/man"
for shell in bash zsh fish; do
    "$TOPE_STORE" completions "$shell" >"$parts/completions.$shell"
done
exec cargo deb --no-build "$@"
