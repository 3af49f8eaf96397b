#!/bin/sh
# Fuzzes every parser of outside bytes, guided by coverage, for a bounded time each, starting from the kept corpus.
#
#   tests/fuzz/run.sh [SECONDS [TARGET...]]
#
# Works with the stable toolchain and a C++ compiler. What is found is kept below target/fuzz/found/: an input that breaks a
# promise goes into tests/fuzz/corpus/TARGET/ together with the mending, where every ordinary test run replays it.
# TOPE_FUZZ_SEED=N tries the same inputs again, as far as the time reaches; otherwise every run tries others.
set -eu
cd "$(dirname "$0")/../.."

seconds=${1:-30}
[ $# -eq 0 ] || shift
# The names of targets hold no spaces.
# shellcheck disable=SC2046
[ $# -gt 0 ] || set -- $(ls tests/fuzz/corpus)

machine=$(rustc -vV | sed -n 's/^host: //p')
RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table
    -Cllvm-args=-sanitizer-coverage-trace-compares"
RUSTFLAGS=$(echo "$RUSTFLAGS" | tr -s '\n ' ' ')
export RUSTFLAGS
# With a target named, build scripts and macros are not instrumented.
cargo build --quiet --release --locked --manifest-path tests/fuzz/Cargo.toml --target "$machine" --target-dir target/fuzz

status=0
for target in "$@"; do
    mkdir -p "target/fuzz/found/$target"
    log=target/fuzz/found/$target.log
    if "target/fuzz/$machine/release/$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=1024 \
        -seed="${TOPE_FUZZ_SEED:-0}" -max_len=65536 -print_final_stats=1 -artifact_prefix="target/fuzz/found/$target-" \
        "target/fuzz/found/$target" "tests/fuzz/corpus/$target" >"$log" 2>&1; then
        runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
        echo "fuzz $target: $runs inputs in ${seconds}s, nothing found"
    else
        status=1
        echo "fuzz $target: FAILED, see $log"
        grep -a -A 3 -E 'panicked|ERROR|Base64' "$log" | cut -c 1-400 | head -n 20
    fi
done
rm -rf /dev/shm/tope-store-fuzz.*
exit $status
