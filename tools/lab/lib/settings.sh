# What the lab is called and where it lies, and the words its scripts share. Everything the lab makes
# is below LAB_DIR; each setting can be overridden from the environment.
LAB_SRC=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
LAB_DIR=${LAB_DIR:-${TMPDIR:-/tmp}/ulab}
LAB_NET=${LAB_NET:-10.77.0}            # management network, /24
LAB_BR=${LAB_BR:-br-lab}               # management bridge on this machine
LAB_DATA_BR=${LAB_DATA_BR:-br-labdata} # carries the guests' VLANs
export LAB_DIR LAB_NET LAB_DATA_BR     # probe.py and check.py read them
SUITE=${SUITE:-bookworm}
# libraries every service's venv gets besides its own requirements
EXTRA_DISTS="PyMySQL pymemcache python-memcached pyuwsgi"

APIS="keystone:5000 placement:8778 glance:9292 nova:8774 neutron:9696 cinder:8776"

log() { printf '%s [lab +%ss] %s\n' "$(date +%H:%M:%S)" "$SECONDS" "$*" >&2; }
die() { log "ERROR: $*"; exit 1; }
timed() { # WHAT CMD...: run, say how long it took, end when it failed
    local _t0=$SECONDS _what=$1
    shift
    "$@" || die "$_what failed"
    log "$_what: $((SECONDS - _t0)) s"
}

host_ip() {
    case $1 in
        lb1) echo "$LAB_NET.10" ;;
        ctl*) echo "$LAB_NET.$((10 + ${1#ctl}))" ;;
        cmp*) echo "$LAB_NET.$((20 + ${1#cmp}))" ;;
    esac
}
role_of() { echo "${1%%[0-9]*}"; }
hosts() { grep "^${1:-}" "$LAB_DIR/hosts.list" 2>/dev/null; }   # all, or those of a role: ctl, lb, cmp
root_of() { echo "$LAB_DIR/hosts/$1/root"; }
api_host() { # where the catalog points
    local h
    h=$(hosts lb)
    echo "${h:-ctl1}"
}

# systemd, PID 1 of a host: the only child of its systemd-nspawn process
leader() { # fails when the host is not running
    local p
    p=$(cat "$LAB_DIR/hosts/$1/nspawn.pid" 2>/dev/null) || return 1
    [ "$(cat "/proc/$p/comm" 2>/dev/null)" = systemd-nspawn ] || return 1
    pgrep -P "$p" | grep -m1 .
}
in_host() { # HOST CMD...: run a command inside a booted host
    local l
    l=$(leader "$1") || { log "$1 is not running"; return 1; }
    shift
    nsenter -t "$l" -m -p -n -u -i -C -- /usr/bin/env -i HOME=/root TERM=dumb LC_ALL=C.UTF-8 \
        PATH=/opt/stack/client-current/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@"
}
os() { in_host ctl1 sh -c '. /root/openrc; exec openstack "$@"' openstack "$@"; }
client_python() { in_host ctl1 /opt/stack/client-current/bin/python3 "$@"; }
wait_for() { # SECONDS WHAT CMD...
    local end what=$2
    end=$((SECONDS + $1))
    shift 2
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $end ] || die "timed out waiting for $what"
        sleep 1
    done
}

# releases/RELEASE: a line "service=requirements" for each venv
services_of() { sed -n 's/^\([a-z]*\)=.*/\1/p' "$LAB_SRC/releases/$1"; }
requirements_of() { # RELEASE SERVICE: what pip is asked for
    echo "$(sed -n "s/^$2=//p" "$LAB_SRC/releases/$1") $EXTRA_DISTS"
}
version_of() { # RELEASE SERVICE: the client has no version of its own here
    [ "$2" = client ] && { echo "$1"; return; }
    sed -n "s/^$2=[^=]*==\([^ ]*\).*/\1/p" "$LAB_SRC/releases/$1"
}
