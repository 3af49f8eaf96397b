#!/bin/bash
# Runs tope-store beside the tools that are used for the same work, in one interleaved run, and prints medians.
# See README.md here for what is measured and how.
set -euo pipefail
export LC_ALL=C

usage() {
    cat <<'TEXT'
usage: benches/compare.sh [OPTION]... SERIES

SERIES is one of:
  DIR DIR...                  unpacked releases, oldest first; two at least
  --generate FILES            six made-up releases of FILES files of 0-2 KiB, 5 % changed from one to the next
  --package NAME VERSION...   releases of a Python package, downloaded with pip and unpacked

OPTION:
  --rounds N     rounds of every measurement (default 5)
  --in DIR       where to work (default: a temporary directory); needs room for the image
  --image GIB    size of the ext4 image that is made and mounted there, as root (default 24, sparse)
  --no-image     work in the directory itself
  --floor        also run bench-floor: only the system calls that the work cannot do without
  --cold         also compare verify with b3sum from the medium, with the page cache dropped
TEXT
    exit "${1:-0}"
}

rounds=5 in='' image=24 floor='' cold='' kind=dirs series=()
while [ $# -gt 0 ]; do
    case $1 in
        --rounds) rounds=$2; shift ;;
        --in) in=$2; shift ;;
        --image) image=$2; shift ;;
        --no-image) image='' ;;
        --floor) floor=yes ;;
        --cold) cold=yes ;;
        --generate) kind=generate ;;
        --package) kind=package ;;
        --help) usage ;;
        -*) echo "unknown option $1" >&2; usage 2 >&2 ;;
        *) series+=("$1") ;;
    esac
    shift
done
[ ${#series[@]} -gt 0 ] || usage 2 >&2

here=$(cd "$(dirname "$0")/.." && pwd)
binaries=${CARGO_TARGET_DIR:-$here/target}/release
say() { echo "$*" >&2; }
have() { command -v "$1" >/dev/null; }
(cd "$here" && cargo build --quiet --release --bin tope-store --example bench-tools --example bench-floor)
tools=$binaries/examples/bench-tools floor_program=$binaries/examples/bench-floor

# --- the place to work -------------------------------------------------------------------------------------------

base=$(mktemp -d "${in:-${TMPDIR:-/tmp}}/tope-compare.XXXXXX")
work=$base
clean_up() {
    cd /
    if mountpoint -q "$base/mounted"; then umount "$base/mounted"; fi
    rm -rf "$base"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

if [ -n "$image" ] && [ "$(id -u)" = 0 ]; then
    truncate -s "${image}G" "$base/image"
    # Inode tables are written now, not by the kernel in the middle of a measurement.
    mkfs.ext4 -q -F -i 8192 -E lazy_itable_init=0,lazy_journal_init=0 "$base/image"
    mkdir "$base/mounted"
    mount -o loop,noatime "$base/image" "$base/mounted"
    work=$base/mounted
    say "working on journaled ext4 in a loop mount"
else
    say "working in $work on $(stat -f -c %T "$work"), without an image of our own"
fi

# --- the series --------------------------------------------------------------------------------------------------

rel=$work/rel
mkdir "$rel"
case $kind in
    generate) "$tools" generate "$rel" "${series[0]}" 6 ;;
    package)
        name=${series[0]} number=0
        for version in "${series[@]:1}"; do
            number=$((number + 1))
            say "downloading $name $version"
            python3 -m pip download --quiet --no-deps --only-binary :all: --dest "$base/wheel" "$name==$version"
            unzip -q "$base"/wheel/*.whl -d "$rel/$number"
            rm -r "$base/wheel"
        done ;;
    dirs)
        number=0
        for directory in "${series[@]}"; do
            number=$((number + 1))
            # Without times: every release has new ones, as a build makes them.
            cp -r --preserve=mode,ownership,links,xattr "$directory" "$rel/$number"
        done ;;
esac
last=$(find "$rel" -mindepth 1 -maxdepth 1 | wc -l)
[ "$last" -ge 2 ] || { say "a series has two releases at least"; exit 2; }
files=$(find "$rel/1" -type f | wc -l) checked_files=$(find "$rel/2" -type f | wc -l)
say "$last releases; the first has $files files, $(find "$rel/1" -type d | wc -l) directories, $(du -sm "$rel/1" | cut -f1) MiB"

# --- measuring ---------------------------------------------------------------------------------------------------

results=$base/results
mkdir "$results"

# run NAME COMMAND...: runs it quietly and adds its wall time in milliseconds to the results of NAME.
run() {
    local name=$1 start end
    shift
    start=${EPOCHREALTIME/./}
    "$@" >"$base/output" 2>"$base/errors" || {
        say "failed: $*"
        tail -n 20 "$base/errors" >&2
        exit 1
    }
    end=${EPOCHREALTIME/./}
    add "$name" $(((end - start) / 10))e-2
}
add() { echo "$2" >>"$results/$1"; }
median() {
    [ -s "$results/$1" ] || return 0
    sort -g "$results/$1" | awk '{ a[NR] = $1 } END { print (a[int((NR + 1) / 2)] + a[int(NR / 2) + 1]) / 2 }'
}
# plus NAME A B: the sum of the newest results of A and B is a result of NAME.
plus() { add "$1" "$(tail -qn 1 "$results/$2" "$results/$3" | awk '{ sum += $1 } END { print sum }')"; }

# in_turn ROUND FUNCTION...: calls each, beginning with another one in each round; everything is on disk before each.
in_turn() {
    local skip=$(($1 % ($# - 1))) function
    shift
    for function in "${@:1+skip}" "${@:1:skip}"; do
        sync
        "$function"
    done
}

check() {
    diff -r --no-dereference "$1" "$2" >"$base/differences" || {
        say "$2 is not what $1 is:"
        head "$base/differences" >&2
        exit 1
    }
}

store=$work/store
tope() { "$binaries/tope-store" --root "$store" --config /dev/null --quiet "$@"; }
quietly() { tope "$@" >/dev/null; }
can() { tope "$1" --help >/dev/null 2>&1; }
for command in diff verify activate list; do
    can "$command" || say "skipped: this tope-store has no $command"
done
for peer in rsync ostree b3sum strace /usr/bin/time; do
    have "$peer" || say "skipped: $peer is not installed"
done

and_sync() { "$@" && sync; }

first_tope() { run first.tope tope import "$rel/1" --version 1; }
first_cp() { run first.cp and_sync cp -a "$rel/1" "$work/cp1"; }
first_rsync() { run first.rsync and_sync rsync -a "$rel/1/" "$work/rsync1"; }
commit() { ostree --repo="$work/ostree" commit --branch="r$1" --tree="dir=$rel/$1" --subject="$1"; }
checkout() { ostree --repo="$work/ostree" checkout -H "r$1" "$2" && sync; }
ostree_release() {
    run "$1.ostree-commit" commit "$2"
    run "$1.ostree-checkout" checkout "$2" "$work/ostree$2"
    plus "$1.ostree" "$1.ostree-commit" "$1.ostree-checkout"
}
first_ostree() { ostree_release first 1; }
first_floor() { run first.floor "$floor_program" import "$rel/1" "$work/floor1" "$work/floor"; }

next_tope() { run next.tope tope import "$rel/2" --version 2; }
next_cp() { run next.cp and_sync cp -a "$rel/2" "$work/cp2"; }
# By default it compares whole seconds, and takes a file of the next release that was made in the same one for the same.
next_rsync() {
    run next.rsync and_sync rsync -a --modify-window=-1 --link-dest="$work/rsync1" "$rel/2/" "$work/rsync2"
}
next_ostree() { ostree_release next 2; }
next_floor() { run next.floor "$floor_program" import "$rel/2" "$work/floor2" "$work/floor"; }

unchanged_tope() { run unchanged.tope tope import "$rel/2" --version 2-again; }
unchanged_cp() { run unchanged.cp and_sync cp -a "$rel/2" "$work/cp2-again"; }
unchanged_floor() { run unchanged.floor "$floor_program" link "$work/cp2" "$work/floor2-again" sync; }

materialise_tope() { run materialise.tope "$tools" materialise "$store" v2 made; }
materialise_cp() { run materialise.cp cp -al "$work/cp2" "$work/made-cp"; }
materialise_ostree() { run materialise.ostree ostree --repo="$work/ostree" checkout -H r2 "$work/made-ostree"; }
materialise_floor() { run materialise.floor "$floor_program" link "$store/versions/v2" "$work/made-floor"; }

steps() { # steps PREFIX: the functions of a row whose tools are here
    local step
    for step in "$1_tope" "$1_cp" "$1_rsync" "$1_ostree" "$1_floor"; do
        case $step in
            *_rsync) have rsync || continue ;;
            *_ostree) have ostree || continue ;;
            *_floor) [ -n "$floor" ] || continue ;;
        esac
        if declare -F "$step" >/dev/null; then echo "$step"; fi
    done
}

empty_places() {
    find "$work" -mindepth 1 -maxdepth 1 ! -name rel ! -name lost+found ! -name image ! -name results \
        ! -name mounted ! -type f -exec rm -rf {} +
    quietly init
    if have ostree; then ostree --repo="$work/ostree" init --mode=bare; fi
    sync
}

for ((round = 0; round < rounds; round++)); do
    say "importing and materialising, round $((round + 1)) of $rounds"
    empty_places
    for row in first next unchanged materialise; do
        mapfile -t functions < <(steps "$row")
        in_turn "$round" "${functions[@]}"
    done
    if [ "$round" = 0 ]; then
        for pair in "1 store/versions/v1" "2 store/versions/v2" "2 store/versions/v2-again" "2 store/made" \
            "2 rsync2" "1 ostree1" "2 ostree2" "2 made-ostree" "1 floor1" "2 floor2" "2 floor2-again"; do
            if [ -e "$work/${pair#* }" ]; then check "$rel/${pair% *}" "$work/${pair#* }"; fi
        done
        say "what each produced is right"
    fi
done

# --- looking ------------------------------------------------------------------------------------------------------

diff_tope() { run diff.tope tope diff 1 2 --name-status; }
diff_ostree() { run diff.ostree ostree --repo="$work/ostree" diff r1 r2; }
unequal() { diff -rq --no-dereference "$1" "$2" || [ $? = 1 ]; }
diff_cp() { run diff.diff unequal "$work/cp1" "$work/cp2"; }
equal_tope() { run equal.tope tope diff 2 2-again; }
equal_cp() { run equal.start "$binaries/tope-store" --version; }
# The store must find what diff(1) finds.
count_differences() {
    local ours theirs
    ours=$(tope diff 1 2 --name-status | wc -l)
    theirs=$(diff -rq --no-dereference "$rel/1" "$rel/2" | grep -vc '^Only' || true)
    theirs=$((theirs + $(diff <(cd "$rel/1" && find . ! -type d | sort) <(cd "$rel/2" && find . ! -type d | sort) | grep -c '^[<>]' || true)))
    say "differences between the first two: $ours by tope-store (directories included), $theirs files by diff(1)"
}
if can diff; then
    say "comparing"
    count_differences
    for ((round = 0; round < rounds; round++)); do
        mapfile -t functions < <(steps diff)
        in_turn "$round" "${functions[@]}"
    done
    # Some milliseconds each, in which whatever else the machine does shows.
    for ((round = 0; round < rounds * 5; round++)); do
        mapfile -t functions < <(steps equal)
        in_turn "$round" "${functions[@]}"
    done
fi
if can list; then for ((round = 0; round < rounds; round++)); do run open.tope tope list; done; fi

# --- removing, verifying, switching, space: with the whole series ---------------------------------------------------

say "importing the rest of the series"
rm -rf "$store/made" "$work"/made-* "$work"/cp2-again "$work"/floor2-again
quietly remove 2-again
for ((release = 3; release <= last; release++)); do quietly import "$rel/$release" --version "$release"; done
sync
add disk.tope "$(du -sB1 "$store" | cut -f1)"
mapfile -t releases < <(find "$rel" -mindepth 1 -maxdepth 1 | sort -V)
add disk.ideal "$("$tools" ideal "${releases[@]}")"
add disk.index "$(stat -c %s "$store/store/index.db")"
add disk.sources "$(du -sB1 "$rel" | cut -f1)"

oldest=1
gc_tope() { run gc.tope tope gc --keep-last $((last - 1)); }
gc_rm() { run gc.rm rm -rf "$work/gone-rm"; }
gc_rmsync() { run gc.rm-sync and_sync rm -rf "$work/gone-sync"; }
for ((round = 0; round < rounds; round++)); do
    say "removing, round $((round + 1))"
    # The same tree, of links as well; the store also removes the objects that go with it.
    cp -al "$store/versions/v$oldest" "$work/gone-rm"
    cp -al "$store/versions/v$oldest" "$work/gone-sync"
    in_turn "$round" gc_rm gc_rmsync gc_tope
    [ ! -e "$store/versions/v$oldest" ] || { say "gc kept v$oldest"; exit 1; }
    quietly import "$rel/$oldest" --version "$oldest"
    oldest=$((oldest % last + 1))
done

objects() { find "$store/store/objects" -type f -print0; }
b3sums() { objects | xargs -0 b3sum --no-names; }
drop() { sync; echo 3 >/proc/sys/vm/drop_caches; }
verify_tope() { run verify.tope tope verify --cached; }
verify_b3sum() { run verify.b3sum b3sums; }
cold_tope() { drop; run cold.tope tope verify; }
cold_b3sum() { drop; run cold.b3sum b3sums; }
if can verify && have b3sum; then
    # Both must find what the names of the objects say; this also brings everything into memory.
    quietly verify --cached
    find "$store/store/objects" -type f -printf '%f\n' | cut -c1-62 | sort >"$base/named"
    b3sums | cut -c3-64 | sort | cmp - "$base/named" || { say "b3sum finds other contents than the names say"; exit 1; }
    for ((round = 0; round < rounds; round++)); do
        say "verifying, round $((round + 1))"
        in_turn "$round" verify_tope verify_b3sum
    done
    for ((round = 0; round < rounds && ${#cold}; round++)); do
        say "verifying from the medium, round $((round + 1))"
        in_turn "$round" cold_tope cold_b3sum
    done
fi

switch_none() { quietly activate 1 --verify none; run switch.none tope activate 2 --verify none; }
switch_quick() { quietly activate 1 --verify none; run switch.quick tope activate 2; }
if can activate; then
    say "switching"
    for ((round = 0; round < rounds; round++)); do in_turn "$round" switch_none switch_quick; done
    for ((round = 0; round < rounds; round++)); do run switch.start "$binaries/tope-store" --version; done
    if have strace; then
        quietly activate 1 --verify none
        strace -f -c -o "$base/strace" "$binaries/tope-store" --root "$store" --config /dev/null -q activate 2 --verify none >/dev/null
        add switch.calls "$(awk '$NF == "total" { print $4 }' "$base/strace")"
    fi
fi

# --- memory and system calls ----------------------------------------------------------------------------------------

peak() { # peak NAME COMMAND...
    local name=$1
    shift
    /usr/bin/time -f %M -o "$base/peak" "$@" >/dev/null
    add "$name" "$(tail -n 1 "$base/peak")"
}
calls() { # calls NAME COMMAND...: system calls per file
    local name=$1
    shift
    strace -f -c -o "$base/strace" "$@" >/dev/null
    add "$name" "$(awk -v files="$files" '$NF == "total" { printf "%.2f", $4 / files }' "$base/strace")"
}
quiet=("$binaries/tope-store" --root "$store" --config /dev/null --quiet)
if have /usr/bin/time; then
    say "measuring memory"
    rm -rf "$store"; quietly init
    peak peak.first "${quiet[@]}" import "$rel/1" --version 1
    peak peak.next "${quiet[@]}" import "$rel/2" --version 2
    for ((release = 3; release <= last; release++)); do quietly import "$rel/$release" --version "$release"; done
    peak peak.verify "${quiet[@]}" verify --cached
    peak peak.gc "${quiet[@]}" gc --keep-last 1
    rm -rf "$store"; quietly init
    tar --create --owner=0 --group=0 --file "$work/release.tar" --directory "$rel/1" .
    peak peak.tar "${quiet[@]}" import "$work/release.tar" --version 1
    rm "$work/release.tar"
    mkdir "$work/big"
    head -c 2G /dev/zero | tr '\0' 'x' >"$work/big/file"
    peak peak.big "${quiet[@]}" import "$work/big" --version big
fi
if have strace; then
    say "counting system calls"
    rm -rf "$store" "$work/big"; quietly init
    calls calls.first "${quiet[@]}" import "$rel/1" --version 1
    calls calls.next "${quiet[@]}" import "$rel/2" --version 2
    calls calls.unchanged "${quiet[@]}" import "$rel/2" --version 2-again
fi

# --- the table ----------------------------------------------------------------------------------------------------

# row WORK NAME BASE [AT MOST]: the median of NAME, its ratio to that of BASE, and what the ratio may be.
row() {
    local value of
    value=$(median "$2") of=$(median "$3")
    [ -n "$value" ] || return 0
    awk -v work="$1" -v name="${2#*.}" -v value="$value" -v base="${3#*.}" -v of="${of:-0}" -v most="${4:-}" 'BEGIN {
        printf "| %s | %s | %.3f | ", work, name, value / 1000
        if (of > 0) printf "%.3f of %s", value / of, base
        printf " | %s |\n", most == "" ? "" : most (of > 0 ? (value / of <= most ? "" : " **missed**") : "")
    }'
}
figure() { if [ -s "$results/$2" ]; then printf '| %s | %s |\n' "$1" "$(median "$2" | awk -v unit="${3:-1}" '{ printf "%.2f", $1 / unit }')"; fi; }

echo "$last releases, the first with $files files; medians of $rounds rounds in seconds, files in the page cache"
echo
echo "| work | tool | seconds | ratio | at most |"
echo "| --- | --- | --- | --- | --- |"
row "first import" first.tope first.cp 0.85
row "" first.cp first.cp
row "" first.rsync first.cp
row "" first.ostree-commit first.cp
row "" first.ostree first.cp
row "" first.floor first.cp
row "next release" next.tope next.cp "$([ "$kind" = generate ] && echo 0.3 || echo 0.5)"
row "" next.tope next.ostree 0.25
row "" next.cp next.cp
row "" next.rsync next.cp
row "" next.ostree-commit next.cp
row "" next.ostree next.cp
row "" next.floor next.cp
row "unchanged import" unchanged.tope unchanged.cp 0.15
row "" unchanged.cp unchanged.cp
row "" unchanged.floor unchanged.cp
row "materialise" materialise.tope materialise.cp 0.6
row "" materialise.cp materialise.cp
row "" materialise.ostree materialise.cp
row "" materialise.floor materialise.cp
row "diff" diff.tope diff.ostree 0.1
row "" diff.ostree diff.ostree
row "" diff.diff diff.ostree
row "diff of equals" equal.tope equal.start
row "" equal.start equal.start
row "open (list)" open.tope equal.start
row "gc of one version" gc.tope gc.rm-sync 1.1
row "" gc.tope gc.rm 1.1
row "" gc.rm gc.rm
row "" gc.rm-sync gc.rm
row "verify, cached" verify.tope verify.b3sum 1.15
row "" verify.b3sum verify.b3sum
row "verify, cold" cold.tope cold.b3sum 1.15
row "" cold.b3sum cold.b3sum
row "switch" switch.none switch.start
row "" switch.quick switch.start
row "" switch.start switch.start
echo
echo "| figure | value |"
echo "| --- | --- |"
figure "disk, whole series, MiB" disk.tope 1048576
figure "ideal, MiB" disk.ideal 1048576
figure "sources, MiB" disk.sources 1048576
awk -v taken="$(median disk.tope)" -v ideal="$(median disk.ideal)" \
    'BEGIN { printf "| disk, ratio to ideal (at most 1.05) | %.3f |\n", taken / ideal }'
figure "index, MiB" disk.index 1048576
figure "peak memory, first import, MiB (at most 64)" peak.first 1024
figure "peak memory, next release, MiB" peak.next 1024
figure "peak memory, first import as tar, MiB" peak.tar 1024
figure "peak memory, verify of all, MiB" peak.verify 1024
figure "peak memory, gc of all but one, MiB" peak.gc 1024
figure "peak memory, one file of 2 GiB, MiB" peak.big 1024
figure "system calls per file, first import" calls.first
figure "system calls per file, next release" calls.next
figure "system calls per file, unchanged" calls.unchanged
figure "system calls of a switch" switch.calls
# difference TEXT A B UNIT: the median of A less that of B, in milliseconds per UNIT.
difference() {
    if [ -s "$results/$2" ] && [ -s "$results/$3" ]; then
        printf '| %s | %s |\n' "$1" \
            "$(awk -v a="$(median "$2")" -v b="$(median "$3")" -v unit="$4" 'BEGIN { printf "%.2f", (a - b) / unit }')"
    fi
}
difference "quick check, microseconds per file (at most 2)" switch.quick switch.none "$(awk -v files="$checked_files" 'BEGIN { print files / 1000 }')"
difference "switch beyond process start, ms (at most 15)" switch.none switch.start 1
difference "diff of equals beyond process start, ms (at most 5)" equal.tope equal.start 1
