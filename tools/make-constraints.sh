#!/bin/bash
#
# Write tools/constraints.txt: the versions that the tests run with, so that the same tree gives
# the same answer next month. Run it to move to newer ones, then run the tests, then commit.

set -euo pipefail

cd "$(dirname "$0")/.."
uv=$(command -v uv || echo .venv-test.uv/bin/uv)
groups=()
for group in test cover lint types doc bindep; do
    groups+=(--group "pyproject.toml:$group")
done
# --universal: one file for every Python and platform that the project supports.
"$uv" pip compile --quiet --upgrade --universal --python-version 3.11 --no-annotate --no-header \
    "${groups[@]}" --output-file tools/constraints.new requirements.txt
{
    echo "# Made by tools/make-constraints.sh: do not edit."
    cat tools/constraints.new
} >tools/constraints.txt
rm tools/constraints.new
wc -l tools/constraints.txt
