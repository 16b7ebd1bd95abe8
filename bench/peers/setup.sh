#!/usr/bin/env bash
# Makes a peer's environment from PyPI in .cache/peers/NAME: bench/peers/setup.sh NAME. Some 5 GB the first time, since both
# peers import PyTorch, whose wheel brings CUDA; the two share files. LOCK=1 resolves the peer's packages anew.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
name=$1 here=bench/peers target=.cache/peers/$1
uv=.cache/uv/bin/uv
[[ -x $uv ]] || make --silent "$uv"
if [[ ${LOCK:-} ]]; then
    "$uv" pip compile "$here/$name.in" --overrides "$here/$name.left-out" --generate-hashes --python-version 3.11 \
        --no-header --no-annotate --no-emit-index-url --quiet -o "$here/$name.lock"
fi
if [[ -f $target/lock ]] && cmp -s "$target/lock" "$here/$name.lock"; then exit 0; fi
echo "Installing $name into $target ..." >&2
"$uv" venv --quiet --clear --python 3.11 "$target"
"$uv" pip install --quiet --no-deps --python "$target/bin/python" -r "$here/$name.lock"
cp "$here/$name.lock" "$target/lock"
