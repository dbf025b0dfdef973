"""virsh's snapshot verbs, spoken as virsh speaks them: its syntax, its output, its exit codes.

`syntax` and `verbs` read the words, `text` writes what virsh writes, `session`
runs one command after another; `reading` and `changing` are the verbs. `front`
is the command `virtsnap-virsh`, which stands in front of the real virsh.
"""
