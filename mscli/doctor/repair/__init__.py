"""What `mscli doctor --fix` may change."""
