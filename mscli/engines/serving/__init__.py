"""Servers for engines that are only a Python library: programs that run inside that engine's own environment.

They are started by their path and import nothing of mscli, which is not installed there, and each other by bare names.
They lie in a folder of their own because a script's folder comes first on Python's path: beside `transformers.py` the
library of that name could not be imported.
"""
