"""What `mscli doctor --report` writes, without secrets and names."""
