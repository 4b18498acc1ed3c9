"""What mscli doctor looks at on a machine: one module of checks per area, and how they are run."""
