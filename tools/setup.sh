#!/usr/bin/env bash
# Makes an environment of exactly the locked packages: tools/setup.sh FOLDER LOCK. Quiet unless it fails; done again only
# when the lock or pyproject.toml changed. PYTHON names the interpreter to use, if not the first that fits.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
venv=$1 lock=$2 stamp=$1/.kaption
state=$(cat "$lock" pyproject.toml | sha256sum)
if [[ -f $stamp && $(cat "$stamp") == "$state" ]]; then exit 0; fi

fits='import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))'
refuse() {
    echo "kaption: $1" >&2
    exit 1
}
[[ $(uname -s)-$(uname -m) == Linux-x86_64 ]] || refuse "needs Linux on x86-64; this is $(uname -s) on $(uname -m)."
if [[ ! -x $venv/bin/python ]]; then
    for python in ${PYTHON:-python3 python3.13 python3.12 python3.11 none}; do
        "$python" -c "$fits" 2>/dev/null && break
    done
    "$python" -c "$fits" 2>/dev/null ||
        refuse "needs Python 3.11, 3.12 or 3.13 with its venv module (Debian: apt install python3-venv); or say PYTHON=..."
    "$python" -m venv "$venv"
fi

mkdir -p .cache
log=.cache/setup.log
echo "Installing the locked packages into $venv (once; a few minutes) ..." >&2
# pip warns of much that a user can do nothing about, so it speaks to a log, which is shown when something failed.
if ! {
    # Wheels only: a source distribution runs its author's code here. openai-whisper has no wheel.
    "$venv/bin/python" -m pip install --disable-pip-version-check --no-input --require-hashes \
        --only-binary :all: --no-binary openai-whisper -r "$lock" &&
        "$venv/bin/python" -m pip install --disable-pip-version-check --no-input --no-build-isolation --no-deps -e .
} >"$log" 2>&1; then
    grep -v 'is ignored' "$log" | tail -n 20 >&2
    refuse "the installation failed; all of pip's output is in $log"
fi
echo "$state" >"$stamp"
