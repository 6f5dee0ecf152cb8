# A Debian package around one service's venv, in a repository that every host sees as
# file:/opt/wheels/apt. The package is called lab-SERVICE.
build_deb() { # RELEASE SERVICE
    local rel=$1 s=$2 v
    v=$(version_of "$rel" "$s")
    build_wheels "$rel" || return 1
    mkdir -p "$LAB_DIR/wheels/apt"
    in_base env REL="$rel" S="$s" V="$v" WANTED="$(requirements_of "$rel" "$s")" sh -ec '
        d=/opt/deb/$S lib=/usr/lib/lab/$S
        rm -rf /opt/deb "$lib"
        mkdir -p "$d/DEBIAN" "$d/usr/lib/lab" /usr/lib/lab
        python3 -m venv --without-pip "$lib"
        uv pip install -q --python "$lib/bin/python3" --no-index --find-links "/opt/wheels/$REL" \
            -c "/opt/wheels/$REL/upper-constraints.txt" $WANTED
        mv "$lib" "$d/usr/lib/lab/"
        cat >"$d/DEBIAN/control" <<END
Package: lab-$S
Version: $V-1
Architecture: amd64
Maintainer: lab <lab@localhost>
Depends: python3 (>= 3.11)
Description: $S $V in a virtual environment
END
        cat >"$d/DEBIAN/postinst" <<END
#!/bin/sh
set -e
ln -sfn $lib /opt/stack/$S-current
systemctl list-units --plain --no-legend --state=active "$S-*" | cut -d" " -f1 | xargs -r systemctl restart
END
        chmod 755 "$d/DEBIAN/postinst"
        dpkg-deb --root-owner-group -Zgzip -z1 -b "$d" "/opt/wheels/apt/lab-${S}_$V-1_amd64.deb"
        rm -rf /opt/deb
        cd /opt/wheels/apt
        apt-ftparchive packages . >Packages
        apt-ftparchive release . >Release'
}
