"""What every test may use, and what holds for all of them."""

import signal

from hypothesis import HealthCheck, settings

# On a busy machine an example may take any time: that is no fault of what is tested.
# A fixture that all examples share is what a property of one home, server or folder needs.
settings.register_profile(
    "busy machine",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("busy machine")

pytest_plugins = [
    "support.machines.nvml_machines",
    "support.run_mscli",
    "support.engines.releases",
    "support.tiny_models",
    "support.doctor.doctor_site",
]


def pytest_configure() -> None:
    """A shell that starts pytest with `&` leaves SIGINT ignored, and all that tests start would inherit it."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
