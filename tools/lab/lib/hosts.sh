# Networks and hosts: an overlay root each, booted by systemd-nspawn.
net_up() {
    local b
    for b in "$LAB_BR" "$LAB_DATA_BR"; do
        ip link show "$b" >/dev/null 2>&1 || ip link add "$b" type bridge || return 1
        sysctl -qw "net.ipv6.conf.$b.disable_ipv6=1"
        ip link set "$b" up
    done
    ip addr show "$LAB_BR" | grep -q "$LAB_NET.1/24" || ip addr add "$LAB_NET.1/24" dev "$LAB_BR"
}
net_down() {
    local b
    for b in "$LAB_BR" "$LAB_DATA_BR"; do
        ip link del "$b" 2>/dev/null
    done
    true
}

mount_root() { # HOST
    local d=$LAB_DIR/hosts/$1 lower=$LAB_DIR/layers/base
    case $1 in
        ctl1) lower=$LAB_DIR/layers/ctl:$lower ;;
        lb*) lower=$LAB_DIR/layers/lb:$lower ;;
    esac
    mkdir -p "$d/up" "$d/work" "$d/root"
    mountpoint -q "$d/root" ||
        mount -t overlay overlay -o "lowerdir=$lower,upperdir=$d/up,workdir=$d/work" "$d/root"
}

render() { # TEMPLATE DEST HOST
    mkdir -p "$(dirname "$2")"
    sed -e "s/@HOST@/$3/g; s/@IP@/$(host_ip "$3")/g; s/@API@/$(api_host)/g" \
        -e "s/@VCPUS@/${LAB_VCPUS:-8}/g; s/@RAM@/${LAB_RAM:-16384}/g" "$1" >"$2"
}
render_tree() { # DIRECTORY HOST: every file of it, at the same place in the host
    local f
    while read -r f; do
        render "$1/$f" "$(root_of "$2")/$f" "$2"
    done < <(cd "$1" && find . -type f)
}

# Rows of the unit table that belong to a host: "unit port arguments"
unit_rows() { # HOST ROLE...
    local roles
    roles=$(IFS='|'; shift; echo "$*")
    sed -nE "s/^($roles) +//p" "$LAB_SRC/files/units/table"
}
units_of() { # HOST: what starts with the host
    case $1 in
        ctl1) unit_rows "$1" one ctl ;;
        ctl*) unit_rows "$1" ctl ;;
        cmp*) unit_rows "$1" cmp ;;
    esac | awk '{print $1}'
}
write_units() { # HOST
    local unit port args template roles=(cmp net)
    [ "$(role_of "$1")" = ctl ] && roles=(one ctl)
    while read -r unit port args; do
        template=api
        [ "$port" = - ] && template=daemon
        sed -e "s/@UNIT@/$unit/g; s/@PROJECT@/${unit%%-*}/g; s/@PORT@/$port/g; s|@ARGS@|$args|g" \
            "$LAB_SRC/files/units/$template.service" >"$(root_of "$1")/etc/systemd/system/$unit.service"
    done < <(unit_rows "$1" "${roles[@]}")
}

haproxy_apis() { # a "listen" for each API, all controllers behind it
    local a h
    for a in $APIS; do
        printf 'listen %s\n    bind :%s\n' "${a%:*}" "${a#*:}"
        for h in $(hosts ctl); do
            printf '    server %s %s:%s check\n' "$h" "$(host_ip "$h")" "${a#*:}"
        done
    done
}

write_network() { # HOST: names, addresses, the way in
    local r x
    r=$(root_of "$1")
    echo "$1" >"$r/etc/hostname"
    { echo "127.0.0.1 localhost"; for x in $(hosts); do echo "$(host_ip "$x") $x"; done; } >"$r/etc/hosts"
    rm -f "$r/etc/resolv.conf"
    : >"$r/etc/resolv.conf"
    # not 80-: the stock 80-container-host0.network would win
    printf '[Match]\nName=host0\n[Network]\nAddress=%s/24\nLinkLocalAddressing=no\n' "$(host_ip "$1")" \
        >"$r/etc/systemd/network/10-host.network"
    printf '[Match]\nName=data0\n[Link]\nRequiredForOnline=no\n[Network]\nLinkLocalAddressing=no\n' \
        >"$r/etc/systemd/network/11-data.network"
    install -D -m 600 "$LAB_DIR/id_lab.pub" "$r/root/.ssh/authorized_keys"
    chroot "$r" ssh-keygen -qA >/dev/null
    chroot "$r" systemctl enable -q ssh
}

link_code() { # HOST SERVICE...: /opt/stack/SERVICE-current -> SERVICE-VERSION -> the pool
    local r s v
    r=$(root_of "$1")
    shift
    mkdir -p "$r/opt/stack"
    for s; do
        v=$s-$(version_of "$RELEASE" "$s")
        ln -sfn "/opt/pool/$v" "$r/opt/stack/$v"
        ln -sfn "$v" "$r/opt/stack/$s-current"
    done
    # paste files and root filters come with the code: following "current" upgrades them too
    mkdir -p "$r"/etc/{nova,neutron,cinder,glance}
    for s in nova/api-paste.ini neutron/api-paste.ini cinder/api-paste.ini cinder/rootwrap.d \
            glance/glance-api-paste.ini; do
        ln -sfn "/opt/stack/${s%%/*}-current/etc/$s" "$r/etc/$s"
    done
}

configure_host() { # everything that is a file on disk, before the first boot
    local h=$1 r role
    r=$(root_of "$h")
    role=$(role_of "$h")
    write_network "$h"
    render_tree "$LAB_SRC/files/all" "$h"
    render_tree "$LAB_SRC/files/$role" "$h"
    mkdir -p "$r"/var/lib/{nova,neutron,glance/images,cinder,guests,keystone} "$r/var/lock"
    # shellcheck disable=SC2046
    case $role in
        ctl) write_units "$h"; link_code "$h" $(services_of "$RELEASE") ;;
        cmp) write_units "$h"; link_code "$h" nova neutron ;;
        lb) haproxy_apis >>"$r/etc/haproxy/haproxy.cfg"; chroot "$r" systemctl disable -q openvswitch-switch ;;
    esac
    touch "$LAB_DIR/hosts/$h/configured"
}

boot_host() { # HOST
    local h=$1 d=$LAB_DIR/hosts/$1 v="${1:0:5}d" bind=()
    leader "$h" >/dev/null && return 0
    if [ "$(role_of "$h")" = ctl ]; then    # one image store for all controllers
        mkdir -p "$LAB_DIR/hosts/ctl1/images"
        bind=(--bind="$LAB_DIR/hosts/ctl1/images:/var/lib/glance")
    fi
    ip link del "$v" 2>/dev/null
    setsid systemd-nspawn -q -D "$d/root" -b --machine="$h" --register=no --keep-unit --console=pipe \
        --network-bridge="$LAB_BR" --network-veth-extra="$v:data0" --bind=/dev/net/tun "${bind[@]}" \
        --bind-ro="$LAB_DIR/pool:/opt/pool" --bind-ro="$LAB_DIR/wheels:/opt/wheels" \
        </dev/null >"$d/console.log" 2>&1 &
    echo $! >"$d/nspawn.pid"
    wait_for 20 "$v on $h" ip link set "$v" master "$LAB_DATA_BR"
    ip link set "$v" up
}
host_ready() { in_host "$1" sh -c 'systemctl is-system-running | grep -Eq "running|degraded"'; }

stop_host() { # without ceremony: the host is forgotten, and with its PID 1 every process of it ends
    local h=$1 d=$LAB_DIR/hosts/$1 l
    if l=$(leader "$h") && [ -n "$l" ]; then
        kill -9 "$l" 2>/dev/null
        wait_for 20 "$h to end" host_ended "$h"
    fi
    ip link del "${h:0:5}d" 2>/dev/null
    rm -f "$d/nspawn.pid"
    mountpoint -q "$d/root" && umount "$d/root"
    true
}
host_ended() { ! kill -0 "$(cat "$LAB_DIR/hosts/$1/nspawn.pid")" 2>/dev/null; }
