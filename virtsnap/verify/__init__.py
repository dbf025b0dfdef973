"""The hardware of a stopped machine, read over QMP; two of them compared."""
