pytest_plugins = ["nvml_machines", "run_mscli", "tiny_models"]
