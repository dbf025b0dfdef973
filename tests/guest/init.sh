#!/bin/busybox sh
# PID 1 of the test guest: load what the machine has, mount its disk, answer commands on the serial console.
/bin/busybox mkdir -p /proc /sys /dev /run /ram /mnt /tmp /root /sbin /usr/bin /usr/sbin
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs devtmpfs /dev
/bin/busybox mount -t tmpfs tmpfs /run
/bin/busybox mount -t tmpfs tmpfs /ram
export PATH=/bin:/sbin:/usr/bin:/usr/sbin HOME=/root
busybox --install -s
echo 1 > /proc/sys/kernel/sysrq
echo 1 > /proc/sys/kernel/printk
hostname guest
[ ! -d /sys/firmware/efi ] || { modprobe efivarfs; mount -t efivarfs efivarfs /sys/firmware/efi/efivars; }

coldplug
mount-disk || (for _ in 1 2 3 4 5 6 7 8 9 10; do sleep 0.5; coldplug; mount-disk && break; done) &

for tty in ttyS0 hvc0; do
    [ -c "/dev/$tty" ] || continue
    (while :; do setsid -c answer-commands <"/dev/$tty" >"/dev/$tty" 2>/dev/null; sleep 0.2; done) &
done
while :; do wait; sleep 1; done
