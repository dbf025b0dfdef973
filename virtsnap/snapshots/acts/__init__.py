"""Each kind of step is done and undone here; importing the package is what makes `run` know them."""

from virtsnap.snapshots.acts import loading, native, objects, preparing, ram, saving, tidying

__all__ = ["loading", "native", "objects", "preparing", "ram", "saving", "tidying"]
