"""Objects of a repository: where they live, and the pipeline that compresses, hashes and stores content."""
