"""Where things live. The only module that reads the environment for places.

MSCLI_HOME puts everything below one folder; without it the XDG folders are used.
Nothing is created here: whoever writes a file makes its folder.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from mscli.errors import Code, MscliError
from mscli.frozen import frozen

PYPI = "https://pypi.org/simple"
MARK = "MSCLI_INSTANCE"
"""The variable that every process of an instance carries in its environment."""


@frozen
class Places:
    """The folders of one user's mscli."""

    config: Path
    state: Path
    data: Path

    @property
    def profiles(self) -> Path:
        """User profiles (`*.yaml`, and `models/*.yaml`), which override shipped ones of the same name."""
        return self.config / "profiles"

    @property
    def defaults(self) -> Path:
        """The user's defaults for options, one `key: value` each."""
        return self.config / "config.yaml"

    @property
    def instances(self) -> Path:
        """One folder per named instance: its record, log, key and temporary files."""
        return self.state / "instances"

    @property
    def pins(self) -> Path:
        """Repository -> commit, for repositories that were moved on purpose."""
        return self.config / "revisions.json"

    @property
    def history(self) -> Path:
        """Line history of the chat REPL."""
        return self.state / "chat_history"

    @property
    def conversations(self) -> Path:
        """The database of what was said in `mscli chat`."""
        return self.state / "conversations.db"

    @property
    def observations(self) -> Path:
        """What earlier starts took, for the planner to learn from."""
        return self.state / "observations.jsonl"

    @property
    def healed(self) -> Path:
        """What had to be changed so that engines start here."""
        return self.state / "healed.jsonl"

    @property
    def starts(self) -> Path:
        """How long earlier starts took, for the next to be told."""
        return self.state / "starts.jsonl"

    @property
    def parsed(self) -> Path:
        """The catalogue's files as they were parsed, for quicker starts. May be removed."""
        return self.state / "parsed"

    @property
    def ollama(self) -> Path:
        """What mscli's own Ollama servers share: the key, caches, and `models`, where fetched weights lie once."""
        return self.data / "ollama"

    @property
    def engines(self) -> Path:
        """Engines that mscli itself installed."""
        return self.data / "engines"


def places(env: Mapping[str, str] | None = None) -> Places:
    """The folders in force for `env` (default: this process's environment). Touches no disk."""
    env = os.environ if env is None else env
    if home := env.get("MSCLI_HOME"):
        root = expanded(home).absolute()
        return Places(root / "config", root / "state", root / "data")
    user = _home(env)
    xdg = {
        "config": env.get("XDG_CONFIG_HOME") or user / ".config",
        "state": env.get("XDG_STATE_HOME") or user / ".local" / "state",
        "data": env.get("XDG_DATA_HOME") or user / ".local" / "share",
    }
    return Places(*(Path(xdg[kind]) / "mscli" for kind in ("config", "state", "data")))


def vllm_place(env: Mapping[str, str] | None = None) -> Path | None:
    """The vLLM that the user names in MSCLI_VLLM: its program, or the folder of its Python environment. None: none."""
    return _named("MSCLI_VLLM", env)


def transformers_place() -> Path | None:
    """The Python environment with Transformers that the user names in MSCLI_TRANSFORMERS. None: none."""
    return _named("MSCLI_TRANSFORMERS")


def mistralrs_place() -> Path | None:
    """The mistral.rs that the user names in MSCLI_MISTRALRS: its program, or the folder of the Python environment that
    has its wheel. None: none."""
    return _named("MSCLI_MISTRALRS")


# What tells the clients of Docker and Podman which engine to speak to, and how.
_CONTAINER_SETTINGS = (
    "DOCKER_HOST",
    "DOCKER_CONTEXT",
    "DOCKER_CONFIG",
    "DOCKER_CERT_PATH",
    "DOCKER_TLS_VERIFY",
    "DOCKER_API_VERSION",
    "CONTAINER_HOST",
    "CONTAINERS_CONF",
    "CONTAINERS_STORAGE_CONF",
    "XDG_RUNTIME_DIR",
)


def container_client(env: Mapping[str, str] | None = None) -> str | None:
    """The client that the user names in MSCLI_CONTAINER_ENGINE: docker, podman, or the path of one. None: none."""
    return (os.environ if env is None else env).get("MSCLI_CONTAINER_ENGINE") or None


def container_settings(env: Mapping[str, str] | None = None) -> dict[str, str]:
    """The variables that are set, of those that tell a container client which engine to speak to."""
    env = os.environ if env is None else env
    return {name: env[name] for name in _CONTAINER_SETTINGS if env.get(name)}


def container_environment(settings: Mapping[str, str], env: Mapping[str, str] | None = None) -> dict[str, str]:
    """`env` (default: this process's environment) for a container client, with `settings` in place of its own of that
    kind."""
    env = os.environ if env is None else env
    return {**{name: value for name, value in env.items() if name not in _CONTAINER_SETTINGS}, **settings}


def _named(variable: str, env: Mapping[str, str] | None = None) -> Path | None:
    named = (os.environ if env is None else env).get(variable)
    return expanded(named).absolute() if named else None


def releases(engine: str, publisher: str, env: Mapping[str, str] | None = None) -> str:
    """Where an engine's releases lie: at the address that MSCLI_OLLAMA_RELEASES, MSCLI_LLAMACPP_RELEASES or
    MSCLI_MISTRALRS_RELEASES gives (a company's mirror, laid out as the publisher's), else at `publisher`."""
    variable = f"MSCLI_{engine.replace('.', '').upper()}_RELEASES"
    return ((os.environ if env is None else env).get(variable) or publisher).rstrip("/")


def package_index(installer: str) -> str:
    """The Python package index that the environment gives `installer` (uv or pip; the one does not read the other's
    variables), else PyPI. Their configuration files are not read."""
    names = ("UV_DEFAULT_INDEX", "UV_INDEX_URL") if installer == "uv" else ("PIP_INDEX_URL",)
    found = (address for name in names if (address := os.environ.get(name)))
    named = next(found, PYPI)
    name, _, address = named.partition("=")  # uv takes `name=https://...`
    return (named if "/" in name else address).rstrip("/")


def hub_cache(env: Mapping[str, str] | None = None) -> Path:
    """The Hugging Face cache folder, by the hub's own rules (HF_HUB_CACHE, HF_HOME, XDG_CACHE_HOME)."""
    env = os.environ if env is None else env
    if cache := env.get("HF_HUB_CACHE") or env.get("HUGGINGFACE_HUB_CACHE"):  # the second is its older name
        return expanded(cache)
    if home := env.get("HF_HOME"):
        return expanded(home) / "hub"
    base = env.get("XDG_CACHE_HOME") or _home(env) / ".cache"
    return Path(base) / "huggingface" / "hub"


def hub_token_file(env: Mapping[str, str] | None = None) -> Path:
    """The file in which `hf auth login` keeps the token (HF_TOKEN_PATH, HF_HOME, XDG_CACHE_HOME)."""
    env = os.environ if env is None else env
    if named := env.get("HF_TOKEN_PATH"):
        return expanded(named)
    base = env.get("XDG_CACHE_HOME") or _home(env) / ".cache"
    return expanded(env.get("HF_HOME") or Path(base) / "huggingface") / "token"


def user_units() -> Path:
    """Where the user's systemd looks for units that the user has written."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or _home(os.environ) / ".config") / "systemd" / "user"


def lm_studio_folders() -> tuple[Path, ...]:
    """Where LM Studio keeps models as <publisher>/<repository>/<file>: its folder of today, then the older one."""
    user = _home(os.environ)
    return user / ".lmstudio" / "models", user / ".cache" / "lm-studio" / "models"


def expanded(path: str | Path) -> Path:
    """A path that a user wrote, with its `~` in full. Raises MscliError(USAGE) for the home of a user that does not
    exist."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise MscliError(Code.USAGE, f"'{path}': there is no such user", "give the full path") from error


def _home(env: Mapping[str, str]) -> Path:
    """This user's folder. Raises MscliError(USAGE) in a container whose user has no entry and no HOME."""
    if named := env.get("HOME"):
        return Path(named)
    try:
        return Path.home()
    except RuntimeError as error:
        raise MscliError(Code.USAGE, "this user has no home folder", "set HOME, or MSCLI_HOME") from error


def on_path(program: str, path: str | None = None) -> str | None:
    """The program as a shell finds it in `path` (default: this process's PATH); None where it is not there.

    `shutil.which` does the same, and its module takes 3 ms of every start.
    """
    told = os.environ.get("PATH", os.defpath) if path is None else path
    for folder in [""] if "/" in program else told.split(":") if told else []:
        place = Path(folder, program)
        if place.is_file() and os.access(place, os.X_OK):
            return str(place.absolute())
    return None


def shipped_profiles() -> Path:
    """The folder of the profiles that come with mscli: inside the package when installed, beside it in a checkout."""
    package = Path(__file__).resolve().parent
    installed = package / "profiles"
    return installed if installed.is_dir() else package.parent / "profiles"
