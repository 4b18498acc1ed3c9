"""mscli: run Mistral Small 3.1 24B and Magistral Small on your own GPUs."""

__version__ = "0.1.0"
