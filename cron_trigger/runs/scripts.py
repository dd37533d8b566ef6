"""What a cron's command becomes: a program, its arguments, its surroundings.

All that can be told before a start is told here, each fault as a LaunchError that says
which file, why, and the remedy.  A trigger asks for one cron, `check` and `doctor`
for all.  Nothing is run that others than root, the server's user and the script's own
could change.  Any thread may call; nothing is kept but a `node`'s version.
"""

from __future__ import annotations

import functools
import os
import shutil
import stat
import subprocess
from typing import Mapping, Optional, Sequence

from cron_trigger.host.shortage import is_shortage
from cron_trigger.host.users import User, own_user, surroundings, user_named
from cron_trigger.registry.crons import Cron
from cron_trigger.registry.errors import LaunchError
from cron_trigger.registry.parameters import ParameterValue
from cron_trigger.registry.texts import printable
from cron_trigger.registry.trust import writable_by_others
from cron_trigger.runs.logs import log_fault

#: Interpreters by a script's ending; `.ts` is looked up when it is needed.
INTERPRETERS = {".sh": "bash", ".py": "python3", ".js": "node"}
#: Programs whose first argument is a script that they run.
INTERPRETER_NAMES = (
    *("sh", "bash", "dash", "zsh", "ksh", "python", "node", "tsx"),
    *("perl", "ruby", "php"),
)
NODE_STRIPS_TYPES = (22, 18)


class Scripts:
    """Finds and checks what crons run."""

    def __init__(self, service: Mapping[str, str]) -> None:
        """Take the service's variables (/etc/default)."""
        # Read, never changed: threads share it.
        self._service = service
        self._own = own_user()

    def user_of(self, cron: Cron) -> User:
        """Return whom a cron's script runs as; else LaunchError."""
        if cron.user is None or cron.user == self._own.name:
            return self._own
        if self._own.uid != 0:
            raise LaunchError(
                f'only a server of root can run it as user "{cron.user}", and this one '
                f'belongs to {self._own.name}: remove "user" from its entry'
            )
        try:
            return user_named(cron.user)
        except KeyError:
            raise LaunchError(
                f'there is no user "{printable(cron.user, 80)}" on this host: correct '
                '"user" in its entry'
            ) from None

    def environment(self, cron: Cron, user: User) -> dict[str, str]:
        """Return the environment of a cron's script, without its parameters."""
        return {**surroundings(user, self._service), **cron.environment}

    def arguments(
        self, cron: Cron, values: Mapping[str, ParameterValue], user: User, path: str
    ) -> list[str]:
        """Return the argument vector that runs a cron's script; else LaunchError."""
        program = find_program(cron, path)
        arguments = cron.arguments(values)
        # Looked at now, run a moment later: whom these checks let pass could change it
        # later as well.
        for script in (program, *_scripts_among(cron, program, arguments)):
            self._refuse_unsafe("script", script, user)
        if os.access(program, os.X_OK):
            interpreter = named_interpreter(program, path)
            vector = [program, *arguments]
        else:
            vector = [_interpreter_of(program, path), program, *arguments]
            interpreter = vector[0]
        if interpreter:
            self._refuse_unsafe("interpreter", interpreter, user)
        return vector

    def _refuse_unsafe(self, what: str, path: str, user: User) -> None:
        unsafe = writable_by_others(path, self._own.uid, user.uid, what=what)
        if unsafe:
            raise LaunchError(f"its {what} {path} is not safe, because {unsafe}")

    def check_directory(self, cron: Cron) -> None:
        """Refuse a working directory that is not there; raises LaunchError."""
        try:
            there = stat.S_ISDIR(os.stat(cron.directory).st_mode)
        except (FileNotFoundError, NotADirectoryError):
            there = False
        except OSError as error:  # root's, too: other users' folders of a server of NFS
            raise LaunchError(
                f"its folder {cron.directory} cannot be reached ({error.strerror}): "
                "correct the permissions of the folders above it, or its mount, or "
                "name another"
            ) from None
        if not there:
            remedy = _home_hint(str(cron.working_directory)) or "create it"
            raise LaunchError(f"its folder {cron.directory} is missing: {remedy}")

    def fault(self, cron: Cron) -> Optional[str]:
        """Return why a cron would not start, as far as that can be told before."""
        try:
            user = self.user_of(cron)
            environment = self.environment(cron, user)
            self.arguments(cron, {}, user, environment["PATH"])
            self.check_directory(cron)
            # The server makes its own log folder, but no other.
            if os.path.isabs(cron.log_file or ""):
                os.stat(os.path.dirname(cron.log_path))
        except LaunchError as error:
            return str(error)
        except OSError as error:
            return log_fault(cron.log_path, error)
        return None


def find_program(cron: Cron, path: str) -> str:
    """Return the path of a cron's program; a name without a slash may be one of PATH's.

    Raises LaunchError.
    """
    first = cron.command[0]
    program = str(cron.folder / first)
    if "/" not in first and not os.path.exists(program):
        found = shutil.which(first, path=path)
        if found:
            return found
    try:
        mode = os.stat(program).st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise _missing(cron, first, program, path) from None
    except OSError as error:
        raise LaunchError(
            f"its script {printable(program, 300)} cannot be reached "
            f"({error.strerror}): correct the command in the registry, or the "
            "permissions of its folders"
        ) from None
    if not stat.S_ISREG(mode):
        raise LaunchError(f"its script {program} is not a file: name a file")
    return program


def _missing(cron: Cron, first: str, program: str, path: str) -> LaunchError:
    """Return what to say of a program that is not there."""
    hint = _home_hint(first)
    if hint:
        return LaunchError(f"its script {program} is missing: {hint}")
    if " " in first:
        return LaunchError(
            f"its script {program} is missing: write program and arguments as an "
            'array, such as ["program", "-x"]'
        )
    if "/" in first or "." in first:
        return LaunchError(
            f"its script {program} is missing: put it there or correct the command in "
            "the registry"
        )
    return LaunchError(
        f'its program "{first}" is not installed: it is neither on PATH ({path}) nor '
        f"in {cron.folder}; install it, or give its whole path"
    )


def _home_hint(text: str) -> Optional[str]:
    """Return a remedy where somebody wrote a path as a shell has it."""
    if text.startswith("~"):
        return 'write the whole path, since "~" means a home in a shell only'
    if text.startswith("$"):
        return 'write the whole path, since "$" means a variable in a shell only'
    return None


def _scripts_among(cron: Cron, program: str, arguments: Sequence[str]) -> list[str]:
    """Return the programs among the arguments, as in `bash x.sh` or `nice ./x`."""
    paths = (str(cron.directory / argument) for argument in arguments)
    files = [path for path in paths if os.path.isfile(path)]
    name = os.path.basename(program).rstrip("0123456789.")
    return [
        path
        for place, path in enumerate(files)
        if (name in INTERPRETER_NAMES and place == 0)
        or os.access(path, os.X_OK)
        or os.path.splitext(path)[1] in (*INTERPRETERS, ".ts")
    ]


def named_interpreter(program: str, path: str) -> Optional[str]:
    """Return the interpreter that a script's `#!` line names, None without one.

    Refuses a line that names no program, and `env` of one that is not there: sh would
    only say 126 or 127.
    """
    line = _first_line(program)
    if not line.startswith(b"#!"):
        return None
    words = line[2:].strip(b" \t").split(None if b"\r" not in line else b" ")
    if words and words[-1].endswith(b"\r"):
        # The kernel, and env, would look for a program whose name ends in "\r".
        raise LaunchError(
            f"the first line of its script {program} ends as Windows has it (CR LF): "
            f"sed -i 's/\\r$//' {program}"
        )
    texts = [os.fsdecode(word) for word in words]
    interpreter = texts[0] if texts else ""
    if not os.access(interpreter, os.X_OK):
        raise _no_interpreter(program, interpreter)
    if os.path.basename(interpreter) != "env":
        return interpreter
    wanted = next((w for w in texts[1:] if not w.startswith("-") and "=" not in w), "")
    found = shutil.which(wanted, path=path) if wanted else interpreter
    if found is None:
        raise _no_interpreter(program, wanted)
    return found


def _no_interpreter(program: str, name: str) -> LaunchError:
    return LaunchError(
        f'its script {program} asks for the interpreter "{printable(name)}", which is '
        "not installed: install it or correct the script's first line"
    )


def _first_line(program: str) -> bytes:
    """Return a file's first line, as far as the kernel looks; b"" if unreadable."""
    try:
        descriptor = os.open(program, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb", 0) as file:
            return (file.read(256) or b"").partition(b"\n")[0]
    except OSError as error:
        if is_shortage(error):
            raise
        return b""  # execute permission alone is enough for a binary


def _interpreter_of(program: str, path: str) -> str:
    """Return what runs a file that is not executable, by its ending."""
    ending = os.path.splitext(program)[1]
    if ending == ".ts":
        return _typescript_runner(path)
    name = INTERPRETERS.get(ending)
    if name is None and os.stat(program).st_mode & 0o111:
        raise LaunchError(
            f"its script {program} is executable, but lies on a file system that is "
            f"mounted noexec or without permission for this user: move it, or name its "
            f'interpreter in the command, such as ["sh", "{program}"]'
        )
    if name is None:
        raise LaunchError(f"its script {program} is not executable: chmod +x {program}")
    found = shutil.which(name, path=path)
    if found is None:
        raise LaunchError(f"{name}, which runs {program}, is not on PATH: install it")
    return found


def _typescript_runner(path: str) -> str:
    tsx, node = shutil.which("tsx", path=path), shutil.which("node", path=path)
    if tsx:
        return tsx
    try:
        if node and _node_version(node, os.stat(node).st_mtime_ns) >= NODE_STRIPS_TYPES:
            return node
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        if is_shortage(error):
            raise
    needed = ".".join(map(str, NODE_STRIPS_TYPES))
    raise LaunchError(
        f"a .ts script needs tsx, or node {needed} or later, on PATH: "
        "npm install -g tsx"
    )


@functools.lru_cache(maxsize=8)
def _node_version(node: str, _changed_ns: int) -> tuple[int, ...]:
    """Return the version of a `node`, asked until it answers and the file changes."""
    # In a request's thread, or a plan's; the loop never launches.
    asked = subprocess.run(
        [node, "--version"],
        env={"PATH": os.defpath},
        capture_output=True,
        text=True,
        timeout=5,
        check=True,
    )
    return tuple(int(part) for part in asked.stdout.strip()[1:].split(".")[:2])
