#!/bin/sh
# Obtains two consecutive releases of a published package into a directory, through whichever package client is here;
# without one, or without a network, it generates a pair and says so. DIR/list tells what came: version, path.
#
#   sh demo_releases.sh DIR
set -eu

mkdir -p "$1"
dir=$(cd "$1" && pwd)

pair() { # how, older, newer, name of what comes
    : >"$dir/list"
    for version in "$2" "$3"; do
        { mkdir -p "$dir/$version" && cd "$dir/$version" && "$1" "$version"; } || return 1
        printf '%s %s\n' "$version" "$(find "$dir/$version" -name "$4" -prune)" >>"$dir/list"
    done
}

with_pip() { # a wheel, that is a zip archive
    python3 -m pip download --quiet --disable-pip-version-check --retries 1 --timeout 20 --no-deps \
        --only-binary :all: --python-version 3.12 "sympy==$1"
}

with_npm() { # a tar.gz archive
    npm pack --silent --fetch-retries 1 "rxjs@$1"
}

with_cargo() { # a directory
    mkdir -p src && : >src/lib.rs
    printf '[package]\nname = "pair"\nversion = "0.0.0"\n[workspace]\n[dependencies]\nlibc = "=%s"\n' "$1" >Cargo.toml
    cargo vendor --quiet >/dev/null
}

generated() { # a directory of 300 files, of which 3 differ
    for number in $(seq 300); do
        mkdir -p "tree/part$((number % 10))"
        seq "$number" "$((number + 2000))" >"tree/part$((number % 10))/$number"
        [ $((number % 100)) -ne 0 ] || echo "changed in $1" >>"tree/part$((number % 10))/$number"
    done
}

if pair with_pip 1.13.2 1.13.3 '*.whl'; then echo "sympy 1.13.2 and 1.13.3, obtained with pip"
elif pair with_npm 7.8.0 7.8.1 '*.tgz'; then echo "rxjs 7.8.0 and 7.8.1, obtained with npm"
elif pair with_cargo 0.2.170 0.2.171 libc; then echo "libc 0.2.170 and 0.2.171, obtained with cargo"
else echo "no package client could obtain releases (no network?): this is a generated pair"
    pair generated 1.0.0 1.0.1 tree
fi
