#!/bin/bash
# inside.sh ROOT EMULATOR SYSROOT SITE   a device: run as root of namespaces of its own, it obeys the lines on its stdin
# plug, unplug: start and kill adbd on 127.0.0.1:5555.   room SIZE: how large the device's /data is.
# adbd gives a root shell to whoever reaches its port, so it never runs outside a network namespace.
set -eu
root=$1 emulator=$2 sysroot=$3 site=$4
ip link set lo up
mount -t binfmt_misc none /proc/sys/fs/binfmt_misc # of this user namespace (Linux 6.7 or later)
printf ':a64:M::%s:%s:%s:PF' '\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00' \
  '\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff' "$emulator" >/proc/sys/fs/binfmt_misc/register
mount --rbind /proc "$root/proc"
mount --rbind /sys "$root/sys"
for folder in dev data tmp doubles; do mount -t tmpfs -o mode=755 tmpfs "$root/$folder"; done
mkdir -p "$root/dev/pts" "$root/data/local/tmp" "$root/data/sdcard"
mount -t devpts -o newinstance,ptmxmode=666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
for node in null zero urandom random; do
  : >"$root/dev/$node"
  mount --bind "/dev/$node" "$root/dev/$node"
done
mount --bind "$sysroot" "$root/opt/python"
mount --bind "$site" "$root/opt/site"
cp "$(dirname "$0")"/doubles/* "$root/doubles/"
chmod 755 "$root"/doubles/*
echo ready
while read -r command argument; do
  case $command in
    plug)
      env -i PATH=/doubles:/usr/bin HOME=/data/local/tmp ADBD_PORT=5555 QEMU_CPU=cortex-a76 \
        "$(command -v chroot)" "$root" /usr/lib/android-sdk/platform-tools/adbd >"$root/tmp/adbd.log" 2>&1 &
      adbd=$!
      for _ in $(seq 200); do
        grep -qs ':15B3 .* 0A ' /proc/net/tcp /proc/net/tcp6 && break
        sleep 0.05
      done
      ;;
    unplug) kill -KILL "$adbd" && wait "$adbd" 2>/dev/null || true ;;
    room) mount -o "remount,size=$argument" "$root/data" ;;
  esac
  echo "done"
done
