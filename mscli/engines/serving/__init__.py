"""What stands between clients and an engine, in three parts.

- HTTP: `gateway.py` (the process), `openai_http.py` (clients), `backends.py` (engines).
  Nothing else here knows HTTP, and a test counts their lines.
- `formats/`, `chat_request.py` and `access.py`: what requests and replies are, from dict to dict, without any I/O.
- Programs for engines that are only a Python library (`transformers_server.py`, `mistralrs_server.py`, `worker.py`,
  `mistral_format.py`, and `model_folder.py` before mistral.rs). They run inside that engine's own environment, are
  started by their path and import nothing of mscli, which is not installed there, and each other by bare names.
  They lie in a folder of their own because a script's folder comes first on Python's path: beside `transformers.py`
  the library of that name could not be imported.
"""
