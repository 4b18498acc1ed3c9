pytest_plugins = [
    "support.machines.nvml_machines",
    "support.run_mscli",
    "support.engines.releases",
    "support.tiny_models",
    "support.doctor.doctor_site",
]
