"""squashfs images read without mounting them: superblock, tables, inodes, content; then as a tree with stored objects.

Source of all rules of the format: squashfs 4.0 as the Linux kernel has it (Documentation/filesystems/squashfs.rst, fs/squashfs).
"""
