"""The tests of virtsnap, and what they stand on: a guest, a private libvirtd, the fixtures."""
