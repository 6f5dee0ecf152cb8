# Debian packages around the services' virtual environments, in a signed repository that every host
# sees as file:/opt/wheels/apt. The package of a service is called lab-SERVICE; it has a conffile, and
# a maintainer script that asks for a restart the way Debian's do.
APT_KEY=$LAB_DIR/wheels/apt/lab.gpg

build_deb() { # RELEASE SERVICE
    local rel=$1 s=$2 v deb
    v=$(version_of "$rel" "$s")
    deb=lab-${s}_$v-1_amd64.deb
    [ -e "$LAB_DIR/wheels/apt/$deb" ] && return
    mkdir -p "$LAB_DIR/wheels/apt"
    # a venv of the pool, compiled already, that finds itself at its new place
    in_base env S="$s" V="$v" DEB="$deb" sh -ec '
        d=/opt/deb/$S lib=/usr/lib/lab/$S pool=/opt/pool/$S-$V
        rm -rf "$d"
        mkdir -p "$d/DEBIAN" "$d/usr/lib/lab" "$d/etc/lab"
        cp -a "$pool" "$d$lib"
        grep -lIr "$pool" "$d$lib/bin" "$d$lib/pyvenv.cfg" | xargs -r sed -i "s|$pool|$lib|g"
        echo "# made for $S $V" >"$d/etc/lab/$S.conf"
        echo "/etc/lab/$S.conf" >"$d/DEBIAN/conffiles"
        cat >"$d/DEBIAN/control" <<END
Package: lab-$S
Version: $V-1
Architecture: amd64
Maintainer: lab <lab@localhost>
Depends: python3 (>= 3.11), init-system-helpers
Description: $S $V in a virtual environment
END
        cat >"$d/DEBIAN/postinst" <<END
#!/bin/sh
set -e
ln -sfn $lib /opt/stack/$S-current
units=\$(systemctl list-units --plain --no-legend --state=active "$S-*" 2>/dev/null | cut -d" " -f1)
[ -z "\$units" ] || deb-systemd-invoke restart \$units
END
        chmod 755 "$d/DEBIAN/postinst"
        dpkg-deb --root-owner-group -Znone -b "$d" "/opt/wheels/apt/$DEB"
        rm -rf "$d"'
}
index_debs() { # describe what is there, and sign that
    local d=$LAB_DIR/wheels/apt g=(gpg --homedir "$LAB_DIR/gnupg" --batch --yes --quiet)
    in_base sh -ec 'cd /opt/wheels/apt; apt-ftparchive packages . >Packages; rm -f Release InRelease
        apt-ftparchive -o APT::FTPArchive::Release::Suite=lab release . >Release.new; mv Release.new Release' ||
        return 1
    mkdir -p -m 700 "$LAB_DIR/gnupg"
    [ -e "$APT_KEY" ] || {
        "${g[@]}" --passphrase '' --quick-gen-key lab@localhost ed25519 sign never &&
            "${g[@]}" --export >"$APT_KEY"
    } || return 1
    "${g[@]}" --clearsign -o "$d/InRelease" "$d/Release"
}
build_debs() { # RELEASE
    local s
    for s in $(services_of "$1"); do
        [ "$s" = client ] || build_deb "$1" "$s" || return 1
    done
    index_debs
}

deb_host() { # HOST: from now on its services come from packages, and strategy `package` may upgrade them
    local h=$1 r s debs=()
    r=$(root_of "$h")
    echo "deb [signed-by=/opt/wheels/apt/lab.gpg] file:/opt/wheels/apt ./" >"$r/etc/apt/sources.list"
    echo force-unsafe-io >"$r/etc/dpkg/dpkg.cfg.d/lab"
    for s in $(cd "$r/opt/stack" && ls -d -- *-current | sed 's/-current//'); do
        case $s in client | upgrade-service) ;; *) debs+=("lab-$s=$(version_of "$RELEASE" "$s")-1") ;; esac
    done
    in_host "$h" sh -ec 'apt-get update -qq; DEBIAN_FRONTEND=noninteractive apt-get install -qqy "$@"' apt "${debs[@]}" \
        >>"$LAB_DIR/apt.log" 2>&1 || return 1
    for s in "${debs[@]%%=*}"; do
        echo '# the operator wrote this' >>"$r/etc/lab/${s#lab-}.conf"
    done
    [ -d "$r/etc/upgrade-service/engine.d" ] || return 0
    rm -f "$r/etc/upgrade-service/engine.d/source.yaml"
    install -m 600 "$LAB_SRC/files/packages/package.yaml" "$r/etc/upgrade-service/engine.d/package.yaml"
    in_host "$h" systemctl restart upgrade-service-engine
}
deb_hosts() {
    local h jobs=()
    for h in $(hosts ctl; hosts cmp); do
        deb_host "$h" &
        jobs+=($!)
    done
    for h in "${jobs[@]}"; do
        wait "$h" || return 1
    done
}
