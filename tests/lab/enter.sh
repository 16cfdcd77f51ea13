#!/bin/sh
# enter.sh MOUNTPOINT LOWER ARCHIVE HOSTNAME PROGRAM COMMAND [FILE]...
#
# Makes a root of LOWER (this machine's root or a kept one), the packages of ARCHIVE (see layer.sh) and an empty tmpfs for
# all that is written; puts PROGRAM (as index.cgi), COMMAND and every FILE into its /lab, and runs
# /lab/COMMAND there with the arguments in $LAB_ARGUMENTS. Run as the first process of mount, net, uts,
# ipc and pid namespaces of its own: when it ends, however it ends, nothing is left.
set -eu
mountpoint=$1 lower=$2 archive=$3 hostname=$4 program=$5
shift 5

hostname "$hostname"
mount -t tmpfs -o mode=755 lab "$mountpoint"
mkdir "$mountpoint/layer" "$mountpoint/upper" "$mountpoint/work" "$mountpoint/root"

# Unpacked, because an overlay refuses a layer that lies within another of its layers: in "/".
tar --extract --file "$archive" --directory "$mountpoint/layer" --numeric-owner --xattrs --xattrs-include='*'
mkdir "$mountpoint/layer/lab"
cp "$program" "$mountpoint/layer/lab/index.cgi"
cp -R "$@" "$mountpoint/layer/lab/"

cd "$mountpoint"
mount -t overlay -o lowerdir=layer:"$lower",upperdir=upper,workdir=work lab root
mount -t proc proc root/proc
mount -t tmpfs -o mode=755 lab root/run
mount -t tmpfs -o mode=1777 lab root/tmp
mkdir -m 1777 root/run/lock

# What this machine's own mail server, Apache and Bartleby keep stays out of the lab, where one is.
rm -rf root/etc/bartleby.toml root/etc/sudoers.d/bartleby root/var/lib/bartleby root/var/www/bartleby
rm -f root/var/log/mail.log root/var/mail/* root/var/log/apache2/*.log root/etc/apache2/conf-*/bartleby.conf
for spool in postfix mqueue mqueue-client exim4 smtpd; do
    [ ! -d "root/var/spool/$spool" ] || find "root/var/spool/$spool" -xdev -type f -delete
done

# A /dev without this machine's syslog socket and terminals.
mount -t tmpfs -o mode=755 lab root/dev
for device in null zero full random urandom; do
    : > "root/dev/$device"
    mount --bind "/dev/$device" "root/dev/$device"
done
mkdir root/dev/pts root/dev/shm
mount -t devpts -o newinstance,ptmxmode=666,mode=620,gid=5 devpts root/dev/pts
mount -t tmpfs -o mode=1777 lab root/dev/shm
ln -s pts/ptmx root/dev/ptmx
ln -s /proc/self/fd root/dev/fd
ln -s /proc/self/fd/1 root/dev/stdout
ln -s /proc/self/fd/2 root/dev/stderr

# Names come from this file alone; a question to DNS is refused at once.
rm -f root/etc/resolv.conf
echo 'nameserver 127.0.0.1' > root/etc/resolv.conf
printf '127.0.0.1 %s %s localhost\n' "$hostname" "${hostname%%.*}" > root/etc/hosts
echo "$hostname" > root/etc/hostname
echo "$hostname" > root/etc/mailname
sed -i 's/^hosts:.*/hosts: files/' root/etc/nsswitch.conf
chroot root ip link set lo up

# In the background, so that this shell reaps the daemons that outlive their parents.
chroot root "/lab/${1##*/}" $LAB_ARGUMENTS &
wait $!
