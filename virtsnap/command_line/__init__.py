"""QEMU's command line as text: shell words, options, key=value, JSON. Knows nothing of libvirt."""
