"""Named disk+memory snapshots: plans (pure), their running, engines, housekeeping."""
