pytest_plugins = ["nvml_machines", "run_mscli", "releases", "tiny_models", "doctor_site"]
