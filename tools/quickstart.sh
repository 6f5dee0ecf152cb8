#!/bin/bash
#
# See the service at work: install it here, start it with a simulated cloud of three controllers
# and twelve computes, upgrade that cloud from 2026.1 to 2026.2, and stop everything again.

set -uo pipefail

cd "$(dirname "$0")/.."
TOP=$PWD
VENV=${UPGRADE_QUICKSTART_VENV:-$TOP/.venv-quickstart}
PORT=${UPGRADE_QUICKSTART_PORT:-9899}
KEEP=0
PID=
STATE=

usage() {
    cat <<EOF
Usage: tools/quickstart.sh [--keep]

Installs the service into $VENV, starts upgrade-service-all (SQLite, in-process messages,
loopback only) with a simulated cloud, discovers that cloud, shows the plan of an upgrade from
2026.1 to 2026.2, carries it out with live progress, shows the result, stops what it started.

  --keep  leave the service and the cloud running at the end, and say how to talk to them

Environment: UPGRADE_QUICKSTART_VENV (made when missing), UPGRADE_QUICKSTART_PORT (default 9899),
UPGRADE_QUICKSTART_NO_INSTALL=1 (the environment has all that is needed).
EOF
}

say() {
    printf '\n== %s\n' "$*"
}

stop() {
    # A second Ctrl-C must not keep it from tidying up.
    trap - EXIT
    trap '' HUP INT TERM
    if [ -n "$PID" ]; then
        kill "$PID" 2>/dev/null
        # Nothing of a simulated cloud is worth waiting for; a real one is given its time.
        (sleep 5 && kill -KILL "$PID") 2>/dev/null &
        wait "$PID" 2>/dev/null
        kill %% 2>/dev/null
    fi
    [ -z "$STATE" ] || rm -rf "$STATE"
    echo 'quickstart: stopped, and nothing of it is left running' >&2
}

fail() {
    echo "quickstart: $*" >&2
    [ ! -s "$STATE/service.log" ] || tail -n 30 "$STATE/service.log" >&2
    exit 1
}

install() {
    # The stamp says what was installed, so that a second run begins at once.
    local stamp
    stamp=$(cat requirements.txt pyproject.toml tools/constraints.txt | sha256sum)
    [ "$(cat "$VENV/stamp" 2>/dev/null)" != "$stamp" ] || return 0
    say "installing into $VENV"
    if [ ! -x "$VENV.uv/bin/uv" ]; then
        python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore \
            --target "$VENV.uv" uv || fail 'cannot install uv; is pip there? (python3-pip)'
    fi
    "$VENV.uv/bin/uv" venv --quiet --clear --python "$(python3 -c 'import sys; print(sys.executable)')" \
        "$VENV" || fail 'no virtual environment'
    PBR_VERSION=${PBR_VERSION:-0.1.0} "$VENV.uv/bin/uv" pip install --quiet --python "$VENV/bin/python" \
        --constraint tools/constraints.txt --editable . || fail 'the service does not install'
    echo "$stamp" >"$VENV/stamp"
}

configure() {
    STATE=$(mktemp -d "${TMPDIR:-/tmp}/upgrade-service.XXXXXX")
    cat >"$STATE/upgrade-service.conf" <<EOF
[DEFAULT]
log_file = $STATE/service.log
[database]
connection = sqlite:///$STATE/upgrade.sqlite
[api]
auth_strategy = noauth
port = $PORT
[conductor]
clouds_file = $STATE/clouds.yaml
[engine]
state_dir = $STATE/engines
heartbeat = 5
[trust]
keys_dir = $STATE/keys
EOF
    export OS_AUTH_TYPE=none OS_ENDPOINT=http://127.0.0.1:$PORT
    unset OS_CLOUD OS_AUTH_URL
}

start() {
    "$VENV/bin/upgrade-service-all" --config-file "$STATE/upgrade-service.conf" \
        --simulated-cloud >"$STATE/output.log" 2>&1 &
    PID=$!
    for _ in $(seq 150); do
        ! curl_ok || return 0
        kill -0 "$PID" 2>/dev/null || { cat "$STATE/output.log" >&2; fail 'the service has ended'; }
        sleep 0.2
    done
    fail "the service does not answer on port $PORT"
}

curl_ok() {
    "$VENV/bin/python" - "$PORT" <<'EOF'
import sys, urllib.request
try:
    urllib.request.urlopen(f'http://127.0.0.1:{sys.argv[1]}/healthcheck', timeout=2)
except OSError:
    sys.exit(1)
EOF
}

client() {
    # On stderr, so that what a command prints may be kept for later.
    printf '\n$ openstack %s\n' "$*" >&2
    "$VENV/bin/openstack" "$@"
}

walk() {
    say 'the cloud, as discovered'
    client upgrade cluster create prod --cloud simulated -c name -c cloud || fail 'no cluster'
    client upgrade cluster discover prod --wait -c discovered_at || fail 'discovery failed'
    client upgrade cluster summary prod || fail 'no summary'
    say 'the plan'
    client upgrade create prod --to 2026.2 --name first --strategy simulated \
        --policy tools/quickstart-policy.yaml --approve-ponr --wait \
        -c name -c state || fail 'no plan'
    client upgrade plan show first || fail 'no plan'
    client upgrade problem list --upgrade first || fail 'no list of problems'
    say 'the upgrade'
    client upgrade start first --wait >"$STATE/report" || fail 'the upgrade did not succeed'
    say 'the report'
    cat "$STATE/report"
    report
}

report() {
    # What the upgrade left behind, asked of the cloud and not of the upgrade.
    client upgrade step list first --kind drain_host --long \
        -c Host -c State -c Seconds -c Progress || fail 'no list of steps'
    client upgrade cluster discover prod --wait -c discovered_at || fail 'discovery failed'
    client upgrade cluster summary prod | tee "$STATE/summary" || fail 'no summary'
    # Each line of the table names a project, its release and how many services are down.
    awk -F '|' '$3 ~ /[0-9]/ { n++; if ($3 + 0 != 2026.2 || $6 + 0 != 0) bad = 1 }
        END { exit n < 6 || bad }' "$STATE/summary" || fail 'not every project runs 2026.2'
}

case ${1:-} in
--keep) KEEP=1 ;;
'') ;;
-h | --help)
    usage
    exit 0
    ;;
*)
    usage >&2
    exit 2
    ;;
esac

trap stop EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM
[ "${UPGRADE_QUICKSTART_NO_INSTALL:-0}" = 1 ] || install
SECONDS=0
configure
start
walk
say "done in $SECONDS s (after installation)"
if [ "$KEEP" = 1 ]; then
    trap - EXIT INT TERM
    disown "$PID"
    cat <<EOF

The service runs on as process $PID, its files are in $STATE. Talk to it:

    export OS_AUTH_TYPE=none OS_ENDPOINT=http://127.0.0.1:$PORT
    $VENV/bin/openstack upgrade list
    $VENV/bin/openstack upgrade --help

Stop it:  kill $PID && rm -rf $STATE
EOF
fi
