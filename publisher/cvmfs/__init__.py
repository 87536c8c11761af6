"""The CVMFS repository format: hashes, catalogs, manifest, whitelist, signatures, history, reflog."""
