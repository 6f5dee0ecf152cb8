# The upgrade service in the lab, the way an operator installs it: database, message bus and catalog
# of the cloud, API and conductor on the first controller, an engine on every host.
CHECKOUT=$(cd "$LAB_SRC/../.." && pwd)
SERVICE_BIN=/opt/stack/upgrade-service-current/bin
SERVICE_DISTS="pyuwsgi PyMySQL python-memcached pymemcache python-openstackclient"

engine_hosts() { hosts ctl; hosts cmp; }
upgrade_cli() { # ARGS...: the openstack client with our commands, as the operator
    in_host ctl1 env OS_CLOUD=operator "$SERVICE_BIN/openstack" "$@"
}
upgrade_manage() { in_host ctl1 "$SERVICE_BIN/upgrade-service-manage" "$@"; }

plain_python() { # the machine's own Python, also when the tests run us from their environment, which has no pip
    local path
    path=$(tr : '\n' <<<"$PATH" | grep -vx "${VIRTUAL_ENV:-none}/bin" | paste -sd:)
    PATH=$path python3 "$@"
}
build_service() { # the checkout as a wheel, and a virtual environment of it for all hosts
    local wheels=$LAB_DIR/wheels/upgrade-service venv=/opt/pool/upgrade-service
    rm -rf "$wheels" "$CHECKOUT/build"      # an old build folder would bring deleted modules back
    PBR_VERSION=0.1.0 plain_python -m pip wheel -q --no-deps -w "$wheels" "$CHECKOUT" >>"$LAB_DIR/base.log" 2>&1 || return 1
    [ -e "$LAB_DIR/pool/upgrade-service/bin/python3" ] || in_base python3 -m venv --without-pip "$venv" || return 1
    # shellcheck disable=SC2086
    in_base uv pip install -q --compile-bytecode --python "$venv/bin/python3" --reinstall-package upgrade-service \
        "/opt/wheels/upgrade-service/$(cd "$wheels" && ls)" $SERVICE_DISTS
}

service_bus() { # a virtual host of our own; engines may only use their own queues, and write to the conductor
    local h own='^upgrade-engine\..*'
    {
        echo 'set -e; u() { rabbitmqctl -q add_user "$1" lab 2>/dev/null || rabbitmqctl -q change_password "$1" lab; }'
        echo 'rabbitmqctl -q list_vhosts | grep -qx upgrade || rabbitmqctl -q add_vhost upgrade'
        echo 'u upgrade; rabbitmqctl -q set_permissions -p upgrade upgrade ".*" ".*" ".*"'
        for h in $(engine_hosts); do
            echo "u engine-$h; rabbitmqctl -q set_permissions -p upgrade engine-$h" \
                "'($own|^upgrade-conductor\$)' '($own|^upgrade-conductor\$)' '$own'"
        done
    } | in_host ctl1 sh
}
service_database() {
    echo "CREATE DATABASE IF NOT EXISTS upgrade_service CHARACTER SET utf8mb4;
        GRANT ALL ON upgrade_service.* TO 'upgrade'@'%' IDENTIFIED BY 'lab';
        GRANT ALL ON \`upgrade\_scratch\_%\`.* TO 'scratch'@'%' IDENTIFIED BY 'lab';" | in_host ctl1 mariadb
}
service_rights() { # from now on the service cannot change or remove what is in its audit trail
    local statements
    statements=$(upgrade_manage db grants upgrade) || return 1
    { echo "REVOKE ALL ON upgrade_service.* FROM 'upgrade'@'%';"; echo "$statements"; } |
        in_host ctl1 mariadb upgrade_service
}
service_files() {
    local h f
    render_tree "$LAB_SRC/files/service/ctl" ctl1
    for h in $(engine_hosts); do
        render_tree "$LAB_SRC/files/service/all" "$h"
        f=$(root_of "$h")
        ln -sfn /opt/pool/upgrade-service "$f/opt/stack/upgrade-service-current"
        chmod -R go= "$f/etc/upgrade-service"
        in_host "$h" systemctl daemon-reload
    done
}
service_control() { # schema, keys, catalog; then the API and the conductor
    service_database && service_bus || return 1
    upgrade_manage db upgrade && service_rights || return 1
    [ -e "$(root_of ctl1)/etc/upgrade-service/keys/current" ] || upgrade_manage keys create || return 1
    (umask 077 && echo lab >"$(root_of ctl1)/etc/upgrade-service/password")
    upgrade_manage service register --os-cloud admin --url "http://ctl1:9899" --user upgrade \
        --password-file /etc/upgrade-service/password || return 1
    client_python /opt/lab/upgrader.py || return 1
    in_host ctl1 systemctl enable -q upgrade-service-api upgrade-service-conductor
    in_host ctl1 systemctl restart upgrade-service-api upgrade-service-conductor
}

enroll() { # HOST: the one-time bundle that its engine starts with
    local f
    f=$(root_of "$1")
    [ -e "$f/var/lib/upgrade-service/engine" ] && return
    (
        umask 077
        upgrade_cli upgrade agent enroll "$1" -f value -c bundle >"$f/etc/upgrade-service/enroll.json"
    )
}
service_engines() {
    local h jobs=()
    for h in $(engine_hosts); do    # a client's start takes seconds
        enroll "$h" &
        jobs+=($!)
    done
    for h in "${jobs[@]}"; do
        wait "$h" || return 1
    done
    for h in $(engine_hosts); do
        in_host "$h" systemctl enable -q upgrade-service-engine
        in_host "$h" systemctl restart upgrade-service-engine || return 1
    done
}
engines_active() {
    [ "$(upgrade_cli upgrade agent list -f value -c State | grep -c active)" = "$(engine_hosts | wc -l)" ]
}

service_up() {
    timed "upgrade service's code" build_service
    timed "upgrade service's files" service_files
    timed "upgrade service's control services" service_control
    timed "upgrade service's API" wait_for 60 "the API of the upgrade service" in_host ctl1 curl -sf http://ctl1:9899/
    timed "engines" service_engines
    timed "engines enrolled" wait_for 60 "the engines" engines_active
}
