#!/bin/sh
# Verifies the setup of this device: a version is current, every link leads through it, no file of a tree was changed,
# and the factory version is sound. Changes nothing.
#
#   ./verify_setup.sh
#
# Environment: TOPE_ROOT (default /opt/tope), TOPE_BIN_DIR (default /usr/local/bin), TOPE_STORE, the program to call.
set -eu

wrong=
tope() { "${TOPE_STORE:-tope-store}" "$@"; }
check() {
    about=$1 && shift
    printf '\n%s\n' "$about"
    "$@" || wrong="$wrong${wrong:+, }$about"
}
links_stand() {
    planned=$(tope --json link --dry-run) || { printf '%s\n' "$planned"; return 1; }
    case $planned in
        *'"action": "created"'* | *'"action": "replaced"'* | *'"action": "removed"'*) tope link --dry-run && return 1 ;;
    esac
}
current() { [ -d "${TOPE_ROOT:-/opt/tope}/versions/current" ] || { echo "no version is current" && return 1; }; }

check "state" tope status
check "current version" current
check "links" links_stand
check "trees" tope verify --quick
check "factory version" tope factory verify
[ -z "$wrong" ] || { printf '\nFAILED: %s\n' "$wrong" >&2 && exit 1; }
printf '\nPASSED\n'
