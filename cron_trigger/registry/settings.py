"""Settings."""

from __future__ import annotations

import ipaddress
import os
import re
import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple, Union

from cron_trigger import HOME, SERVICE
from cron_trigger.registry.crons import VARIABLE_NAME
from cron_trigger.registry.errors import ConfigError
from cron_trigger.registry.texts import printable


@dataclass(frozen=True)
class Settings:
    """All that the environment and the flags decide.  Paths are absolute."""

    registry: Path
    log_dir: Path
    state_dir: Path
    run_dir: Path
    host: str = "0.0.0.0"
    port: int = 9998
    secret: Optional[bytes] = None
    allow: Tuple[Union[ipaddress.IPv4Network, ipaddress.IPv6Network], ...] = ()
    allowed_hosts: Tuple[str, ...] = ()
    allowed_origins: Tuple[str, ...] = ()
    history_days: int = 90
    notify_url: Optional[str] = None

    @property
    def history(self) -> Path:
        return self.state_dir / "history.db"

    def pid_file(self, cron_name: str) -> str:
        return f"{self.run_dir}/{cron_name}.pid"


#: What systemd reads the service's settings from.
ENVIRONMENT_FILE = Path("/etc/default") / SERVICE


def environment_file(path: Path = ENVIRONMENT_FILE) -> Dict[str, str]:
    """Return the variables that the service is started with; nothing if unreadable."""
    try:
        lines = path.read_text("utf-8", "replace").splitlines()
    except OSError:
        return {}
    pairs = (line.strip().split("=", 1) for line in lines if "=" in line)
    return {
        key: value.strip().strip("\"'")
        for key, value in pairs
        if VARIABLE_NAME.fullmatch(key)
    }


def service_variables() -> Dict[str, str]:
    """Return what the service's scripts find around them, beside their own.

    For root's server and root's `run` alike; an ordinary user's has its own variables.
    """
    return environment_file() if os.geteuid() == 0 else {}


def read_settings(flags: Mapping[str, Any], environ: Mapping[str, str]) -> Settings:
    """Return the settings, flags before environment; else ConfigError."""

    def given(name: str) -> Optional[str]:
        value = flags.get(name)
        return (
            value if value is not None else environ.get(f"CRON_TRIGGER_{name.upper()}")
        )

    def folder(name: str, default: Callable[[], Path]) -> Path:
        return Path(os.path.abspath(given(name) or default()))

    root = os.geteuid() == 0
    state = environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    user_state = Path(state) / SERVICE
    runtime = environ.get("XDG_RUNTIME_DIR")
    state_dir = folder(
        "state_dir", lambda: Path("/var/lib") / SERVICE if root else user_state
    )
    user_run = Path(runtime) / SERVICE if runtime else state_dir / "run"
    return Settings(
        registry=_registry_path(given("registry")),
        log_dir=folder(
            "log_dir", lambda: Path("/var/log/qadhya") if root else user_state / "log"
        ),
        state_dir=state_dir,
        run_dir=folder("run_dir", lambda: Path("/run") / SERVICE if root else user_run),
        host=given("host") or "0.0.0.0",
        port=number_setting("CRON_TRIGGER_PORT", given("port") or "9998", 0, 65535),
        secret=_secret(given("secret"), given("secret_file"), environ),
        allow=_networks(given("allow")),
        allowed_hosts=_hosts(given("allowed_hosts")),
        allowed_origins=_origins(given("allowed_origins")),
        history_days=number_setting(
            "CRON_TRIGGER_HISTORY_DAYS", given("history_days") or "90", 1, 36500
        ),
        notify_url=_notify_url(given("notify_url")),
    )


def _registry_path(given: Optional[str]) -> Path:
    if given:
        path = Path(os.path.abspath(given))
        if not path.is_file():
            what = "no file" if path.exists() else "not there"
            raise ConfigError(
                f"CRON_TRIGGER_REGISTRY must name a registry file, got {path}, which "
                f"is {what}: create it, or leave the setting out."
            )
        return path
    system = Path("/etc") / SERVICE / "crons.json"
    if system.exists():
        return system
    return HOME / "crons.json"


def number_setting(name: str, text: str, low: int, high: int) -> int:
    if re.fullmatch(r"\d{1,9}", text, re.ASCII) and low <= int(text) <= high:
        return int(text)
    raise ConfigError(
        f'{name} must be a whole number from {low} to {high}, got "{printable(text)}".'
    )


def _items(text: Optional[str]) -> List[str]:
    return (
        re.split(r"[\s,]+", text.strip(" ,\t\n")) if text and text.strip(", ") else []
    )


DEFAULT_ALLOW = "127.0.0.0/8 ::1 172.16.0.0/12"


def _networks(
    text: Optional[str],
) -> Tuple[Union[ipaddress.IPv4Network, ipaddress.IPv6Network], ...]:
    networks = []
    for item in _items(text if text is not None else DEFAULT_ALLOW):
        try:
            networks.append(ipaddress.ip_network(item))
        except ValueError as error:
            raise ConfigError(
                "CRON_TRIGGER_ALLOW must be a list of networks such as "
                f'"127.0.0.0/8 172.16.0.0/12", got "{printable(item)}" ({error}).'
            ) from None
    if not networks:
        raise ConfigError(
            "CRON_TRIGGER_ALLOW must name at least one network, such as 127.0.0.0/8."
        )
    return tuple(networks)


def _hosts(text: Optional[str]) -> Tuple[str, ...]:
    for item in _items(text):
        if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,252})", item):
            raise ConfigError(
                "CRON_TRIGGER_ALLOWED_HOSTS must be a list of names without a port, "
                f'such as "crons.example.org", got "{printable(item)}".'
            )
    return tuple(_items(text))


def _origins(text: Optional[str]) -> Tuple[str, ...]:
    for item in _items(text):
        if not re.fullmatch(r"https?://[^/?#\s]+", item):
            raise ConfigError(
                "CRON_TRIGGER_ALLOWED_ORIGINS must be a list of origins such as "
                f'"https://admin.example.org", got "{printable(item)}".'
            )
    return tuple(_items(text))


def _notify_url(text: Optional[str]) -> Optional[str]:
    if not text:
        return None
    try:
        url = urllib.parse.urlsplit(text)
        held = url.scheme in ("http", "https") and url.hostname and (url.port or 1)
    except ValueError:
        held = False
    if not held or not text.isascii() or not text.isprintable() or " " in text:
        raise ConfigError(
            "CRON_TRIGGER_NOTIFY_URL must be an http or https address, got "
            f'"{printable(text, 80)}".'
        )
    return text


def _secret(
    given: Optional[str], file: Optional[str], environ: Mapping[str, str]
) -> Optional[bytes]:
    """Return the secret of the setting, the file, or systemd's LoadCredential=."""
    credential = Path(environ.get("CREDENTIALS_DIRECTORY", "/nonexistent")) / "secret"
    if given is not None:
        secret = os.fsencode(given)
    elif file is not None or credential.exists():
        path = Path(file) if file is not None else credential
        try:
            secret = path.read_bytes().rstrip(b"\r\n")
        except OSError as error:
            raise ConfigError(
                "CRON_TRIGGER_SECRET_FILE must name a file to read, got "
                f'"{printable(str(path) if file != "" else "")}" ({error.strerror}).'
            ) from None
    else:
        return None
    if secret in (b"", b"change-me"):
        raise ConfigError(
            "CRON_TRIGGER_SECRET must not be empty or change-me: make one with "
            "openssl rand -hex 32, or leave the setting out."
        )
    if secret != secret.strip() or any(byte < 32 or byte == 127 for byte in secret):
        raise ConfigError(
            "CRON_TRIGGER_SECRET must not begin or end with a space or hold control "
            "characters, which no header can carry: make one with openssl rand -hex 32."
        )
    return secret
