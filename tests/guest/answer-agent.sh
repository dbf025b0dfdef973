#!/bin/sh
# As much of QEMU's guest agent as sets the clock; waits for a virtio port named org.qemu.guest_agent.0.
found=
until [ "$found" ]; do
    for port in /sys/class/virtio-ports/*; do
        [ "$(cat "$port/name" 2>/dev/null)" = org.qemu.guest_agent.0 ] && found=/dev/${port##*/}
    done
    [ "$found" ] || sleep 0.1
done
exec 3<>"$found"
# A read ends while nobody is connected on the host, as after a load: the agent reads on, as QEMU's does.
while :; do
    while IFS= read -r line <&3; do
        number=$(echo "$line" | sed -n 's/.*"\(id\|time\)"[: ]*\([0-9]*\).*/\2/p')
        case $line in
        *guest-sync*) echo "{\"return\": $number}" >&3 ;;
        *guest-set-time*)
            date -u -s "@$((number / 1000000000))" >/dev/null && echo '{"return": {}}' >&3 ;;
        *) echo '{"error": {"class": "CommandNotFound", "desc": "unknown"}}' >&3 ;;
        esac
    done
    sleep 0.1
done
