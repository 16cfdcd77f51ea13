#!/bin/sh
# tools.sh COMMAND [ARGUMENT]...
#
# Runs a command where the tools of the tests are: those that this machine has, and, as root on Debian, those that it
# lacks. They are installed over this machine's root into target/tools, once, and lie over its /usr and /etc for
# this command alone, which can write to neither: nothing is installed on the machine. Elsewhere, the tests say what they skip.
set -eu
cd "$(dirname "$0")/.."
tools=$PWD/target/tools

packages=
while read -r program package; do
    command -v "$program" >/dev/null || packages="$packages $package"
done <<END
java default-jre-headless
npm npm
mandoc mandoc
promtool prometheus
chromium chromium
debootstrap debootstrap
dpkg-buildpackage dpkg-dev
dh debhelper
lintian lintian
systemd-analyze systemd
pgrep procps
curl curl
END

# give_up REASON: goes on without, or fails where all of the tools are required.
give_up() {
    echo "*** The tools of the tests are NOT installed, and what needs them is SKIPPED: $1 ***" >&2
    [ "${BARTLEBY_LAB-}" != required ] || exit 1
}

if [ "$1" = --inside ]; then
    shift
    # A file that is mounted on /etc is there above the layer, too.
    mount -t overlay -o "lowerdir=$tools/layer/usr:/usr" tools /usr
    mount -t overlay -o "lowerdir=$tools/layer/etc:/etc" tools "$tools/mountpoint"
    for file in resolv.conf hosts hostname; do
        ! mountpoint -q "/etc/$file" || mount --bind "/etc/$file" "$tools/mountpoint/$file"
    done
    mount --move "$tools/mountpoint" /etc
elif [ -n "$packages" ] && { [ "$(id -u)" != 0 ] || [ ! -e /etc/debian_version ]; }; then
    give_up "not root on Debian, and these packages are missing:$packages"
elif [ -n "$packages" ]; then
    # A layer lies over the packages of a root.
    made="$packages $(cat /var/lib/dpkg/status tests/lab/layer.sh | cksum)"
    mkdir -p "$tools/mountpoint"
    if [ "$(cat "$tools/made" 2>/dev/null)" != "$made" ]; then
        rm -rf "$tools/layer" "$tools/made"
        mkdir "$tools/layer"
        echo "The tools of the tests are installed into target/tools:$packages"
        if sh tests/lab/layer.sh "$tools/mountpoint" / "$tools/layer.tar" "$(hostname)" $packages >"$tools/log" 2>&1; then
            tar --extract --file "$tools/layer.tar" --directory "$tools/layer" --numeric-owner --xattrs --xattrs-include='*'
            # The names that the machine knows are its own.
            rm -rf "$tools/layer.tar" "$tools/layer/etc/resolv.conf" "$tools/layer/etc/hosts"
            echo "$made" >"$tools/made"
        else
            tail -n 20 "$tools/log" >&2
            give_up "the packages could not be installed (target/tools/log)"
        fi
    fi
    [ ! -e "$tools/made" ] || exec unshare --mount sh tests/tools.sh --inside "$@"
fi

# The HTML validator, and what tells of pages that not everybody can use.
for package in vnu=vnu-jar axe=axe-core; do
    folder=target/${package%=*} name=${package#*=}
    [ -d "$folder/node_modules/$name" ] || ! command -v npm >/dev/null ||
        npm install --no-audit --no-fund --loglevel=error --prefix "$folder" "$name" || give_up "npm can't bring $name"
done
exec "$@"
