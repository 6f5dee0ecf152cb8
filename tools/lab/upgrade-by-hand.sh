#!/bin/bash
# The reference upgrade, N to N+1, as an operator would type it: what ours is measured against. Prints
# each step with its duration. Usage: upgrade-by-hand.sh RELEASE [STEP...], after "lab pool RELEASE".
# Steps: check keystone placement glance cinder neutron nova computes finish
. "$(dirname "$(readlink -f "$0")")/lib/settings.sh"
TO=$1
shift
[ -e "$LAB_SRC/releases/$TO" ] || die "which release?"
[ "$(hosts ctl | wc -l)" = 1 ] || die "written for one controller"
[ $# -gt 0 ] || set -- check keystone placement glance cinder neutron nova computes finish
NC="--config-file /etc/neutron/neutron.conf --config-file /etc/neutron/ml2_conf.ini"

new() { echo "/opt/stack/$1-$(version_of "$TO" "$1")/bin"; }
# try: run, show the end of the output, the exit status and the duration; step: the same, but must succeed
try() { # HOST CMD...
    local h=$1 began rc
    began=$(date +%s.%N)
    shift
    echo "## $h: $*"
    in_host "$h" env PYTHONWARNINGS=ignore sh -ec "$*" 2>&1 |
        grep -viE 'INFO|eventlet|framework|we strongly|^ *$' | tail -"${TAIL:-6}" | cut -c1-200
    rc=${PIPESTATUS[0]}
    printf '   -> rc %s, %.1f s\n' "$rc" "$(echo "$(date +%s.%N) - $began" | bc)"
    return "$rc"
}
step() { try "$@" || die "stopped at the step above"; }
stage_in() { # HOST SERVICE
    local v
    v=$2-$(version_of "$TO" "$2")
    step "$1" "ln -sfn /opt/pool/$v /opt/stack/$v"
}
switch() { # HOST SERVICE UNIT...
    local h=$1 s=$2
    shift 2
    step "$h" "ln -sfn $s-$(version_of "$TO" "$s") /opt/stack/$s-current; systemctl restart $*"
}
port_up() { # PORT
    wait_for 120 "port $1" in_host ctl1 curl -s -o /dev/null "http://ctl1:$1/"
    log "port $1 answers"
}

do_check() {
    local s TAIL=60     # exit status: 0 good, 1 warnings, 2 failures, 255 the checker broke
    for s in keystone placement glance cinder neutron nova; do
        stage_in ctl1 "$s"
    done
    try ctl1 "$(new keystone)/keystone-status upgrade check"
    try ctl1 "$(new placement)/placement-status upgrade check"
    try ctl1 "$(new glance)/glance-status upgrade check"
    try ctl1 "$(new cinder)/cinder-status upgrade check"
    try ctl1 "$(new neutron)/neutron-status $NC upgrade check"
    try ctl1 "$(new nova)/nova-status upgrade check"
}
do_keystone() {
    try ctl1 "$(new keystone)/keystone-manage db_sync --check"   # 0 up to date, 2 expand, 3 migrate, 4 contract needed
    step ctl1 "$(new keystone)/keystone-manage db_sync --expand"
    try ctl1 "$(new keystone)/keystone-manage db_sync --migrate"  # nothing to do since alembic
    switch ctl1 keystone keystone-api
    port_up 5000
    step ctl1 "$(new keystone)/keystone-manage db_sync --contract"
}
do_placement() {
    step ctl1 "$(new placement)/placement-manage db sync"
    switch ctl1 placement placement-api
    port_up 8778
    step ctl1 "$(new placement)/placement-manage db online_data_migrations"
}
do_glance() {
    step ctl1 "$(new glance)/glance-manage db expand"
    step ctl1 "$(new glance)/glance-manage db migrate"
    switch ctl1 glance glance-api
    port_up 9292
    step ctl1 "$(new glance)/glance-manage db contract"
}
do_cinder() {
    step ctl1 "/opt/stack/cinder-current/bin/cinder-manage db online_data_migrations"
    step ctl1 "$(new cinder)/cinder-manage db sync"
    switch ctl1 cinder cinder-scheduler cinder-volume cinder-api
    port_up 8776
    step ctl1 "$(new cinder)/cinder-manage db online_data_migrations"
}
do_neutron() {
    step ctl1 "$(new neutron)/neutron-db-manage $NC upgrade --expand"
    try ctl1 "$(new neutron)/neutron-db-manage $NC has_offline_migrations"   # 1: contract needs the servers stopped
    step ctl1 "systemctl stop neutron-api neutron-rpc-server neutron-periodic-workers"
    step ctl1 "$(new neutron)/neutron-db-manage $NC upgrade --contract"
    switch ctl1 neutron neutron-api neutron-rpc-server neutron-periodic-workers
    port_up 9696
}
do_nova() {
    step ctl1 "/opt/stack/nova-current/bin/nova-manage db online_data_migrations"
    step ctl1 "$(new nova)/nova-manage api_db sync"
    step ctl1 "$(new nova)/nova-manage db sync"
    switch ctl1 nova nova-conductor nova-scheduler nova-api
    port_up 8774
}
compute_version() { # HOST: the service version that its nova-compute reports
    in_host ctl1 mariadb -N nova \
        -e "select version from services where host='$1' and \`binary\`='nova-compute' and deleted=0"
}
is_newer() { # HOST VERSION
    [ "$(compute_version "$1")" -gt "$2" ] && os compute service list --host "$1" -f value -c State | grep -q up
}
do_computes() {
    local h was s
    for h in $(hosts cmp); do
        was=$(compute_version "$h")
        os compute service set --disable --disable-reason "upgrade to $TO" "$h" nova-compute
        for s in $(os server list --all --host "$h" -f value -c ID); do
            os --os-compute-api-version 2.30 server migrate --live-migration --wait "$s" >/dev/null ||
                log "$s stays on $h"
        done
        log "$h is empty: $(os server list --all --host "$h" -f value -c Name | wc -l) servers left"
        stage_in "$h" nova
        stage_in "$h" neutron
        switch "$h" neutron "'neutron-*-agent.service'"     # those that run: with --l3, DHCP and L3 too
        switch "$h" nova nova-compute
        wait_for 120 "$h at the new version" is_newer "$h" "$was"
        log "$h: nova-compute service version $was -> $(compute_version "$h")"
        os compute service set --enable "$h" nova-compute
    done
}
do_finish() { # every compute is new: drop the RPC pins, migrate the data
    step ctl1 "systemctl restart nova-conductor nova-scheduler nova-api"
    port_up 8774
    step ctl1 "$(new nova)/nova-manage db online_data_migrations"
    step ctl1 "systemctl restart cinder-scheduler cinder-volume cinder-api"
    TAIL=60 try ctl1 "$(new nova)/nova-status upgrade check"
    echo "$TO" >"$LAB_DIR/release"
}

for s; do
    log "=== $s"
    "do_$s"
done
log "upgrade script done"
