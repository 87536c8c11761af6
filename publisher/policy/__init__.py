"""What the operator lets be published: names, sizes, amounts a day, and room on the disk. All of it is pure."""
