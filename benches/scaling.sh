#!/bin/bash
# How import, diff, list, gc and the index grow with the number of versions and files: a Markdown table, and a plot.
# usage: benches/scaling.sh [--versions "1 10 100"] [--in DIR] [--image GIB | --no-image] [--plot FILE.svg] FILES...
# Every version differs from the one before in a twentieth of its files. See README.md here.
set -euo pipefail
export LC_ALL=C

counts='1 10 100' in='' image=48 plot=''
while [ $# -gt 0 ]; do
    case $1 in
        --versions) counts=$2; shift ;;
        --in) in=$2; shift ;;
        --image) image=$2; shift ;;
        --no-image) image='' ;;
        --plot) plot=$(realpath "$2"); shift ;;
        --help) sed -n '2,4s/^# //p' "$0"; exit 0 ;;
        -*) echo "unknown option $1" >&2; exit 2 ;;
        *) break ;;
    esac
    shift
done
[ $# -gt 0 ] || { sed -n '2,4s/^# //p' "$0" >&2; exit 2; }

here=$(cd "$(dirname "$0")/.." && pwd)
binaries=${CARGO_TARGET_DIR:-$here/target}/release
(cd "$here" && cargo build --quiet --release --bin tope-store --example bench-tools)
base=$(mktemp -d "${in:-${TMPDIR:-/tmp}}/tope-scaling.XXXXXX")
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
    mkfs.ext4 -q -F -i 8192 -E lazy_itable_init=0,lazy_journal_init=0 "$base/image"
    mkdir "$base/mounted"
    mount -o loop,noatime "$base/image" "$base/mounted"
    work=$base/mounted
fi

tope() { "$binaries/tope-store" --root "$work/root" --config /dev/null --quiet "$@" >/dev/null; }
# seconds COMMAND...: its wall time, with everything written before.
seconds() {
    local start end
    sync
    start=${EPOCHREALTIME/./}
    "$@"
    end=${EPOCHREALTIME/./}
    awk -v us=$((end - start)) 'BEGIN { printf "%.3f", us / 1e6 }'
}
advance() { # to the next release, and number it
    number=$((number + 1))
    "$binaries/examples/bench-tools" advance "$work/rel/1" "$files" "$number"
}

echo "| files | versions | import, s | unchanged, s | diff, s | list, s | gc of one, s | index, MiB | index per file and version, bytes |"
echo "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
for files in "$@"; do
    rm -rf "$work/root" "$work/rel"
    "$binaries/examples/bench-tools" generate "$work/rel" "$files" 1
    tope init
    present=0 number=0
    for versions in $counts; do
        while [ $present -lt $((versions - 1)) ]; do
            advance
            tope import "$work/rel/1" --version "0.$number"
            present=$((present + 1))
        done
        advance
        # New times, so that everything is read, and old enough to be remembered.
        find "$work/rel/1" -type f -exec touch -d '2 minutes ago' {} +
        sleep 3
        import=$(seconds tope import "$work/rel/1" --version "0.$number")
        unchanged=$(seconds tope import "$work/rel/1" --version "0.$number-again")
        present=$((present + 1))
        before=$((number > 1 ? number - 1 : number))
        difference=$(seconds tope diff "0.$before" "0.$number" --name-status)
        list=$(seconds tope list)
        index=$(stat -c %s "$work/root/store/index.db")
        tope remove "0.$number-again"
        # What goes is the oldest; with one version only, another one is made for it.
        if [ $present = 1 ]; then
            advance
            tope import "$work/rel/1" --version "0.$number"
            present=2
        fi
        gc=$(seconds tope gc --keep-last $((present - 1)))
        present=$((present - 1))
        echo "$files $versions $import $unchanged $difference $list $gc $index" | tee -a "$base/figures" | awk '{
            printf "| %d | %d | %s | %s | %s | %s | %s | %.1f | %.0f |\n", $1, $2, $3, $4, $5, $6, $7, $8 / 1048576, $8 / $1 / ($2 + 1) }'
    done
done

[ -n "$plot" ] || exit 0
# One panel for each column, both axes logarithmic, one line for each number of files.
awk '
function x_at(versions) { return 44 + 170 * log(versions) / log(most_versions > 1 ? most_versions : 10) }
function y_at(value, low, high) { return 170 - 130 * (log(value) - low) / (high - low) }
BEGIN { split("import, s|unchanged import, s|diff, s|list, s|gc of one version, s|index, MiB", titles, "|")
        split("#1b6ca8 #c8553d #3a7d44 #7b4b94", colours, " ") }
{
    if (!($1 in line_of)) { line_of[$1] = ++lines; files[lines] = $1 }
    count++; line[count] = line_of[$1]; versions[count] = $2
    if ($2 > most_versions) most_versions = $2
    for (column = 1; column <= 6; column++) {
        value = column == 6 ? $8 / 1048576 : $(column + 2)
        figure[count, column] = value > 0.001 ? value : 0.001
    }
}
END {
    print "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 720 " 430 "\" font-family=\"sans-serif\" font-size=\"10\">"
    print "<rect width=\"720\" height=\"430\" fill=\"white\"/>"
    for (column = 1; column <= 6; column++) {
        low = 1e9; high = -1e9
        for (at = 1; at <= count; at++) {
            value = log(figure[at, column])
            if (value < low) low = value
            if (value > high) high = value
        }
        # Whole powers of ten.
        ten = log(10)
        low = ten * (int(low / ten + 100) - 100); high = ten * (int(high / ten + 101) - 100)
        printf "<g transform=\"translate(%d,%d)\">\n", 240 * ((column - 1) % 3), 200 * int((column - 1) / 3)
        printf "<text x=\"129\" y=\"28\" text-anchor=\"middle\" font-size=\"12\">%s</text>\n", titles[column]
        for (power = low; power < high + 0.1; power += ten) {
            y = y_at(exp(power), low, high)
            printf "<path d=\"M44 %.1fH214\" stroke=\"#ddd\"/><text x=\"40\" y=\"%.1f\" text-anchor=\"end\">%g</text>\n", y, y + 3, exp(power)
        }
        path = ""; last = 0
        for (at = 1; at <= count + 1; at++) {
            if (at > count || line[at] != last) {
                if (last) printf "<path d=\"%s\" fill=\"none\" stroke=\"%s\" stroke-width=\"1.5\"/>\n", path, colours[(last - 1) % 4 + 1]
                if (at > count) break
                path = ""; last = line[at]
            }
            x = x_at(versions[at]); y = y_at(figure[at, column], low, high)
            path = path sprintf("%s%.1f %.1f", path == "" ? "M" : "L", x, y)
            printf "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"2.5\" fill=\"%s\"/>\n", x, y, colours[(last - 1) % 4 + 1]
            if (line[at] == 1) printf "<text x=\"%.1f\" y=\"186\" text-anchor=\"middle\">%d</text>\n", x, versions[at]
        }
        print "</g>"
    }
    for (at = 1; at <= lines; at++)
        printf "<text x=\"%d\" y=\"418\" fill=\"%s\">%d files</text>\n", 44 + 120 * (at - 1), colours[(at - 1) % 4 + 1], files[at]
    print "<text x=\"676\" y=\"418\" text-anchor=\"end\">across: number of versions</text>"
    print "</svg>"
}' "$base/figures" >"$plot"
