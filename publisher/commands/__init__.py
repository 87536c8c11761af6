"""The verbs of `debark-publisher`, one a module, in the habit of `cvmfs_server <verb> [options] <fqrn>`.

They read settings and keys from where a running publisher does, and take the same locks, so both are safe side by side.
"""
