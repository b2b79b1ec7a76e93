#!/bin/sh
# Makes a folder with a system in it this process's root, and runs a command there. For a process that has namespaces of
# its own (mounts, processes, network); harness/try_system.py starts it so.
# Usage: try_system.sh ROOT COMMAND...
#
# Not by chroot alone: an engine in one can neither import an image ("remount /": its root is no mount point) nor exec
# into a container (setns goes to the namespace's own root, which is another).
set -eu
root=$1
shift
echo unshared
# its way out; who made this process lays it
until [ -e /proc/self/net/dev ] && grep -q tap0 /proc/self/net/dev; do sleep 0.1; done
mount --make-rprivate /
mount --bind "$root" "$root"
cd "$root"
mount -t proc proc proc
mount -t sysfs sysfs sys
mount --rbind /sys/fs/cgroup sys/fs/cgroup
mount --rbind /dev dev
mount -t tmpfs tmpfs run
mkdir -p .before
pivot_root . .before
umount -l /.before
rmdir /.before
cd /root
exec "$@"
