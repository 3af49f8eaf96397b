#!/bin/bash
# Times two builds of tope-store in turns on the same releases and prints their ratios: a Markdown table.
# usage: benches/pairs.sh [--rounds N] [--files N] [--image GIB] BEFORE AFTER
# BEFORE and AFTER are directories as `target/release`, each with tope-store and examples/bench-tools. Needs root for its
# loop-mounted ext4. See README.md here.
set -euo pipefail
export LC_ALL=C

rounds=15 files=20000 image=8 builds=()
while [ $# -gt 0 ]; do
    case $1 in
        --rounds) rounds=$2; shift ;;
        --files) files=$2; shift ;;
        --image) image=$2; shift ;;
        --help) sed -n '2,5s/^# //p' "$0"; exit 0 ;;
        -*) echo "unknown option $1" >&2; exit 2 ;;
        *) builds+=("$(cd "$1" && pwd)") ;;
    esac
    shift
done
[ ${#builds[@]} = 2 ] || { sed -n '3s/^# //p' "$0" >&2; exit 2; }
[ "$(id -u)" = 0 ] || { echo "a loop mount needs root" >&2; exit 1; }

base=$(mktemp -d)
clean_up() {
    cd /
    if mountpoint -q "$base/mounted"; then umount "$base/mounted"; fi
    rm -rf "$base"
}
trap clean_up EXIT
trap 'exit 130' INT TERM
truncate -s "${image}G" "$base/image"
mkfs.ext4 -q -F -i 8192 -E lazy_itable_init=0,lazy_journal_init=0 "$base/image"
mkdir "$base/mounted" "$base/results"
mount -o loop,noatime "$base/image" "$base/mounted"
work=$base/mounted rel=$base/mounted/rel
mkdir "$rel"
"${builds[1]}/examples/bench-tools" generate "$rel" "$files" 3

rows=(first next unchanged materialise diff list verify switch quick gc)
tope() { "${builds[$1]}/tope-store" --root "$work/store$1" --config /dev/null --quiet "${@:2}" >/dev/null; }
prepare() { # prepare ROW BUILD: brings the store to where the row begins
    case $1 in
        first) rm -rf "$work/store$2"; tope "$2" init ;;
        switch | quick) tope "$2" activate 1 --verify none ;;
        gc) tope "$2" import "$rel/3" --version 3; tope "$2" activate 3 --verify none ;;
    esac
}
work_of() { # work_of ROW BUILD
    case $1 in
        first) tope "$2" import "$rel/1" --version 1 ;;
        next) tope "$2" import "$rel/2" --version 2 ;;
        unchanged) tope "$2" import "$rel/2" --version 2-again ;;
        materialise) "${builds[$2]}/examples/bench-tools" materialise "$work/store$2" v2 made >/dev/null ;;
        diff) tope "$2" diff 1 2 --name-status ;;
        list) tope "$2" list ;;
        verify) tope "$2" verify --cached ;;
        switch) tope "$2" activate 2 --verify none ;;
        quick) tope "$2" activate 2 ;;
        gc) tope "$2" remove 2-again ;;
    esac
}
for ((round = 0; round < rounds; round++)); do
    echo "round $((round + 1)) of $rounds" >&2
    for row in "${rows[@]}"; do
        for turn in 0 1; do
            build=$(((round + turn) % 2))
            prepare "$row" "$build"
            sync
            start=${EPOCHREALTIME/./}
            work_of "$row" "$build"
            end=${EPOCHREALTIME/./}
            echo $((end - start)) >>"$base/results/$row.$build"
        done
    done
    rm -rf "$work"/store[01]
done

echo "$files files, $rounds rounds in turns"
echo
echo "| row | before, ms | after, ms | ratio of the medians | median of the ratios |"
echo "| --- | --- | --- | --- | --- |"
median() { sort -g | awk '{ a[NR] = $1 } END { print (a[int((NR + 1) / 2)] + a[int(NR / 2) + 1]) / 2 }'; }
for row in "${rows[@]}"; do
    before=$(median <"$base/results/$row.0") after=$(median <"$base/results/$row.1")
    each=$(paste "$base/results/$row.0" "$base/results/$row.1" | awk '{ print $2 / $1 }' | median)
    awk -v row="$row" -v before="$before" -v after="$after" -v each="$each" 'BEGIN {
        printf "| %s | %.1f | %.1f | %.3f | %.3f |\n", row, before / 1000, after / 1000, after / before, each }'
done
