"""What goes wrong: one test for each row of the fault matrix in docs/snapshots.md."""
