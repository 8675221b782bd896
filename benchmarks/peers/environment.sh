#!/bin/sh
# Makes an environment of its own (Python 3.11) in benchmarks/.peers/NAME for each name given: it holds what peers/NAME.txt
# lists, and of peers/NAME-alone.txt the packages without what they depend on. Nothing happens where it is there already.
# Usage, from the root of the checkout: sh benchmarks/peers/environment.sh NAME...   (no NAME: all)
set -eu

lists=$(dirname "$0")
if [ $# = 0 ]; then
    set -- $(ls "$lists" | sed -n 's/\.txt$//p' | grep -v -- '-alone$')
fi

for name in "$@"; do
    folder=benchmarks/.peers/$name
    wanted="$(cat "$lists/$name"*.txt | cksum) $PWD"
    if [ "$(cat "$folder/stamp" 2>/dev/null)" = "$wanted" ]; then
        continue
    fi
    if uv --version >/dev/null 2>&1; then
        uv venv --quiet --clear --python 3.11 "$folder"
        install="uv pip install --quiet --python $folder/bin/python"
    else
        python3.11 -m venv --clear "$folder"
        install="$folder/bin/python -m pip install -qq --disable-pip-version-check"
    fi
    $install --requirement "$lists/$name.txt"
    if [ -e "$lists/$name-alone.txt" ]; then
        $install --no-deps --requirement "$lists/$name-alone.txt"
    fi
    echo "$wanted" >"$folder/stamp"
    echo "Ready: $folder"
done
