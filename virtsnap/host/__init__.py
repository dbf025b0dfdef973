"""The only place that talks to libvirt, qemu-img and QMP."""
