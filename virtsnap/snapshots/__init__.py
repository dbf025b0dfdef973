"""Named disk+memory snapshots.

From the request to the deed: `names` (a runner's name ↔ libvirt's), `observe`
(a domain → a `view`), `plan` (request and view → `steps`; pure), `engines`
(ways to revert, each planning its steps), `preflight` (are the files whole),
`lock` (one operation at a time), `run` (steps done and undone), `api` (all of
that in a row). `catalog` is what libvirt's snapshot objects say, `definition`
the XML that is given to libvirt, `places` where files lie.
"""
