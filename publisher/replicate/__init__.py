"""Stratum 1: a verified copy of any CVMFS repository, kept current. `replica.replicate` and `follow.follow` are the way in."""
