#!/bin/bash
#
# The real MariaDB, PostgreSQL and RabbitMQ of the functional tests; and, for the tests of
# strategies, Puppet's server and PuppetDB.
#
# Each start has its own data directory and its own free ports on 127.0.0.1, so two runs on one
# machine, or a run beside the machine's own database, never meet. Processes are started in the
# foreground of their own session, their pids are written down, and those pids alone are stopped.

set -euo pipefail

usage() {
    cat <<EOF
Usage: tools/servers.sh start|stop|env|status

  start   start MariaDB, PostgreSQL and RabbitMQ on free loopback ports
  stop    stop what start started, and remove its data
  env     print the variables that the functional tests read, ready for eval:
              eval "\$(tools/servers.sh env)"
  status  say for each server whether it runs

Environment:
  UPGRADE_TEST_SERVERS      directory of data, logs and pids
                            (default: \${TMPDIR:-/tmp}/upgrade-service-servers)
  UPGRADE_TEST_SERVER_LIST  which servers (default: "mariadb postgresql rabbitmq"); there are
                            puppetserver, and puppetdb, which needs postgresql, too

start must be run as root: the databases refuse to run as root themselves and are started under
the users that their packages create.
EOF
}

BASE=${UPGRADE_TEST_SERVERS:-${TMPDIR:-/tmp}/upgrade-service-servers}
SERVERS=${UPGRADE_TEST_SERVER_LIST:-mariadb postgresql rabbitmq}
# The account that oslo.db's provisioning expects; it may create and drop databases.
ACCOUNT=openstack_citest

say() {
    echo "servers: $*" >&2
}

die() {
    say "$*"
    exit 1
}

free_ports() {
    # Print N ports that nobody listens on. All are bound at once so that they differ.
    python3 - "$1" <<'EOF'
import socket
import sys

held = []
for _ in range(int(sys.argv[1])):
    listener = socket.socket()
    listener.bind(('127.0.0.1', 0))
    held.append(listener)
print(*(listener.getsockname()[1] for listener in held))
EOF
}

running() {
    [ -s "$BASE/$1.pid" ] && kill -0 "$(cat "$BASE/$1.pid")" 2>/dev/null
}

wait_for() {
    # wait_for SERVER COMMAND...: until it succeeds, or the server's process is gone.
    local server=$1
    shift
    for _ in $(seq "${PATIENCE:-240}"); do
        "$@" >/dev/null 2>&1 && return 0
        running "$server" || break
        sleep 0.5
    done
    tail -n 30 "$BASE/$server.log" >&2 || true
    die "$server did not come up, see $BASE/$server.log"
}

launch() {
    # launch SERVER COMMAND...: in a session of its own, so that Ctrl-C in a terminal does not
    # reach it before we stop it in order.
    local server=$1
    shift
    setsid "$@" >"$BASE/$server.log" 2>&1 </dev/null &
    echo $! >"$BASE/$server.pid"
}

as_user() {
    # Print, a word a line, what runs a command as USER. setpriv execs it (runuser would fork),
    # so the pid stays the one that launch wrote down.
    printf '%s\n' setpriv "--reuid=$1" "--regid=$1" --init-groups "${@:2}"
}

start_mariadb() {
    local data=$BASE/mariadb command
    mkdir -p "$data"
    chown mysql: "$data"
    mariadb-install-db --no-defaults --user=mysql --datadir="$data" --skip-test-db \
        --auth-root-authentication-method=normal >"$BASE/mariadb-install.log" 2>&1 ||
        die "mariadb-install-db failed, see $BASE/mariadb-install.log"
    mapfile -t command < <(as_user mysql "$(command -v mariadbd || echo /usr/sbin/mariadbd)")
    launch mariadb "${command[@]}" --no-defaults --datadir="$data" --socket="$data/socket" \
        --bind-address=127.0.0.1 --port="$MARIADB_PORT" --max-connections=300 \
        --innodb-buffer-pool-size=256M --pid-file="$data/mariadb.pid"
    wait_for mariadb mariadb-admin --no-defaults --socket="$data/socket" --user=root ping
    mariadb --no-defaults --socket="$data/socket" --user=root --execute "
        CREATE USER '$ACCOUNT'@'127.0.0.1' IDENTIFIED BY '$ACCOUNT';
        GRANT ALL PRIVILEGES ON *.* TO '$ACCOUNT'@'127.0.0.1' WITH GRANT OPTION;
        CREATE DATABASE $ACCOUNT;"
}

postgresql_program() {
    # Debian keeps the programs of each major version in a directory of its own: the newest.
    local found
    found=$(find /usr/lib/postgresql -path "*/bin/$1" 2>/dev/null | sort --version-sort | tail -n 1)
    found=${found:-$(command -v "$1" || true)}
    [ -n "$found" ] || die "PostgreSQL's $1 is not installed"
    echo "$found"
}

start_postgresql() {
    local data=$BASE/postgresql command
    mkdir -p "$data"
    chown postgres: "$data"
    mapfile -t command < <(as_user postgres "$(postgresql_program initdb)")
    "${command[@]}" --pgdata="$data" --auth=trust --encoding=UTF8 --locale=C.UTF-8 --no-sync \
        >"$BASE/postgresql-install.log" 2>&1 ||
        die "initdb failed, see $BASE/postgresql-install.log"
    mapfile -t command < <(as_user postgres "$(postgresql_program postgres)")
    launch postgresql "${command[@]}" -D "$data" -h 127.0.0.1 -p "$POSTGRESQL_PORT" -k "$data" \
        -c max_connections=300
    wait_for postgresql "$(postgresql_program pg_isready)" -h 127.0.0.1 -p "$POSTGRESQL_PORT"
    "$(postgresql_program psql)" -h 127.0.0.1 -p "$POSTGRESQL_PORT" -U postgres -d postgres -q \
        -c "CREATE ROLE $ACCOUNT LOGIN SUPERUSER PASSWORD '$ACCOUNT'" \
        -c "CREATE DATABASE $ACCOUNT OWNER $ACCOUNT"
}

epmd_answers() {
    ERL_EPMD_PORT=$EPMD_PORT epmd -names
}

rabbitmq_answers() {
    # The protocol header is answered with a Connection.Start frame once the broker serves.
    timeout 5 bash -c "exec 3<>/dev/tcp/127.0.0.1/$RABBITMQ_PORT &&
        printf 'AMQP\\0\\0\\11\\1' >&3 && head -c 1 <&3 | grep -q ."
}

start_rabbitmq() {
    local data=$BASE/rabbitmq
    mkdir -p "$data"
    cat >"$data/rabbitmq.conf" <<EOF
listeners.tcp.1 = 127.0.0.1:$RABBITMQ_PORT
loopback_users = none
vm_memory_high_watermark.absolute = 512MiB
disk_free_limit.absolute = 50MB
log.file.level = warning
EOF
    # A port mapper of our own: the one that Erlang would start by itself outlives the broker.
    launch epmd "$(command -v epmd)" -address 127.0.0.1 -port "$EPMD_PORT"
    wait_for epmd epmd_answers
    launch rabbitmq env HOME="$data" ERL_EPMD_PORT="$EPMD_PORT" ERL_EPMD_ADDRESS=127.0.0.1 \
        RABBITMQ_CONF_ENV_FILE=/dev/null RABBITMQ_CONFIG_FILE="$data/rabbitmq.conf" \
        RABBITMQ_NODENAME=upgrade-test@localhost RABBITMQ_NODE_PORT="$RABBITMQ_PORT" \
        RABBITMQ_NODE_IP_ADDRESS=127.0.0.1 RABBITMQ_DIST_PORT="$RABBITMQ_DIST_PORT" \
        RABBITMQ_MNESIA_BASE="$data/mnesia" RABBITMQ_LOG_BASE="$data/log" \
        RABBITMQ_ENABLED_PLUGINS_FILE="$data/enabled_plugins" \
        RABBITMQ_PID_FILE="$data/beam.pid" \
        RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-kernel inet_dist_use_interface {127,0,0,1}" \
        /usr/lib/rabbitmq/bin/rabbitmq-server
    wait_for rabbitmq rabbitmq_answers
}

# Puppet's server: certificates only for the names of the tests, one interpreter, little memory.
PUPPET_NAMES='*.upgrade.test'

log_to_stdout() {
    cat >"$1" <<EOF
<configuration><appender name="STDOUT" class="ch.qos.logback.core.ConsoleAppender"><encoder>
<pattern>%d %-5p [%c{2}] %m%n</pattern></encoder></appender>
<root level="info"><appender-ref ref="STDOUT"/></root></configuration>
EOF
}

java_is_up() {
    # The file that its main thread writes once all of its services have started.
    grep -q '^1' "$1"
}

start_puppetserver() {
    local data=$BASE/puppetserver packaged=/etc/puppet/puppetserver
    mkdir -p "$data"/{conf,code/environments,var,run,log}
    cp -r $packaged/conf.d $packaged/services.d "$data"
    cat >"$data/conf.d/puppetserver.conf" <<EOF
jruby-puppet: {
    ruby-load-path: [/usr/lib/puppetserver/ruby/vendor_ruby]
    gem-home: $data/var/jruby-gems
    gem-path: [\${jruby-puppet.gem-home}, /usr/lib/puppetserver/vendored-jruby-gems]
    server-conf-dir: $data/conf
    server-code-dir: $data/code
    server-var-dir: $data/var
    server-run-dir: $data/run
    server-log-dir: $data/log
    max-active-instances: 1
    environment-class-cache-enabled: false
}
EOF
    echo "webserver: {client-auth: want, ssl-host: 127.0.0.1, ssl-port: $PUPPET_PORT}" \
        >"$data/conf.d/webserver.conf"
    echo "global: {logging-config: $data/logback.xml}" >"$data/conf.d/global.conf"
    log_to_stdout "$data/logback.xml"
    cat >"$data/conf/puppet.conf" <<EOF
[main]
dns_alt_names = localhost
[server]
certname = puppet.upgrade.test
autosign = $data/conf/autosign.conf
environment_timeout = 0
EOF
    echo "$PUPPET_NAMES" >"$data/conf/autosign.conf"
    echo 0 >"$data/run/restart"
    launch puppetserver java -Xms256m -Xmx640m \
        -Djruby.logger.class=com.puppetlabs.jruby_utils.jruby.Slf4jLogger \
        -Djruby.lib=/usr/share/jruby/lib -jar /usr/share/puppetserver/puppetserver.jar \
        --config "$data/conf.d" --bootstrap-config "$data/services.d" \
        --restart-file "$data/run/restart"
    PATIENCE=1200 wait_for puppetserver java_is_up "$data/run/restart"
}

start_puppetdb() {
    local data=$BASE/puppetdb psql
    mkdir -p "$data"/{conf.d,var,run}
    psql=("$(postgresql_program psql)" -h 127.0.0.1 -p "$POSTGRESQL_PORT" -U postgres -q)
    # it starts beside us
    timeout 120 sh -c 'until "$0" -q -h 127.0.0.1 -p "$1"; do sleep 0.5; done' \
        "$(postgresql_program pg_isready)" "$POSTGRESQL_PORT" || die 'PostgreSQL does not answer'
    "${psql[@]}" -d postgres -c "CREATE ROLE puppetdb LOGIN PASSWORD 'puppetdb'" \
        -c 'CREATE DATABASE puppetdb OWNER puppetdb'
    "${psql[@]}" -d puppetdb -c 'CREATE EXTENSION pg_trgm'
    cp /etc/puppetdb/conf.d/auth.conf "$data/conf.d"
    log_to_stdout "$data/logback.xml"
    cat >"$data/conf.d/puppetdb.ini" <<EOF
[global]
vardir = $data/var
logging-config = $data/logback.xml
[database]
subname = //127.0.0.1:$POSTGRESQL_PORT/puppetdb
username = puppetdb
password = puppetdb
[jetty]
host = 127.0.0.1
port = $PUPPETDB_PORT
[nrepl]
enabled = false
[puppetdb]
disable-update-checking = true
EOF
    echo 0 >"$data/run/restart"
    launch puppetdb java -Xmx192m -Djava.security.egd=/dev/urandom \
        -cp /usr/share/puppetdb/puppetdb.jar clojure.main -m puppetlabs.puppetdb.core services \
        --config "$data/conf.d" --bootstrap-config /etc/puppetdb/bootstrap.cfg \
        --restart-file "$data/run/restart"
    PATIENCE=1200 wait_for puppetdb java_is_up "$data/run/restart"
}

write_environment() {
    local mysql="mysql+pymysql://$ACCOUNT:$ACCOUNT@127.0.0.1:$MARIADB_PORT"
    local postgresql="postgresql+psycopg2://$ACCOUNT:$ACCOUNT@127.0.0.1:$POSTGRESQL_PORT"
    cat >"$BASE/env" <<EOF
export OS_TEST_DBAPI_ADMIN_CONNECTION='sqlite://;$mysql/?charset=utf8mb4;$postgresql/postgres'
export UPGRADE_TEST_RABBIT_URL='rabbit://guest:guest@127.0.0.1:$RABBITMQ_PORT//'
export UPGRADE_TEST_PUPPETSERVER=$PUPPET_PORT:$BASE/puppetserver
export UPGRADE_TEST_PUPPETDB=http://127.0.0.1:$PUPPETDB_PORT
EOF
}

remove_data() {
    # Only a directory that start made: the variable may name anything.
    [ ! -e "$BASE/.servers" ] || rm -rf "$BASE"
}

make_directory() {
    remove_data
    mkdir -p "$BASE"
    [ -z "$(ls -A "$BASE")" ] || die "$BASE is not empty and not ours"
    touch "$BASE/.servers"
    # The database users must reach their own directories below it.
    chmod 755 "$BASE"
}

start() {
    local server failed='' starting
    [ "$(id -u)" = 0 ] || die "start needs root (see --help)"
    for server in $SERVERS epmd; do
        ! running "$server" || die "$server already runs in $BASE: stop it first"
    done
    make_directory
    read -r MARIADB_PORT POSTGRESQL_PORT RABBITMQ_PORT RABBITMQ_DIST_PORT EPMD_PORT \
        PUPPET_PORT PUPPETDB_PORT <<<"$(free_ports 7)"
    write_environment
    # Side by side: the broker takes several seconds, the databases fit into them.
    declare -A starting
    for server in $SERVERS; do
        "start_$server" &
        starting[$server]=$!
    done
    for server in $SERVERS; do
        if wait "${starting[$server]}"; then
            say "$server is up"
        else
            failed="$failed $server"
        fi
    done
    [ -z "$failed" ] || { stop_processes; die "did not come up:$failed (logs in $BASE)"; }
}

stop_server() {
    # stop_server SERVER SIGNAL: ask, wait up to 20 s for an orderly end, then insist.
    local pid
    [ -s "$BASE/$1.pid" ] || return 0
    pid=$(cat "$BASE/$1.pid")
    rm -f "$BASE/$1.pid"
    kill -s "$2" "$pid" 2>/dev/null || return 0
    for _ in $(seq 200); do
        kill -0 "$pid" 2>/dev/null || return 0
        sleep 0.1
    done
    say "$1 (pid $pid) did not end by itself"
    kill -s KILL "$pid" 2>/dev/null || true
}

stop_processes() {
    # INT is PostgreSQL's "fast" shutdown: do not wait for clients. The port mapper goes last,
    # the broker unregisters from it.
    stop_server puppetserver TERM &
    stop_server puppetdb TERM &
    wait
    stop_server mariadb TERM &
    stop_server postgresql INT &
    stop_server rabbitmq TERM &
    wait
    stop_server epmd TERM
}

status() {
    local server
    for server in $SERVERS; do
        if running "$server"; then
            echo "$server runs (pid $(cat "$BASE/$server.pid"))"
        else
            echo "$server is down"
        fi
    done
}

case ${1:-} in
    start) start ;;
    stop)
        stop_processes
        remove_data
        ;;
    status) status ;;
    env)
        [ -s "$BASE/env" ] || die "nothing runs in $BASE: tools/servers.sh start"
        cat "$BASE/env"
        ;;
    -h | --help) usage ;;
    *)
        usage >&2
        exit 2
        ;;
esac
