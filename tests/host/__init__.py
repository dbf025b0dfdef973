"""Tests that run on a real libvirtd, a private one of theirs, and the parts that provide it."""
