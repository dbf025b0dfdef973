"""What goes to QEMU as it stands, because libvirt has no word for it."""
