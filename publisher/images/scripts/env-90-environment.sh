# Empty. An image's own environment is in 10-docker2singularity.sh.
