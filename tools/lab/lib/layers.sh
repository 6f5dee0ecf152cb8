# The read-only pieces that all hosts share: file system layers, wheels, virtual environments.
BASE_PKGS="python3-venv sudo rsync curl jq less ca-certificates iputils-ping iptables conntrack
    openvswitch-switch dnsmasq-base iputils-arping apt-utils dpkg-dev"
CTL_PKGS="mariadb-server rabbitmq-server memcached"
LB_PKGS="haproxy"
CA_BUNDLE=/etc/ssl/certs/ca-certificates.crt

need_tools() { # what a fresh Debian lacks
    local t miss=()
    for t in systemd-nspawn:systemd-container debootstrap:debootstrap ip:iproute2 nsenter:util-linux \
            pgrep:procps bc:bc curl:curl gpg:gnupg ssh-keygen:openssh-client; do
        command -v "${t%%:*}" >/dev/null || miss+=("${t##*:}")
    done
    [ ${#miss[@]} = 0 ] && return
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qqy "${miss[@]}" >/dev/null
}

apt_in() { # ROOT PKG...: packages whose services do not start
    local r=$1 rc
    shift
    printf '#!/bin/sh\nexit 101\n' >"$r/usr/sbin/policy-rc.d"
    chmod +x "$r/usr/sbin/policy-rc.d"
    mount -t proc proc "$r/proc" || return 1
    DEBIAN_FRONTEND=noninteractive LC_ALL=C chroot "$r" sh -ec '
        apt-get update -qq; apt-get install -qqy --no-install-recommends "$@"' apt "$@" >>"$LAB_DIR/apt.log" 2>&1
    rc=$?
    umount "$r/proc"
    rm -f "$r/usr/sbin/policy-rc.d"
    return $rc
}

build_base() {
    local b=$LAB_DIR/layers/base
    [ "$(cat "$LAB_DIR/layers/base.ok" 2>/dev/null)" = "$BASE_PKGS" ] && return
    rm -f "$LAB_DIR"/layers/*.ok        # the other layers lie on this one
    if [ ! -x "$b/usr/sbin/init" ]; then
        rm -rf "$b"
        debootstrap --variant=minbase \
            --include=systemd,systemd-sysv,dbus,iproute2,python3,openssh-server,procps,udev,kmod \
            "$SUITE" "$b" >"$LAB_DIR/debootstrap.log" 2>&1 || return 1
    fi
    cp /etc/resolv.conf "$b/etc/resolv.conf"
    # shellcheck disable=SC2086
    apt_in "$b" $BASE_PKGS || return 1
    rm -f "$b"/etc/ssh/ssh_host_*
    : >"$b/etc/machine-id"
    # no timers, no getty: hosts stay quiet
    chroot "$b" systemctl mask -q apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer fstrim.timer \
        man-db.timer logrotate.timer console-getty.service getty@tty1.service systemd-udevd.service
    chroot "$b" systemctl enable -q systemd-networkd
    in_base sh -ec 'python3 -m venv /opt/tools; /opt/tools/bin/pip install -q -U pip uv
        cp /opt/tools/bin/uv /usr/local/bin/uv' || return 1
    echo "$BASE_PKGS" >"$LAB_DIR/layers/base.ok"
}

build_layer() { # NAME PKG...: packages on top of the base layer
    local l=$LAB_DIR/layers n=$1 rc
    shift
    [ "$(cat "$l/$n.ok" 2>/dev/null)" = "$*" ] && return
    rm -rf "${l:?}/$n" "$l/$n.work"
    mkdir -p "$l/$n" "$l/$n.work" "$l/$n.mnt"
    mount -t overlay overlay -o "lowerdir=$l/base,upperdir=$l/$n,workdir=$l/$n.work" "$l/$n.mnt" || return 1
    apt_in "$l/$n.mnt" "$@"
    rc=$?
    umount "$l/$n.mnt"
    [ $rc = 0 ] && echo "$*" >"$l/$n.ok"
}

# in_base CMD...: run in the base layer with the pool and the wheels mounted. The mounts are of a
# name space that ends with the command, so several can run at once and none is left behind.
in_base() {
    local b=$LAB_DIR/layers/base v keep=()
    mkdir -p "$LAB_DIR/pool" "$LAB_DIR/wheels" "$b/opt/pool" "$b/opt/wheels" "$b/opt/stack"
    for v in http_proxy https_proxy no_proxy PIP_INDEX_URL UV_INDEX_URL; do
        [ -z "${!v:-}" ] || keep+=("$v=${!v}")
    done
    # shellcheck disable=SC2016
    unshare -m --propagation private sh -ec '
        b=$1 lab=$2 ca=$3; shift 3
        mount --bind "$lab/pool" "$b/opt/pool"
        mount --bind "$lab/wheels" "$b/opt/wheels"
        mount --bind "$ca" "$b/etc/ssl/certs/ca-certificates.crt"
        mount --bind /etc/resolv.conf "$b/etc/resolv.conf"
        mount -t proc proc "$b/proc"
        exec chroot "$b" "$@"' in_base "$b" "$LAB_DIR" "${SSL_CERT_FILE:-$CA_BUNDLE}" \
        env -i HOME=/root PATH=/usr/local/bin:/usr/bin:/bin LC_ALL=C.UTF-8 "${keep[@]}" \
        UV_CACHE_DIR=/opt/pool/.uv PIP_CACHE_DIR=/opt/pool/.pip \
        PIP_CERT=$CA_BUNDLE SSL_CERT_FILE=$CA_BUNDLE "$@" >>"$LAB_DIR/base.log" 2>&1
}

# Every wheel of a release. They are fetched by the base layer's own Python and without looking at
# dependencies: the constraints name them all.
build_wheels() { # RELEASE
    local rel=$1 w=$LAB_DIR/wheels/$1
    cmp -s "$LAB_SRC/constraints/$rel.txt" "$w/upper-constraints.txt" && return
    mkdir -p "$w"
    in_base_wheel "$rel" -r /dev/stdin <"$LAB_SRC/constraints/$rel.txt" || return 1
    cp "$LAB_SRC/constraints/$rel.txt" "$w/upper-constraints.txt"
}
in_base_wheel() { # RELEASE ARG...
    local rel=$1
    shift
    in_base /opt/tools/bin/pip wheel -q --no-deps -w "/opt/wheels/$rel" --find-links "/opt/wheels/$rel" "$@"
}

# One virtual environment for each service and version, seen by the hosts as /opt/pool. They are
# read-only there, so the bytecode is made here: no start has to compile.
build_pool() { # RELEASE
    local rel=$1 s v
    for s in $(services_of "$rel"); do
        v=$s-$(version_of "$rel" "$s")
        [ -e "$LAB_DIR/pool/$v/.ok" ] && continue
        rm -rf "${LAB_DIR:?}/pool/$v"
        # shellcheck disable=SC2046
        in_base python3 -m venv --without-pip "/opt/pool/$v" &&
            in_base uv pip install -q --offline --compile-bytecode --python "/opt/pool/$v/bin/python3" --no-index \
                --find-links "/opt/wheels/$rel" -c "/opt/wheels/$rel/upper-constraints.txt" \
                $(requirements_of "$rel" "$s") || return 1
        touch "$LAB_DIR/pool/$v/.ok"
    done
}
