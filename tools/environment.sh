#!/bin/sh
# Makes .venv hold what requirements.lock says, and nothing when it does already.
# Usage, from the root of the checkout: sh tools/environment.sh [PYTHON]
set -eu

fail() {
    echo "interestkit: $*" >&2
    exit 1
}

runs() { # A name on the PATH may be a shim that fails, so it is tried.
    "$1" -c "" >/dev/null 2>&1
}

first_that_runs() {
    for candidate in "$@"; do
        if runs "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    return 1
}

pick_python() { # The one asked for (pyenv may have it, not selected), else that of .venv, else one on the PATH.
    if [ -n "$1" ]; then
        first_that_runs "$1" "$(pyenv whence --path "$1" 2>/dev/null | tail -n 1)" ||
            fail "PYTHON=$1 does not run; name a Python, 3.11 or newer, as in PYTHON=python3.12"
    else
        first_that_runs .venv/bin/python python3.12 python3.13 python3.11 python3 ||
            fail "no Python found on the PATH; install Python 3.12, or name one: PYTHON=/path/to/python3.12"
    fi
}

has_uv() {
    uv --version >/dev/null 2>&1
}

install_with_uv() {
    uv venv --quiet --clear --python "$base" .venv &&
        uv pip sync --quiet --python .venv/bin/python --require-hashes requirements.lock &&
        uv pip install --quiet --python .venv/bin/python --no-deps --no-build-isolation --editable .
}

install_with_pip() {
    "$base" -c "import venv, ensurepip" 2>/dev/null ||
        fail "$base has no venv module; on Debian and Ubuntu: apt-get install python3-venv"
    rm -rf .venv
    "$base" -m venv .venv
    set -- .venv/bin/python -m pip install -qq --disable-pip-version-check
    "$@" --require-hashes --requirement requirements.lock
    "$@" --no-deps --no-build-isolation --editable .
}

python=$(pick_python "${1:-}")
"$python" -c "import sys; sys.exit(sys.version_info < (3, 11))" ||
    fail "Python 3.11 or newer is needed, $python is $("$python" -c "import platform; print(platform.python_version())"); name another: PYTHON=python3.12"

interpreter=$("$python" -c "import platform, sys; print(platform.python_version(), sys.base_prefix)")
wanted="$(cat requirements.lock pyproject.toml | cksum) $interpreter $PWD"
[ "$(cat .venv/stamp 2>/dev/null)" != "$wanted" ] || exit 0

base=$("$python" -c "import sys; print(getattr(sys, '_base_executable', sys.executable))")
echo "Setting up .venv with Python ${interpreter%% *}: once, about a minute."
rm -rf .venv
if ! has_uv; then
    install_with_pip
elif ! install_with_uv; then
    echo "interestkit: uv could not install; trying pip" >&2
    install_with_pip
fi
echo "$wanted" >.venv/stamp
