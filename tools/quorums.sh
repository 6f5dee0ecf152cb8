#!/bin/bash
#
# Real quorums on loopback: a Galera cluster of three MariaDBs and three RabbitMQ nodes.
#
# They belong to the tier `quorums` of run_tests.sh. Data, ports, port mapper and cookie are their
# own; the processes that start wrote down, and those alone, are stopped.

set -euo pipefail

BASE=${UPGRADE_TEST_QUORUMS:-${TMPDIR:-/tmp}/upgrade-service-quorums}
MEMBERS='1 2 3'

say() { echo "quorums: $*" >&2; }
die() {
    say "$*"
    exit 1
}
port() { # NAME MEMBER: the port that start chose
    sed -n "s/^$1$2=//p" "$BASE/ports"
}
choose_ports() {
    python3 - "$BASE/ports" <<'PY'
import socket
import sys

names = [f'{what}{n}' for n in (1, 2, 3) for what in ('sql', 'wsrep', 'ist', 'amqp', 'dist')] + ['epmd']
held = [socket.socket() for _ in names]
for one in held:
    one.bind(('127.0.0.1', 0))
with open(sys.argv[1], 'w') as f:
    f.writelines(f'{n}={s.getsockname()[1]}\n' for n, s in zip(names, held))
PY
}
launch() { # NAME COMMAND...: in a session of its own, its pid written down
    local name=$1
    shift
    setsid "$@" >"$BASE/$name.log" 2>&1 </dev/null &
    echo $! >"$BASE/$name.pid"
}
wait_for() { # NAME COMMAND...
    local name=$1
    shift
    for _ in $(seq 240); do
        "$@" >/dev/null 2>&1 && return 0
        kill -0 "$(cat "$BASE/$name.pid")" 2>/dev/null || break
        sleep 0.5
    done
    tail -n 20 "$BASE/$name.log" >&2
    die "$name did not come up, see $BASE/$name.log"
}

# --- Galera -----------------------------------------------------------------------------------

sql() { # MEMBER ARGS...
    local n=$1
    shift
    mariadb --no-defaults --socket="$BASE/sql$n/socket" --user=root --batch --skip-column-names "$@"
}
synced() { # MEMBER SIZE
    [ "$(sql "$1" -e "SELECT variable_value FROM information_schema.global_status WHERE
        variable_name = 'wsrep_local_state_comment'")" = Synced ] &&
        [ "$(sql "$1" -e "SELECT variable_value FROM information_schema.global_status WHERE
        variable_name = 'wsrep_cluster_size'")" = "$2" ]
}
start_galera() { # MEMBER ADDRESS
    local n=$1 data=$BASE/sql$1
    launch "sql$n" setpriv --reuid=mysql --regid=mysql --init-groups /usr/sbin/mariadbd \
        --no-defaults --datadir="$data" --socket="$data/socket" --pid-file="$data/pid" \
        --bind-address=127.0.0.1 --port="$(port sql "$n")" --innodb-buffer-pool-size=32M \
        --binlog-format=ROW --default-storage-engine=InnoDB --innodb-autoinc-lock-mode=2 \
        --innodb-flush-log-at-trx-commit=0 --wsrep-on=ON --wsrep-node-name="sql$n" \
        --wsrep-provider=/usr/lib/galera/libgalera_smm.so --wsrep-cluster-name=upgrade \
        --wsrep-cluster-address="$2" --wsrep-sst-method=rsync \
        --wsrep-node-address="127.0.0.1:$(port wsrep "$n")" \
        --wsrep-sst-receive-address="127.0.0.1:$(port ist "$n")" \
        --wsrep-provider-options="gmcast.listen_addr=tcp://127.0.0.1:$(port wsrep "$n");ist.recv_addr=127.0.0.1:$(($(port ist "$n") + 1));gcache.size=8M"
}
start_galeras() {
    local n address=gcomm://
    for n in $MEMBERS; do
        mkdir "$BASE/sql$n"
        chown mysql: "$BASE/sql$n"
        if [ "$n" = 1 ]; then
            mariadb-install-db --no-defaults --user=mysql --datadir="$BASE/sql1" --skip-test-db \
                --auth-root-authentication-method=normal >"$BASE/install.log" 2>&1 ||
                die "mariadb-install-db failed, see $BASE/install.log"
        else # what the first one has; a state transfer is the business of Galera's own tests
            cp -a "$BASE/fresh/." "$BASE/sql$n/"
        fi
        [ "$n" != 1 ] || cp -a "$BASE/sql1" "$BASE/fresh"
        start_galera "$n" "$address"
        wait_for "sql$n" synced "$n" "$n"
        address=gcomm://127.0.0.1:$(port wsrep 1)
    done
}

# --- RabbitMQ ---------------------------------------------------------------------------------

rabbit_env() { # MEMBER: what a node and its tools need
    local data=$BASE/rabbit$1
    # without flags, as a cluster has them that was upgraded from an older series
    printf '%s\n' RABBITMQ_FEATURE_FLAGS= "HOME=$BASE" "ERL_EPMD_PORT=$(port epmd '')" ERL_EPMD_ADDRESS=127.0.0.1 \
        RABBITMQ_CONF_ENV_FILE=/dev/null "RABBITMQ_NODENAME=rabbit$1@localhost" \
        "RABBITMQ_NODE_PORT=$(port amqp "$1")" RABBITMQ_NODE_IP_ADDRESS=127.0.0.1 \
        "RABBITMQ_DIST_PORT=$(port dist "$1")" "RABBITMQ_MNESIA_BASE=$data/mnesia" \
        "RABBITMQ_LOG_BASE=$data/log" "RABBITMQ_ENABLED_PLUGINS_FILE=$data/plugins" \
        "RABBITMQ_CONFIG_FILE=$data/rabbitmq.conf" "RABBITMQ_PID_FILE=$data/pid" \
        'RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=-kernel inet_dist_use_interface {127,0,0,1}'
}
ctl() { # MEMBER ARGS...
    local n=$1 vars
    shift
    mapfile -t vars < <(rabbit_env "$n")
    env "${vars[@]}" /usr/lib/rabbitmq/bin/rabbitmqctl -q "$@"
}
start_rabbit() { # MEMBER
    local vars
    mkdir -p "$BASE/rabbit$1"
    printf '%s\n' "listeners.tcp.1 = 127.0.0.1:$(port amqp "$1")" log.file.level=error \
        vm_memory_high_watermark.absolute=256MiB disk_free_limit.absolute=50MB \
        >"$BASE/rabbit$1/rabbitmq.conf"
    mapfile -t vars < <(rabbit_env "$1")
    launch "rabbit$1" env "${vars[@]}" /usr/lib/rabbitmq/bin/rabbitmq-server
}
start_rabbits() {
    local n
    (umask 077 && tr -dc A-Z </dev/urandom | head -c 20 >"$BASE/.erlang.cookie" || true)
    launch epmd epmd -address 127.0.0.1 -port "$(port epmd '')"
    wait_for epmd env ERL_EPMD_PORT="$(port epmd '')" epmd -names
    for n in $MEMBERS; do
        start_rabbit "$n"
    done
    for n in $MEMBERS; do
        wait_for "rabbit$n" ctl "$n" await_startup
        [ "$n" = 1 ] && continue
        ctl "$n" stop_app && ctl "$n" join_cluster rabbit1@localhost && ctl "$n" start_app ||
            die "rabbit$n does not join"
    done
}

stop() {
    local name pid
    for name in rabbit3 rabbit2 rabbit1 sql3 sql2 sql1 epmd; do
        [ -s "$BASE/$name.pid" ] || continue
        pid=$(cat "$BASE/$name.pid")
        kill "$pid" 2>/dev/null || true
        for _ in $(seq 200); do
            kill -0 "$pid" 2>/dev/null || break
            sleep 0.1
        done
        kill -KILL "$pid" 2>/dev/null || true
        rm -f "$BASE/$name.pid"
    done
    [ ! -e "$BASE/.quorums" ] || rm -rf "$BASE"
}

case ${1:-} in
    start)
        [ "$(id -u)" = 0 ] || die 'start needs root'
        stop
        mkdir -p "$BASE"
        [ -z "$(ls -A "$BASE")" ] || die "$BASE is not empty and not ours"
        touch "$BASE/.quorums"
        chmod 755 "$BASE"
        choose_ports
        case ${2:-all} in
            galera) start_galeras ;;
            rabbitmq) start_rabbits ;;
            all) start_galeras && start_rabbits ;;
        esac
        say up
        ;;
    stop) stop ;;
    kill-member) # NAME, sql3 or rabbit3: as if its host had lost power
        kill -KILL -- "-$(cat "$BASE/$2.pid")"
        ;;
    rabbit-env) rabbit_env "$2" ;;
    socket) echo "$BASE/sql$2/socket" ;;
    *)
        echo 'Usage: tools/quorums.sh start [galera | rabbitmq] | stop | kill-member NAME | rabbit-env N | socket N' >&2
        exit 2
        ;;
esac
