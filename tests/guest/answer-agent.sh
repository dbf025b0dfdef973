#!/bin/sh
# As much of QEMU's guest agent as sets the clock; needs a virtio port named org.qemu.guest_agent.0.
for port in /sys/class/virtio-ports/*; do
    [ "$(cat "$port/name" 2>/dev/null)" = org.qemu.guest_agent.0 ] && break
done
exec 3<>"/dev/${port##*/}"
while IFS= read -r line <&3; do
    number=$(echo "$line" | sed -n 's/.*"\(id\|time\)"[: ]*\([0-9]*\).*/\2/p')
    case $line in
    *guest-sync*) echo "{\"return\": $number}" >&3 ;;
    *guest-set-time*)
        date -u -s "@$((number / 1000000000))" >/dev/null && echo '{"return": {}}' >&3 ;;
    *) echo '{"error": {"class": "CommandNotFound", "desc": "unknown"}}' >&3 ;;
    esac
done
