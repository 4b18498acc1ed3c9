"""Chat templates that mscli writes for engines whose models lack a fitting one."""
