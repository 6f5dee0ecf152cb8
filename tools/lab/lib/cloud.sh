# The cloud inside the hosts: databases, bootstrap, services, first tenants.
DBS="keystone placement glance nova nova_api:nova nova_cell0:nova neutron cinder"     # database[:user]

ctl_infra() {
    local d
    wait_for 60 mariadb in_host ctl1 mariadb -e 'select 1'
    for d in $DBS; do
        printf "CREATE DATABASE IF NOT EXISTS %s CHARACTER SET utf8mb4; GRANT ALL ON %s.* TO '%s'@'%%' IDENTIFIED BY 'lab';\n" \
            "${d%%:*}" "${d%%:*}" "${d##*:}"
    done | in_host ctl1 mariadb || return 1
    wait_for 90 rabbitmq in_host ctl1 rabbitmqctl -q await_startup
    in_host ctl1 sh -c 'rabbitmqctl -q list_users | grep -q ^openstack || {
        rabbitmqctl -q add_user openstack lab; rabbitmqctl -q set_permissions openstack ".*" ".*" ".*"; }'
}

# The schemas of a release take a minute to create: a dump of the empty ones is kept, and the next
# lab loads it in seconds.
ctl_schemas() {
    local dump=$LAB_DIR/cache/schemas-$RELEASE.sql
    if [ -s "$dump" ]; then
        in_host ctl1 mariadb <"$dump"
        return
    fi
    # shellcheck disable=SC2016
    in_host ctl1 bash -ec '
        S=/opt/stack
        (
            $S/nova-current/bin/nova-manage api_db sync
            $S/nova-current/bin/nova-manage cell_v2 map_cell0
            $S/nova-current/bin/nova-manage cell_v2 list_cells | grep -q cell1 ||
                $S/nova-current/bin/nova-manage cell_v2 create_cell --name=cell1
            $S/nova-current/bin/nova-manage db sync
            $S/placement-current/bin/placement-manage db sync
        ) & a=$!
        (
            $S/neutron-current/bin/neutron-db-manage --config-file /etc/neutron/neutron.conf \
                --config-file /etc/neutron/ml2_conf.ini upgrade heads
            $S/glance-current/bin/glance-manage db_sync
            $S/cinder-current/bin/cinder-manage db sync
            $S/keystone-current/bin/keystone-manage db_sync
        ) & b=$!
        wait $a
        wait $b' >"$LAB_DIR/db_sync.log" 2>&1 || return 1
    mkdir -p "$LAB_DIR/cache"
    # shellcheck disable=SC2046,SC2086
    in_host ctl1 mariadb-dump --databases $(printf '%s\n' $DBS | cut -d: -f1) >"$dump.new" && mv "$dump.new" "$dump"
}

ctl_keystone() {
    # shellcheck disable=SC2016
    in_host ctl1 env API="$(api_host)" sh -ec '
        K=/opt/stack/keystone-current/bin/keystone-manage
        install -d -m 700 /etc/keystone/fernet-keys /etc/keystone/credential-keys
        $K fernet_setup --keystone-user root --keystone-group root
        $K credential_setup --keystone-user root --keystone-group root
        $K bootstrap --bootstrap-password lab --bootstrap-region-id RegionOne \
            --bootstrap-admin-url http://$API:5000/v3 --bootstrap-public-url http://$API:5000/v3 \
            --bootstrap-internal-url http://$API:5000/v3' >>"$LAB_DIR/db_sync.log" 2>&1
}

ctl_keys() { # all keystones sign with the same keys
    local h
    for h in $(hosts ctl | grep -v ctl1); do
        cp -a "$(root_of ctl1)"/etc/keystone/{fernet,credential}-keys "$(root_of "$h")/etc/keystone/" || return 1
    done
}

start_units() { # HOST UNIT...
    local h=$1
    shift
    in_host "$h" systemctl enable -q --now --no-block "$@"
}

compute_up() { # HOST
    # shellcheck disable=SC2016,SC2046
    in_host "$1" sh -ec '
        systemctl start openvswitch-switch
        ovs-vsctl --may-exist add-br br-int -- set bridge br-int datapath_type=netdev
        ovs-vsctl --may-exist add-br br-data -- set bridge br-data datapath_type=netdev
        ovs-vsctl --may-exist add-port br-data data0
        ip link set data0 up' && start_units "$1" $(units_of "$1")
}
net_hosts() { [ "${L3:-0}" = 0 ] || hosts cmp | head -2; }      # they carry the DHCP and L3 agents too

deploy() { # once in a lab's life
    timed "database schemas" ctl_schemas
    timed "keystone bootstrap" ctl_keystone
    timed "keystone's keys" ctl_keys
    start_units ctl1 keystone-api placement-api
    timed "keystone start" wait_for 90 keystone in_host ctl1 curl -sf "http://ctl1:5000/v3"
    # before the catalog is there: starting takes a minute of processor time, and none of them needs it for that
    # shellcheck disable=SC2046
    start_units ctl1 $(units_of ctl1)
    [ "$(api_host)" = ctl1 ] ||
        wait_for 90 "keystone in the balancer" in_host ctl1 curl -sf "http://$(api_host):5000/v3"
    timed "catalog" client_python /opt/lab/bootstrap.py
    touch "$LAB_DIR/hosts/ctl1/deployed"
}

cloud_up() {
    local h
    timed "mariadb and rabbitmq" ctl_infra
    [ -e "$LAB_DIR/hosts/ctl1/deployed" ] || deploy
    # shellcheck disable=SC2046
    for h in $(hosts ctl); do
        timed "$h services" start_units "$h" $(units_of "$h")
    done
    # neutron's agents would wait out an RPC time limit of a minute
    timed "neutron start" wait_for 200 neutron in_host ctl1 curl -sf "http://ctl1:9696/"
    for h in $(hosts cmp); do
        timed "$h services" compute_up "$h"
    done
    timed "all services up" wait_for 400 "all services" cloud_ready 0
    if [ -n "$(net_hosts)" ]; then
        for h in $(net_hosts); do
            start_units "$h" neutron-dhcp-agent neutron-l3-agent
        done
        timed "network agents up" wait_for 200 "the network agents" cloud_ready $((2 * $(net_hosts | wc -l)))
    fi
    [ -z "$(hosts lb)" ] || timed "all APIs in the balancer" wait_for 120 "the balancer" in_host lb1 python3 /opt/lab/lb.py status
    [ "${AZS:-0}" = 0 ] || timed "availability zones" client_python /opt/lab/azs.py
}
cloud_ready() { # MORE: agents besides the computes' own
    local n
    n=$(hosts cmp | wc -l)
    client_python /opt/lab/ready.py "$n" $((n + $1)) "$(hosts ctl | wc -l)"
}

mem_of() { # HOST: the proportional set size of its processes, MiB
    local ns p
    ns=$(readlink "/proc/$(leader "$1")/ns/pid")
    for p in /proc/[0-9]*; do
        [ "$(readlink "$p/ns/pid" 2>/dev/null)" = "$ns" ] && awk '/^Pss:/{print $2}' "$p/smaps_rollup" 2>/dev/null
    done | awk '{s += $1} END {printf "%d", s / 1024}'
}
