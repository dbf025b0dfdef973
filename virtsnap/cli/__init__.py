"""The command line of virtsnap: parse, call, print, exit code."""
