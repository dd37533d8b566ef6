"""Settings: all that the environment and the flags decide, checked once at the start.

Knows each setting's default, its form, and the sentence that says what is wrong with a
value.  Promises that Settings hold: paths are absolute, addresses parse, the secret is
a good one; else ConfigError, which ends the start with exit status 78.  Knows as well
the file that systemd has them from, and a name that is one misspelt.  Called by the
command line and doctor; Settings never change, so that any thread may read them.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
import stat
import urllib.parse
from pathlib import Path
from typing import (
    Any,
    Callable,
    Iterator,
    Mapping,
    NamedTuple,
    Optional,
    TypeVar,
    Union,
)

from cron_trigger import HOME, SERVICE
from cron_trigger.registry.crons import VARIABLE_NAME
from cron_trigger.registry.errors import ConfigError
from cron_trigger.registry.secret import read_secret
from cron_trigger.registry.texts import nearest, printable, whole_number

T = TypeVar("T")
Network = Union[ipaddress.IPv4Network, ipaddress.IPv6Network]
LOOPBACK: tuple[Network, ...] = (
    ipaddress.IPv4Network("127.0.0.0/8"),
    ipaddress.IPv6Network("::1/128"),
)


#: Each setting with what it is; a variable CRON_TRIGGER_<NAME>, and a flag.
SETTINGS = {
    "host": "address to listen on (all interfaces)",
    "port": "port to listen on (9998; 0 picks a free one)",
    "secret": "secret that requests must carry (visible in ps: prefer --secret-file)",
    "secret-file": "file that holds the secret",
    "allow": "networks that may connect, beside loopback (this host's containers)",
    "allowed-hosts": "further names for the Host header",
    "allowed-origins": "origins whose pages may call",
    "history-days": "days that the history keeps (90)",
    "registry": "registry file (that of /etc, else crons.json beside the program)",
    "log-dir": "folder of the logs",
    "state-dir": "folder of the history",
    "run-dir": "folder of the PID files",
    "notify-url": "address that gets a POST at the end of each run",
}
#: What no two servers of a host may share.
OF_A_SERVER = (
    "CRON_TRIGGER_RUN_DIR, CRON_TRIGGER_STATE_DIR, CRON_TRIGGER_LOG_DIR, "
    "CRON_TRIGGER_PORT and CRON_TRIGGER_REGISTRY"
)
#: What else begins so: set for scripts, and for clients of a server.
OTHERS = ("CRON_TRIGGER_URL", "CRON_TRIGGER_SERVER_URL")
#: What systemd reads the service's settings from.
ENVIRONMENT_FILE = Path("/etc/default") / SERVICE
#: Where an installed service has its registry, and its secret.
SERVICE_FOLDER = Path("/etc") / SERVICE


class Settings(NamedTuple):
    """All that the environment and the flags decide.  Paths are absolute."""

    registry: Path
    log_dir: Path
    state_dir: Path
    run_dir: Path
    host: str = "::"
    port: int = 9998
    secret: Optional[bytes] = None
    #: Who may connect, loopback among them; None: loopback and this host's containers.
    allow: Optional[tuple[Network, ...]] = None
    allowed_hosts: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    history_days: int = 90
    notify_url: Optional[str] = None

    @property
    def history(self) -> Path:
        return self.state_dir / "history.db"

    @property
    def kept_registry(self) -> Path:
        return self.state_dir / "registry-last-good.json"

    def pid_file(self, cron_name: str) -> str:
        return f"{self.run_dir}/{cron_name}.pid"


def read_settings(flags: Mapping[str, Any], environ: Mapping[str, str]) -> Settings:
    """Return the settings, flags before environment; else ConfigError."""

    def given(name: str) -> Optional[str]:
        flag = flags.get(name)
        return environ.get(variable_of(name)) if flag is None else flag

    def folder(name: str, roots: Path, users: Path) -> Path:
        default = roots if os.geteuid() == 0 else users
        return _whole_path(name, str(given(name) or default))

    state = environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    user_state = Path(state) / SERVICE
    state_dir = folder("state_dir", Path("/var/lib") / SERVICE, user_state)
    runtime = environ.get("XDG_RUNTIME_DIR")
    user_run = Path(runtime) / SERVICE if runtime else state_dir / "run"
    return Settings(
        registry=_registry_path(given("registry")),
        log_dir=folder("log_dir", Path("/var/log/qadhya"), user_state / "log"),
        state_dir=state_dir,
        run_dir=folder("run_dir", Path("/run") / SERVICE, user_run),
        host=given("host") or all_interfaces(),
        port=number_setting("CRON_TRIGGER_PORT", given("port") or "9998", 0, 65535),
        secret=read_secret(given("secret"), given("secret_file"), environ),
        allow=_networks(given("allow")),
        allowed_hosts=_listed("ALLOWED_HOSTS", given("allowed_hosts"), _host),
        allowed_origins=_listed("ALLOWED_ORIGINS", given("allowed_origins"), _origin),
        history_days=number_setting(
            "CRON_TRIGGER_HISTORY_DAYS", given("history_days") or "90", 1, 36500
        ),
        notify_url=_notify_url(given("notify_url")),
    )


def _whole_path(name: str, path: str) -> Path:
    if path.startswith("~"):
        # Of a uid that nobody knows, without HOME; or nobody expanded it.  Below each
        # current folder would be other locks.
        raise ConfigError(
            f"CRON_TRIGGER_{name.upper()} must name a folder without the shorthand "
            f'"~", got {path}: write the whole path.'
        )
    return Path(os.path.abspath(path))


def _registry_path(given: Optional[str]) -> Path:
    if given:
        path = Path(os.path.abspath(given))
        try:
            mode = os.stat(path).st_mode
        except (FileNotFoundError, NotADirectoryError):
            mode = 0
        except OSError:  # of its disk: the last good one stays in force
            return path
        if not stat.S_ISREG(mode):
            what = "no file" if mode else "not there"
            raise ConfigError(
                f"CRON_TRIGGER_REGISTRY must name a registry file, got {path}, which "
                f"is {what}: create it, or leave the setting out."
            )
        return path
    system = SERVICE_FOLDER / "crons.json"
    try:
        os.stat(system)
    except PermissionError:
        raise ConfigError(
            f"CRON_TRIGGER_REGISTRY is {system}, which this user may not look at: use "
            "sudo, or name another registry."
        ) from None
    except OSError:
        return HOME / "crons.json"
    return system


def number_setting(name: str, text: str, low: int, high: int) -> int:
    number = whole_number(text, low, high)
    if number is None:
        raise ConfigError(
            f"{name} must be a whole number from {low} to {high}, got "
            f'"{printable(text)}".'
        )
    return number


#: What the settings that are lists have in them.
LISTS = {
    "ALLOW": 'networks such as "10.1.0.0/16 fd00::/8"',
    "ALLOWED_HOSTS": 'names such as "crons.example.org"',
    "ALLOWED_ORIGINS": 'origins such as "https://admin.example.org"',
}


def _listed(name: str, text: Optional[str], read: Callable[[str], T]) -> tuple[T, ...]:
    """Return what `read` makes of each item; ConfigError where it raises ValueError."""
    items = []
    for item in re.split(r"[\s,]+", (text or "").strip(" ,\t\n")):
        try:
            items += [read(item)] if item else []
        except ValueError as error:
            why = f" ({error})" if str(error) else ""
            raise ConfigError(
                f"CRON_TRIGGER_{name} must be a list of {LISTS[name]}, got "
                f'"{printable(item)}"{why}.'
            ) from None
    return (*items,)


def all_interfaces() -> str:
    """Return the address of all interfaces, of both families where there are two."""
    try:
        socket.socket(socket.AF_INET6, socket.SOCK_STREAM).close()
    except OSError:
        return "0.0.0.0"
    return "::"


def _networks(text: Optional[str]) -> Optional[tuple[Network, ...]]:
    if text is None:
        return None
    networks = _listed("ALLOW", text, ipaddress.ip_network)
    if not networks:
        raise ConfigError(
            "CRON_TRIGGER_ALLOW must name at least one network, such as 10.1.0.0/16; "
            "for this host and its containers alone, leave it out."
        )
    return (*LOOPBACK, *networks)


def _host(item: str) -> str:
    """Return a name as it stands in a Host header, which may add any port."""
    match = re.fullmatch(r"([A-Za-z0-9][A-Za-z0-9._-]{0,252})(:\d{1,5})?", item)
    if not match:
        raise ValueError
    return match[1].rstrip(".").lower()


def _origin(item: str) -> str:
    """Return an origin as browsers send it: in lower case, without a default port."""
    match = re.fullmatch(r"(?i)(https?)://([^/?#\s@]+?)(:\d{1,5})?", item)
    if not match:
        raise ValueError
    scheme, host, port = (part or "" for part in match.groups())
    default = {"http": ":80", "https": ":443"}[scheme.lower()]
    return f"{scheme}://{host}{port if port != default else ''}".lower()


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


def variable_of(setting: str) -> str:
    return "CRON_TRIGGER_" + setting.upper().replace("-", "_")


def unknown_settings(environ: Mapping[str, str]) -> list[tuple[str, Optional[str]]]:
    """Return each variable that looks like a setting and is none, and what it means.

    That is None where no setting has a name like it.
    """
    known = {*map(variable_of, SETTINGS), *OTHERS}
    tails = [name[len("CRON_TRIGGER_") :] for name in known]
    found: list[tuple[str, Optional[str]]] = []
    for name in environ:
        head = re.match(r"CRONS?_?TRIGG?ERS?_", name, re.IGNORECASE)
        if head and name not in known:
            meant = nearest(name[head.end() :], tails)
            found.append((name, meant and f"CRON_TRIGGER_{meant}"))
    return found


def misspelt(environ: Mapping[str, str]) -> list[str]:
    """Return a sentence's end for each variable that looks like a setting."""
    return [
        f"{printable(name)} is no setting" + (f": did you mean {near}?" if near else "")
        for name, near in unknown_settings(environ)
    ]


def service_variables() -> dict[str, str]:
    """Return what the service's scripts find around them, beside their own.

    For root's server and root's `run` alike; an ordinary user's has its own variables.
    """
    return environment_file() if os.geteuid() == 0 else {}


def environment_file(path: Path = ENVIRONMENT_FILE) -> dict[str, str]:
    """Return the variables that the service is started with; nothing if unreadable."""
    try:
        text = path.read_text("utf-8", "replace")
    except OSError:
        return {}
    return dict(_assignments(text))


#: As systemd's env-file.c: quoted pieces come first, blanks between them go; what comes
#: after them ends with its line, where a backslash takes the line's end away.
ASSIGNMENT = re.compile(
    r"""
    [ \t]* (?P<name> [^\s=#;][^=\n]*? ) [ \t]* =
    (?P<quoted> (?: [ \t]* (?: '[^']*' | "(?:\\.|[^"\\])*" ) )* ) [ \t]*
    (?P<plain> (?: \\. | [^\\\n] )* ) (?: \n | \Z )
    | [^\n]* (?: \n | \Z )
    """,
    re.VERBOSE | re.DOTALL,
)


def _assignments(text: str) -> Iterator[tuple[str, str]]:
    place, text = 0, text.replace("\r", "\n")
    while place < len(text):
        match = ASSIGNMENT.match(text, place)
        assert match, "its second half takes any line"
        place = match.end()
        if VARIABLE_NAME.fullmatch(match["name"] or ""):
            yield match["name"], _quoted(match["quoted"]) + _plain(match["plain"])


def _quoted(text: str) -> str:
    """Return what quoted pieces stand for; backslashes count in double quotes only."""
    pieces = re.findall(r"""'([^']*)'|"((?:\\.|[^"\\])*)\"""", text, re.DOTALL)
    return "".join(
        single or re.sub(r'\\(\n|["\\`$])', _escaped, double)
        for single, double in pieces
    )


def _plain(text: str) -> str:
    ended = re.sub(r"(?<!\\)((?:\\\\)*)[ \t]+\Z", r"\1", text)
    return re.sub(r"\\(.)", _escaped, ended, flags=re.DOTALL)


def _escaped(match: re.Match[str]) -> str:
    return "" if match[1] == "\n" else match[1]
