"""The checks, by area: an area is a module or a package here; `run` finds it by its name."""
