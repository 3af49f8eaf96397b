#!/bin/bash
# What a healthy supervised switch of two services costs beyond `systemctl restart` of the same two: a Markdown table.
# usage: benches/supervised.sh [--rounds N] [--files N]
# It boots a container with a systemd of its own, on an overlay of this machine's root. See README.md here.
set -euo pipefail
export LC_ALL=C

rounds=21 files=2000
while [ $# -gt 0 ]; do
    case $1 in
        --rounds) rounds=$2; shift ;;
        --files) files=$2; shift ;;
        --help) sed -n '2,4s/^# //p' "$0"; exit 0 ;;
        *) echo "unknown argument $1" >&2; exit 2 ;;
    esac
    shift
done
[ "$(id -u)" = 0 ] || { echo "a container needs root" >&2; exit 1; }
command -v systemd-nspawn >/dev/null || { echo "systemd-nspawn is missing: apt-get install systemd-container" >&2; exit 1; }

here=$(cd "$(dirname "$0")/.." && pwd)
(cd "$here" && cargo build --quiet --release --bin tope-store)
base=$(mktemp -d)
name=tope-bench-$$
groups=()
clean_up() {
    for mounted in "$base/root" "$base/layers"; do
        if mountpoint -q "$mounted"; then umount "$mounted" || umount -l "$mounted"; fi
    done
    for group in "${groups[@]}"; do
        find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || true
    done
    rm -rf "$base"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

mkdir "$base/layers" "$base/root"
mount -t tmpfs -o size=2g,mode=755 tmpfs "$base/layers"
mkdir "$base/layers/upper" "$base/layers/work"
mount -t overlay -o "lowerdir=/,upperdir=$base/layers/upper,workdir=$base/layers/work" overlay "$base/root"
root=$base/root
# Nothing of this machine's own runs there.
rm -rf "$root/opt" "$root/etc/systemd/system" "$root/etc/fstab" "$root/etc/tope-store" "$root/usr/sbin/policy-rc.d" \
    "$root"/usr/lib/systemd/system/{multi-user,timers,graphical,local-fs,remote-fs,getty}.target.wants
mkdir -p "$root/opt/tope" "$root/etc/systemd/system" "$root/etc/tope-store" "$root/bench"
cp "${CARGO_TARGET_DIR:-$here/target}/release/tope-store" "$root/usr/bin/tope-store"

for unit in api web; do
    cat >"$root/etc/systemd/system/$unit.service" <<END
[Service]
Type=exec
ExecStart=/opt/tope/versions/current/bin/$unit
END
    printf '[[service]]\nunit = "%s.service"\nsettle = "0s"\n' "$unit" >>"$root/etc/tope-store/config.toml"
done
cat >"$root/etc/systemd/system/bench.target" <<END
[Unit]
Requires=bench.service
Wants=multi-user.target
END
cat >"$root/etc/systemd/system/bench.service" <<END
[Unit]
After=multi-user.target
SuccessAction=poweroff-force
FailureAction=poweroff-force
[Service]
Type=oneshot
StandardOutput=file:/bench/stdout
StandardError=file:/bench/stderr
ExecStart=/bin/bash -eu /bench/run $rounds $files
END
cat >"$root/bench/run" <<'END'
export LC_ALL=C
rounds=$1 files=$2
for release in 1 2; do
    mkdir -p "/srv/$release/bin" "/srv/$release/share"
    for unit in api web; do
        printf '#!/bin/sh\n# %s\nexec sleep infinity\n' "$release" >"/srv/$release/bin/$unit"
        chmod 755 "/srv/$release/bin/$unit"
    done
    for ((file = 0; file < files; file++)); do echo "$file" >"/srv/$release/share/$file"; done
done
{
    tope-store init
    for release in 1 2; do tope-store import "/srv/$release" --version "$release"; done
    tope-store activate 1 --restart=all
} >/dev/null 2>&1
by_hand() {
    ln -s "v$1" /opt/tope/versions/.next
    mv -T /opt/tope/versions/.next /opt/tope/versions/current
    systemctl restart api web
}
ours() { tope-store activate "$1" --restart=changed; }
unchecked() { tope-store activate "$1" --restart=changed --verify none; }
release=1
for ((round = 0; round < rounds; round++)); do
    for way in by_hand ours unchecked; do
        release=$((3 - release))
        start=${EPOCHREALTIME/./}
        "$way" "$release" >/dev/null 2>/bench/said || { cat /bench/said >&2; exit 1; }
        end=${EPOCHREALTIME/./}
        systemctl is-active --quiet api web
        [ "$(readlink /opt/tope/versions/current)" = "v$release" ]
        echo "$way $((end - start))"
    done
done
END

# Control groups of its own, where this machine has no systemd that gives it some.
while read -r _ at kind options _; do
    case $kind,$options in
        cgroup2,* | cgroup,*name=systemd*) if mkdir "$at/$name" 2>/dev/null; then groups+=("$at/$name"); fi ;;
    esac
done </proc/self/mounts
(
    for group in "${groups[@]}"; do echo "$BASHPID" >"$group/cgroup.procs"; done
    exec systemd-nspawn --register=no --keep-unit --private-network --console=pipe --machine="$name" --directory="$root" \
        --boot systemd.unit=bench.target systemd.show_status=no </dev/null >"$base/console" 2>&1
)
if [ -s "$root/bench/stderr" ]; then cat "$root/bench/stderr" >&2; fi
[ "$(wc -l <"$root/bench/stdout")" = $((3 * rounds)) ] || { cat "$base/console" "$root/bench/stdout" >&2; exit 1; }

median() { # WAY: in microseconds
    grep "^$1 " "$root/bench/stdout" | cut -d ' ' -f 2 | sort -n | sed -n "$(((rounds + 1) / 2))p"
}
by_hand=$(median by_hand)
echo "| switch of two services, $files files | ms | beyond systemd, ms |"
echo "| --- | --- | --- |"
row() { awk -v name="$1" -v us="$2" -v base="$by_hand" 'BEGIN { printf "| %s | %.1f | %.1f |\n", name, us / 1e3, (us - base) / 1e3 }'; }
row 'ln -s, mv -T, systemctl restart' "$by_hand"
row 'activate --restart' "$(median ours)"
row 'activate --restart --verify none' "$(median unchecked)"
