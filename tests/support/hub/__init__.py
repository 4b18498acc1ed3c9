"""A Hugging Face Hub on loopback: real HTTP in front of the real client libraries, with faults on demand.

It speaks what huggingface_hub and `hf download` ask through HF_ENDPOINT: model metadata, trees, HEAD and GET of files
with the redirect of large ones to signed addresses on another host name, byte ranges, gates, rate limits, and Xet
storage (the real hf_xet on a local store). To serve a folder by hand: `python -m support.hub NAME FOLDER`, in tests/.
"""

from support.hub.faults import Fault
from support.hub.repository import Repository
from support.hub.server import Hub

__all__ = ["Fault", "Hub", "Repository"]
