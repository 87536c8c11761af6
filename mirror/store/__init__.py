"""What is kept on disk: content-addressed blobs, and which repository names which of them."""
