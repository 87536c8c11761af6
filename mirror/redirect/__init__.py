"""Sending clients elsewhere for blobs: to web servers that hold the CVMFS repositories, once they are seen to serve them."""
