"""Words that argv does not hold: what QEMU adds, what a configuration file or the environment says."""
