#!/bin/sh
# layer.sh MOUNTPOINT LOWER ARCHIVE HOSTNAME [?]PACKAGE...
#
# Installs Debian packages over the root LOWER (this machine's or a kept one) without touching it, and writes what they
# added or changed to ARCHIVE. Run in mount, uts and pid namespaces of its own: what is mounted here,
# and any process that a package started, ends with them. The network is the machine's. A package behind a "?" is
# installed where the release has it.
set -eu
mountpoint=$1 lower=$2 archive=$3 hostname=$4
shift 4

wishes=
for package; do
    shift
    case $package in
        "?"*) wishes="$wishes ${package#?}" ;;
        *) set -- "$@" "$package" ;;
    esac
done

hostname "$hostname"
mount -t tmpfs -o mode=755 lab "$mountpoint"
cd "$mountpoint"
mkdir upper work root
mount -t overlay -o lowerdir="$lower",upperdir=upper,workdir=work,redirect_dir=off,metacopy=off lab root
mount -t proc proc root/proc
mount --rbind /dev root/dev
mount -t tmpfs -o mode=755 lab root/run
mount -t tmpfs -o mode=1777 lab root/tmp

# resolv.conf is a link into /run on many machines. Without its own name in the other file, sendmail's
# installation asks DNS for a minute.
rm -f root/etc/resolv.conf root/etc/hosts
cat /etc/resolv.conf > root/etc/resolv.conf 2>/dev/null || true
{ cat /etc/hosts; echo "127.0.0.1 $hostname ${hostname%%.*}"; } > root/etc/hosts

# No package starts its daemon (invoke-rc.d(8)).
printf '#!/bin/sh\nexit 101\n' > root/usr/sbin/policy-rc.d
chmod 755 root/usr/sbin/policy-rc.d

apt() { chroot root env LC_ALL=C DEBIAN_FRONTEND=noninteractive apt-get -q -y "$@"; }
install() { apt install --no-install-recommends "$@"; }

# The second try is for package lists that are missing or out of date.
install "$@" || { apt update && install "$@"; }
for wish in $wishes; do
    [ -z "$(chroot root apt-cache show "$wish" 2>/dev/null)" ] || install "$wish"
done

# An overlay's marks for "this folder hides the one below" are extended attributes.
tar --create --file "$archive.new" --directory upper --xattrs \
    --xattrs-include=trusted.overlay.opaque --xattrs-include=security.capability \
    --exclude=./var/cache/apt --exclude=./var/lib/apt/lists --exclude=./usr/sbin/policy-rc.d .
mv "$archive.new" "$archive"
