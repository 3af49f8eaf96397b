#!/bin/sh
# Makes the links through which services run: BIN_DIR/* and services/*, both through versions/current.
#
#   sudo ./setup_symlinks.sh [--dry-run | --remove]
#
# Links that are stale are removed, files that are not ours are never touched. The work is done by `tope-store link`,
# whose arguments these are. Environment: TOPE_ROOT (default /opt/tope), TOPE_BIN_DIR (default /usr/local/bin),
# TOPE_STORE, the program to call (default tope-store).
set -eu

exec "${TOPE_STORE:-tope-store}" link "$@"
