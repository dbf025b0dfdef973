"""Where a device sits: PCI, USB, channel I/O, and the controllers that make the buses."""
