#!/bin/sh
# Makes a version the factory version: the last level of rollback, protected against removal and change.
#
#   sudo ./create_factory_version.sh 1.0.0 [--isolated] [--replace]
#
# The work is done by `tope-store factory set`, whose arguments these are. Environment: TOPE_ROOT (default /opt/tope),
# TOPE_STORE, the program to call (default tope-store).
set -eu

if [ $# -eq 0 ]; then
    echo "usage: $0 VERSION [--isolated] [--replace]" >&2
    exit 2
fi
exec "${TOPE_STORE:-tope-store}" factory set "$@"
