"""The commands of `t2ictl`, a file each."""
