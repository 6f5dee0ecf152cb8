#!/bin/bash
#
# Style and spelling of code, scripts and documents: each gate is one line of the table below.
#
#   tools/lint.sh             run all, print "ok NAME" or "FAILED NAME" for each
#   tools/lint.sh NAME...     run these
#   tools/lint.sh --fix       let ruff put right what it can
#
# The programs are looked up on PATH: tools/run_tests.sh lint and tox -e pep8 provide them.

set -uo pipefail

cd "$(dirname "$0")/.."

scripts() {
    # Every shell script of ours, by its first line; devstack's have none, they are sourced.
    find devstack -type f
    find tools .ci -type f -not -path 'tools/lab/files/*' -print0 |
        xargs -0 grep --files-with-matches --extended-regexp --max-count=1 '^#!/bin/(ba)?sh'
}

documents() {
    find README.rst CONTRIBUTING.rst doc/source releasenotes/source api-ref/source \
        -name '*.rst' -o -name '*.inc'
}

ruff_check() { ruff check .; }
ruff_format() { ruff format --check .; }
hacking() { flake8; }
doc8_check() { documents | xargs doc8 --quiet; }
sphinx_lint() { documents | xargs sphinx-lint --enable=default-role; }
spelling() { codespell; }
bashate_check() { scripts | xargs bashate --ignore=E005,E006; }
shell_syntax() { scripts | xargs --max-args=1 bash -n; }

GATES='ruff_check ruff_format hacking doc8_check sphinx_lint spelling bashate_check shell_syntax'

if [ "${1:-}" = --fix ]; then
    ruff check --fix .
    ruff format .
    exit
fi

failed=0
for gate in ${*:-$GATES}; do
    if output=$("$gate" 2>&1); then
        echo "ok $gate"
    else
        echo "$output"
        echo "FAILED $gate"
        failed=1
    fi
done
exit $failed
