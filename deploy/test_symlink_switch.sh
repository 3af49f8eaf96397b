#!/bin/sh
# Tests the switch on this device: shows the state, switches to another version, verifies through the links, and
# switches back, whatever happens in between. Services are not restarted.
#
#   sudo ./test_symlink_switch.sh [VERSION]     (default: previous, else any other version)
#
# Environment: TOPE_ROOT (default /opt/tope), TOPE_BIN_DIR (default /usr/local/bin), TOPE_STORE, the program to call.
set -eu

root=${TOPE_ROOT:-/opt/tope}
versions=$root/versions
tope() { "${TOPE_STORE:-tope-store}" --root "$root" "$@"; }
fail() { echo "FAILED: $*" >&2; exit 1; }
version_of() { basename "$(readlink -f "$1")"; }
restore() {
    [ "$(version_of "$versions/current")" = "$was" ] ||
        tope activate "$was" --verify none --force --reason "end of the switch test"
}
[ -d "$versions/current" ] || fail "no version is current; activate one first: tope-store activate VERSION"

echo "1. State"
tope status
was=$(version_of "$versions/current") other=${1:-}
for candidate in "$versions/previous" "$versions"/*; do
    [ ! -d "$candidate" ] || [ "$(version_of "$candidate")" = "$was" ] || other=${other:-$(version_of "$candidate")}
done
[ -n "$other" ] || fail "there is no version but $was; a switch takes two: import another one first"

echo "2. Switching from $was to $other"
trap restore EXIT
trap 'exit 130' INT TERM HUP
tope activate "$other" --reason "switch test"

echo "3. Verifying through the links"
now=$(version_of "$versions/current")
[ "$now" != "$was" ] || fail "current still leads to $was"
for link in "${TOPE_BIN_DIR:-/usr/local/bin}"/* "$root"/services/*; do
    case $(readlink "$link" || :) in "$versions"/current/* | ../versions/current/*) ;; *) continue ;; esac
    case $(readlink -f "$link" || :) in "$(readlink -f "$versions/$now")"/*) ;; *) fail "$link leads elsewhere" ;; esac
    if [ -e "$link" ]; then echo "   ok: $link"; else echo "   not in $now: $link"; fi
done

echo "4. Switching back to $was"
restore
echo "PASSED: $was -> $now -> $(version_of "$versions/current")"
