"""Network cards and the host's side of them become <interface>."""
