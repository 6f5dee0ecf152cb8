#!/bin/bash
#
# Run the tests on a machine that has python3 (3.11 or newer), git and pip, and nothing else.
#
# Everything goes through here, by hand and in CI alike: the virtual environment, the servers of
# the functional tests, and one true sum at the end.

set -uo pipefail

cd "$(dirname "$0")/.."
TOP=$PWD
VENV=${UPGRADE_TEST_VENV:-$TOP/.venv-test}
WORKERS=${UPGRADE_TEST_WORKERS:-2}
DEFAULT_TIERS='lint types unit functional quickstart'
TIERS="$DEFAULT_TIERS rollback chaos-smoke chaos docs facts quorums strategies"
[ ! -x tools/lab/run ] || TIERS="$TIERS lab lab-rehearsal lab-restarts lab-rollback lab-baseline"

PASSED=0
FAILED=0
SKIPPED=0
REGEX=
SCRATCH=
SEEDS=50

usage() {
    cat <<EOF
Usage: tools/run_tests.sh [--regex REGEX] [TIER...]

Without a tier: $DEFAULT_TIERS. The tiers of this tree:

  lint        style and spelling; each gate of tools/lint.sh counts as one test
  types       mypy --strict; one test
  unit        stestr on upgrade_service/tests/unit, $WORKERS workers; no network, no servers
  functional  stestr on upgrade_service/tests/functional with a real MariaDB, PostgreSQL and
              RabbitMQ, which are installed when missing (needs root), started on free loopback
              ports with data in a temporary directory, and stopped at the end
  rollback    the long stories of rollbacks and other verbs on the whole service: from every stage,
              in the middle of a host, after failures; ten minutes
  quickstart  tools/quickstart.sh on a free port: a simulated cloud is upgraded, and every project
              then runs the new release; one test
  facts       downloads the wheels of six releases of nova and of a SLURP pair of other projects from
              the package index, and compares what they say with projects/wheel-facts.yaml
  quorums     stestr on upgrade_service/tests/quorums with a Galera cluster and a RabbitMQ cluster of
              three members each on loopback (needs root); append what it says to tools/ledger.txt
  strategies  stestr on upgrade_service/tests/strategies: each against the real program, Puppet's
              server and PuppetDB and kolla-ansible among them, which are installed when missing
              (needs root); append what it says to tools/ledger.txt
  chaos-smoke the service under faults, with real servers as above (needs root): a run for each
              kind of fault, death at each place where a process touches the world, and some
              builds that are broken on purpose and must be caught
  chaos       the protocol model within larger bounds, long made-up histories, every broken
              build, and --seeds runs with many faults each; adds a line to tools/ledger-chaos.txt
  docs        documentation, release notes and API reference, each one test
EOF
    [ ! -x tools/lab/run ] || cat <<EOF
  lab         builds a real OpenStack cloud on this machine and upgrades it (needs root)
  lab-rehearsal  options that are gone and rows that do not fit are planted in the same cloud, and
              found before anything is disrupted; append what it says to tools/ledger.txt
  lab-restarts  the same while an engine and the conductor are killed, MariaDB, RabbitMQ and
              keystone are restarted and a compute loses its power; append what it says to
              tools/ledger.txt
  lab-rollback  the same cloud, upgraded to the gate before the points of no return and taken back;
              twenty minutes; append what it says to tools/ledger.txt
  lab-baseline  the same upgrade by hand and by the service, two pairs, with medians; half an hour;
              append what it says to tools/ledger.txt
EOF
    cat <<EOF

Options:
  --regex REGEX  only the unit and functional tests whose id matches
  --seeds N      runs with random faults of the tier chaos (default: 50)
  --help         this text

Environment:
  UPGRADE_TEST_VENV        virtual environment to make and use (default: .venv-test)
  UPGRADE_TEST_WORKERS     parallel test processes (default: 2)
  UPPER_CONSTRAINTS_FILE   versions to install (default: tools/constraints.txt)
  OS_TEST_DBAPI_ADMIN_CONNECTION and UPGRADE_TEST_RABBIT_URL
                           when both are set, servers of yours that the functional tests use

The last line is always "N passed, N failed, N skipped"; the exit status is 0 only if nothing
failed. One test file by hand: .venv-test/bin/python -m testtools.run MODULE
EOF
}

say() {
    echo "== $*"
}

die() {
    echo "run_tests: $*" >&2
    exit 2
}

summary() {
    tidy
    echo "$PASSED passed, $FAILED failed, $SKIPPED skipped"
    [ "$FAILED" = 0 ]
    exit
}

give_up() {
    # What cannot be prepared cannot be tested: a failure like any other, and the last one.
    echo "run_tests: $*"
    FAILED=$((FAILED + 1))
    summary
}

tidy() {
    # Also on Ctrl-C: leave no server and no directory behind.
    [ -n "$SCRATCH" ] || return 0
    UPGRADE_TEST_SERVERS=$SCRATCH/servers tools/servers.sh stop
    rm -rf "$SCRATCH"
    SCRATCH=
}

# --- the virtual environment ---------------------------------------------------------------

find_python() {
    # The real interpreter, not a shim that a version manager puts in front of it.
    python3 - <<'EOF'
import sys

print(sys.executable)
sys.exit(sys.version_info < (3, 11))
EOF
}

install_uv() {
    # --target needs neither the venv module (a package of its own on Debian) nor a write to an
    # externally managed Python.
    [ -x "$VENV.uv/bin/uv" ] && return
    python3 -m pip --version >/dev/null 2>&1 || give_up 'pip is missing: apt-get install python3-pip'
    python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore \
        --target "$VENV.uv" uv || give_up 'cannot install uv from the package index'
}

prepare_venv() {
    local constraints=${UPPER_CONSTRAINTS_FILE:-tools/constraints.txt} stamp python
    python=$(find_python) || give_up 'python3 must be 3.11 or newer'
    stamp=$(cat pyproject.toml requirements.txt "$constraints" <(echo "$TOP $python") | sha256sum)
    if [ "$(cat "$VENV/stamp" 2>/dev/null)" != "$stamp" ]; then
        say "virtual environment $VENV"
        install_uv
        "$VENV.uv/bin/uv" venv --quiet --clear --python "$python" "$VENV" || give_up 'no environment'
        # pbr would read the version from git tags, which a shallow or unpacked tree lacks.
        PBR_VERSION=${PBR_VERSION:-0.1.0} "$VENV.uv/bin/uv" pip install --quiet \
            --python "$VENV/bin/python" --constraint "$constraints" --editable . \
            --group test --group cover --group lint --group types --group doc --group bindep ||
            give_up 'the dependencies do not install'
        echo "$stamp" >"$VENV/stamp"
    fi
    export PATH=$VENV/bin:$PATH
    # Children find the project by the environment, not by where they happen to be started.
    export VIRTUAL_ENV=$VENV LC_ALL=C.UTF-8 PYTHONDONTWRITEBYTECODE=1
}

# --- counting -------------------------------------------------------------------------------

gate() {
    # gate NAME COMMAND...: a command whose exit status is one test.
    local name=$1
    shift
    if "$@" >"$SCRATCH/gate.log" 2>&1; then
        PASSED=$((PASSED + 1))
        echo "ok $name"
    else
        FAILED=$((FAILED + 1))
        cat "$SCRATCH/gate.log"
        echo "FAILED $name"
    fi
}

count_of() {
    # The figure behind LABEL in stestr's closing table.
    awk -v label=" - $1:" 'index($0, label) == 1 { n = $NF } END { print n + 0 }' "$2"
}

run_stestr() {
    # run_stestr DIRECTORY. A run that breaks without a failed test (an import error, a worker
    # that died) or runs nothing at all is one failure.
    local log=$SCRATCH/stestr.log status passed failed skipped
    TEST_PATH=$1 stestr run --concurrency="$WORKERS" ${REGEX:+"$REGEX"} 2>&1 | tee "$log"
    status=${PIPESTATUS[0]}
    passed=$(($(count_of Passed "$log") + $(count_of 'Expected Fail' "$log")))
    failed=$(($(count_of Failed "$log") + $(count_of 'Unexpected Success' "$log")))
    skipped=$(count_of Skipped "$log")
    if [ "$status" != 0 ] && [ "$failed" = 0 ]; then
        echo "FAILED $1: stestr ended with status $status and no failed test"
        failed=1
    fi
    PASSED=$((PASSED + passed))
    FAILED=$((FAILED + failed))
    SKIPPED=$((SKIPPED + skipped))
}

add_summary() {
    # Add the "N passed, N failed, N skipped" of another program, the last line of its output.
    local status=$1 line
    line=$(tail -n 1 "$2")
    if [[ $line =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed,\ ([0-9]+)\ skipped$ ]]; then
        PASSED=$((PASSED + BASH_REMATCH[1]))
        FAILED=$((FAILED + BASH_REMATCH[2]))
        SKIPPED=$((SKIPPED + BASH_REMATCH[3]))
        [ "$status" = 0 ] || [ "${BASH_REMATCH[2]}" != 0 ] || FAILED=$((FAILED + 1))
    else
        echo "FAILED: no summary line (exit status $status)"
        FAILED=$((FAILED + 1))
    fi
}

# --- tiers ----------------------------------------------------------------------------------

tier_lint() {
    local name
    tools/lint.sh | tee "$SCRATCH/lint.log"
    PASSED=$((PASSED + $(grep -c '^ok ' "$SCRATCH/lint.log")))
    FAILED=$((FAILED + $(grep -c '^FAILED ' "$SCRATCH/lint.log")))
}

tier_types() {
    gate mypy mypy
}

tier_unit() {
    run_stestr ./upgrade_service/tests/unit
}

install_servers() {
    # install_servers PROFILE: the packages that bindep.txt lists for it.
    local missing policy=/usr/sbin/policy-rc.d made=
    missing=$(bindep --brief "$1") && return
    command -v apt-get >/dev/null || give_up "install these packages first: ${missing//$'\n'/ }"
    [ "$(id -u)" = 0 ] || give_up "as root: apt-get install ${missing//$'\n'/ }"
    say "installing ${missing//$'\n'/ }"
    # The packages would start their servers on the default ports; ours are started below.
    if [ ! -e $policy ]; then
        printf '#!/bin/sh\nexit 101\n' >$policy
        chmod 755 $policy
        made=yes
    fi
    export DEBIAN_FRONTEND=noninteractive
    {
        apt-get -q update &&
            # shellcheck disable=SC2086
            apt-get -q -y install --no-install-recommends $missing
    } >"$SCRATCH/apt.log" 2>&1 || tail -n 20 "$SCRATCH/apt.log"
    [ -z "$made" ] || rm -f $policy
    bindep --brief "$1" >/dev/null || give_up "these packages do not install: $(bindep --brief "$1")"
}

tier_functional() {
    if [ -z "${OS_TEST_DBAPI_ADMIN_CONNECTION:-}" ] || [ -z "${UPGRADE_TEST_RABBIT_URL:-}" ]; then
        install_servers test
        export UPGRADE_TEST_SERVERS=$SCRATCH/servers
        gate servers tools/servers.sh start
        eval "$(tools/servers.sh env)"
    fi
    run_stestr ./upgrade_service/tests/functional
}

tier_strategies() {
    install_servers test
    install_servers strategies
    export UPGRADE_TEST_SERVERS=$SCRATCH/servers UPGRADE_TEST_KOLLA=$SCRATCH/kolla
    export UPGRADE_TEST_UV=$VENV.uv/bin/uv
    export UPGRADE_TEST_SERVER_LIST='mariadb rabbitmq postgresql puppetdb puppetserver'
    gate servers tools/servers.sh start
    eval "$(tools/servers.sh env)"
    # kolla-ansible brings an Ansible of its own
    install_uv
    gate kolla-ansible env -u VIRTUAL_ENV "$VENV.uv/bin/uv" venv --quiet --python "$(find_python)" \
        "$UPGRADE_TEST_KOLLA"
    gate kolla-ansible-install "$VENV.uv/bin/uv" pip install --quiet \
        --python "$UPGRADE_TEST_KOLLA/bin/python" kolla-ansible
    run_stestr ./upgrade_service/tests/strategies
    tools/servers.sh stop
}

chaos() {
    # The suite starts servers of its own, which it kills.
    install_servers test
    python -m upgrade_service.tests.chaos --folder "$SCRATCH/chaos" "$@" 2>&1 |
        tee "$SCRATCH/chaos.log"
    add_summary "${PIPESTATUS[0]}" "$SCRATCH/chaos.log"
}

tier_quorums() {
    install_servers quorums
    export UPGRADE_TEST_QUORUMS=$SCRATCH/quorums
    gate quorums tools/quorums.sh start
    # one after the other: a member that a test takes out stays out
    WORKERS=1 run_stestr ./upgrade_service/tests/quorums
    tools/quorums.sh stop
}

tier_chaos-smoke() {
    # Every day another part of what is too much for each change.
    chaos --rows --sites --slice "$(($(date +%j | sed 's/^0*//') % 4))/4" --broken quick
}

tier_chaos() {
    python -m upgrade_service.tests.model --steps 10000 2>&1 | tee "$SCRATCH/model.log"
    add_summary "${PIPESTATUS[0]}" "$SCRATCH/model.log"
    chaos --figures 100 --broken --seeds "$SEEDS" --first "$((RANDOM * 1000))" --ledger
}

tier_rollback() {
    export UPGRADE_TEST_DEAR=1
    REGEX=${REGEX:-functional.test_rollback} tier_functional
}

free_port() {
    python3 -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

tier_quickstart() {
    # The test environment has all that the quickstart would install. A client that starts a
    # dozen times needs its modules compiled.
    gate quickstart env -u PYTHONDONTWRITEBYTECODE UPGRADE_QUICKSTART_VENV="$VENV" \
        UPGRADE_QUICKSTART_NO_INSTALL=1 UPGRADE_QUICKSTART_PORT="$(free_port)" tools/quickstart.sh
}

sphinx() {
    rm -rf "$2"
    sphinx-build -W --keep-going -q -b html "$1" "$2"
}

tier_docs() {
    gate docs sphinx doc/source doc/build/html
    gate releasenotes sphinx releasenotes/source releasenotes/build/html
    gate api-ref sphinx api-ref/source api-ref/build/html
}

tier_facts() {
    local release=() project
    for project in 2023.1 2024.1 2025.1 2025.2 2026.1 2026.2; do
        release+=(--release "$project")
    done
    gate facts-of-nova tools/refresh-facts --check --project nova "${release[@]}"
    for project in keystone glance placement neutron cinder heat; do
        gate "facts-of-$project" tools/refresh-facts --check --project "$project" \
            --release 2025.1 --release 2026.1
    done
}

tier_lab() {
    tools/lab/run 2>&1 | tee "$SCRATCH/lab.log"
    add_summary "${PIPESTATUS[0]}" "$SCRATCH/lab.log"
}

tier_lab-rehearsal() {
    tools/lab/rehearse 2>&1 | tee "$SCRATCH/lab.log"
    add_summary "${PIPESTATUS[0]}" "$SCRATCH/lab.log"
}

tier_lab-restarts() {
    tools/lab/restarts 2>&1 | tee "$SCRATCH/lab.log"
    add_summary "${PIPESTATUS[0]}" "$SCRATCH/lab.log"
}

tier_lab-rollback() {
    tools/lab/rollback 2>&1 | tee "$SCRATCH/lab.log"
    add_summary "${PIPESTATUS[0]}" "$SCRATCH/lab.log"
}

tier_lab-baseline() {
    tools/lab/baseline 2 2>&1 | tee "$SCRATCH/lab.log"
    add_summary "${PIPESTATUS[0]}" "$SCRATCH/lab.log"
}

# --------------------------------------------------------------------------------------------

main() {
    local tier chosen=()
    while [ $# -gt 0 ]; do
        case $1 in
            -h | --help)
                usage
                exit 0
                ;;
            --regex)
                [ $# -gt 1 ] || die '--regex needs a regular expression'
                REGEX=$2
                shift
                ;;
            --seeds)
                [[ ${2:-} =~ ^[0-9]+$ ]] || die '--seeds needs a number'
                SEEDS=$2
                shift
                ;;
            *)
                [[ " $TIERS " == *" $1 "* ]] || die "no tier $1: one of $TIERS (see --help)"
                chosen+=("$1")
                ;;
        esac
        shift
    done
    [ ${#chosen[@]} -gt 0 ] || read -r -a chosen <<<"$DEFAULT_TIERS"
    SCRATCH=$(mktemp -d "${TMPDIR:-/tmp}/upgrade-service-tests.XXXXXX")
    # The servers' own users must reach their data below it.
    chmod 755 "$SCRATCH"
    trap tidy EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    prepare_venv
    for tier in "${chosen[@]}"; do
        say "$tier"
        SECONDS=0
        "tier_$tier"
        say "$tier took $SECONDS s"
    done
    summary
}

main "$@"
