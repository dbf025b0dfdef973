"""The domain outside <devices>: machine, CPU, memory, boot, clock, and what QEMU's process itself is told."""
