"""`mscli doctor`: checks of this machine, repairs of what is ours, and a report for others without private data."""
