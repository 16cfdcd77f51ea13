#!/bin/sh
# layer.sh MOUNTPOINT LOWER ARCHIVE HOSTNAME [?]PACKAGE...
#
# Installs Debian packages over the root LOWER (this machine's or a kept one) without touching it, and writes what they
# added or changed to ARCHIVE. It happens in mount, uts and pid namespaces: what is mounted there,
# and any process that a package started, ends with them. The network is the machine's. A package behind a "?" is
# installed where the release has it.
set -eu
mountpoint=$1 lower=$2 archive=$3 hostname=$4

# Outside: what LOWER's own apt has half done is no ground to build on, so it is waited for, and where it began meanwhile, tried again.
# Its locks are those of its files (proc_locks(5)).
at_work() {
    for lock in lock-frontend lock; do
        inode=$(stat --format=%i "$lower/var/lib/dpkg/$lock" 2>/dev/null) || continue
        ! grep -q ":$inode " /proc/locks || return 0
    done
    return 1
}
if [ -z "${LAYER_INSIDE-}" ]; then
    for attempt in 1 2 3; do
        waited=0
        while at_work && [ $waited -lt 300 ]; do
            [ $waited != 0 ] || echo "layer.sh: waits for the apt that works on $lower" >&2
            waited=$((waited + 1))
            sleep 1
        done
        ! LAYER_INSIDE=yes setpriv --pdeathsig KILL unshare --mount --uts --pid --fork --kill-child --mount-proc sh "$0" "$@" ||
            exit 0
        echo "layer.sh: attempt $attempt failed" >&2
    done
    exit 1
fi
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
{ cat /etc/hosts 2>/dev/null || true; echo "127.0.0.1 $hostname ${hostname%%.*}"; } > root/etc/hosts

# No package starts its daemon (invoke-rc.d(8)).
printf '#!/bin/sh\nexit 101\n' > root/usr/sbin/policy-rc.d
chmod 755 root/usr/sbin/policy-rc.d

apt() { chroot root env LC_ALL=C DEBIAN_FRONTEND=noninteractive apt-get -q -y "$@"; }
install() { apt install --no-install-recommends "$@"; }

# What was interrupted on the machine is brought to its end here.
chroot root env DEBIAN_FRONTEND=noninteractive dpkg --configure -a

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
