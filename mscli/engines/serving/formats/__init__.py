"""What clients and engines send, in terms of OpenAI's chat completions: from dict to dict, without any I/O."""
