#!/bin/sh
# Makes an environment of its own that holds the packages of requirements.txt (Python 3.11; about 5 GB).
# Usage, from the root of the checkout: sh benchmarks/peers/environment.sh [FOLDER]
set -eu

folder=${1:-benchmarks/.peers}
requirements=$(dirname "$0")/requirements.txt
alone=$(dirname "$0")/requirements-alone.txt # what they ask for beside them is not needed, and does not resolve

if uv --version >/dev/null 2>&1; then
    uv venv --quiet --clear --python 3.11 "$folder"
    uv pip install --quiet --python "$folder/bin/python" --requirement "$requirements"
    uv pip install --quiet --python "$folder/bin/python" --no-deps --requirement "$alone"
else
    python3.11 -m venv --clear "$folder"
    "$folder/bin/python" -m pip install -qq --disable-pip-version-check --requirement "$requirements"
    "$folder/bin/python" -m pip install -qq --disable-pip-version-check --no-deps --requirement "$alone"
fi
echo "Ready: $folder/bin/python benchmarks/peers/metrics.py"
