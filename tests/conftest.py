pytest_plugins = ["nvml_machines"]
