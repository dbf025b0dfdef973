"""Disks: what QEMU describes as a graph of block nodes and a device becomes one <disk>; shared folders too."""
