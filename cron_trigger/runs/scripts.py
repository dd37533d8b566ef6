"""Scripts."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shutil
import stat
import subprocess
from typing import Dict, List, Mapping, Optional, Sequence, Tuple

from cron_trigger.registry.crons import Cron
from cron_trigger.registry.errors import LaunchError
from cron_trigger.registry.parameters import ParameterValue
from cron_trigger.registry.texts import printable
from cron_trigger.registry.trust import writable_by_others
from cron_trigger.runs.logs import log_fault

#: Interpreters by a script's ending; `.ts` is looked up when it is needed.
INTERPRETERS = {".sh": "bash", ".py": "python3", ".js": "node"}
NODE_STRIPS_TYPES = (22, 18)
INTERPRETER_NAME = re.compile(
    r"(?:ba|da|z|k)?sh|python[\d.]*|node|tsx|perl|ruby|php[\d.]*"
)


def script_arguments(
    cron: Cron, values: Mapping[str, ParameterValue], user_id: int
) -> List[str]:
    """Return the argument vector that runs a cron's script; else LaunchError."""
    program = _program(cron)
    arguments = cron.arguments(values)
    if user_id == 0:
        for path in (program, *_programs(cron, program, arguments)):
            _refuse_unsafe("script", path)
    if os.access(program, os.X_OK):
        interpreter = _first_line(program)
        vector = [program, *arguments]
    else:
        vector = [*_interpreter(program), program, *arguments]
        interpreter = vector[0]
    if user_id == 0 and interpreter:
        _refuse_unsafe("interpreter", interpreter)
    return vector


def _refuse_unsafe(what: str, path: str) -> None:
    unsafe = writable_by_others(path, 0)
    if unsafe:
        raise LaunchError(f"its {what} {path} is not safe, because {unsafe}")


def _program(cron: Cron) -> str:
    """Return the path of the program; a name without a slash may be one of PATH's."""
    first = cron.command[0]
    path = str(cron.folder / first)
    if "/" not in first and not os.path.exists(path):
        found = shutil.which(first)
        if found:
            return found
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        remedy = "put it there or correct the command in the registry"
        if " " in first:
            remedy += ', where program and arguments are an array: ["program", "-x"]'
        raise LaunchError(f"its script {path} is missing: {remedy}") from None
    except OSError as error:
        shown = printable(path, 300)
        raise LaunchError(
            f"its script {shown} can't be reached ({error.strerror}): correct the "
            "command in the registry, or the permissions of its folders"
        ) from None
    if not stat.S_ISREG(mode):
        raise LaunchError(f"its script {path} is not a file: name a file")
    return path


def _programs(cron: Cron, program: str, arguments: Sequence[str]) -> List[str]:
    """Return the programs among the arguments, as in `bash x.sh` or `nice ./x`."""
    paths = (str(cron.directory / argument) for argument in arguments)
    files = [path for path in paths if os.path.isfile(path)]
    interpreted = INTERPRETER_NAME.fullmatch(os.path.basename(program))
    return [
        path
        for place, path in enumerate(files)
        if (interpreted and place == 0)
        or os.access(path, os.X_OK)
        or os.path.splitext(path)[1] in (*INTERPRETERS, ".ts")
    ]


def _first_line(program: str) -> Optional[str]:
    """Return the interpreter that a script's `#!` line names, None without one.

    Refuses a line that names no program: sh would only say 126.
    """
    try:
        descriptor = os.open(program, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            line = os.read(descriptor, 256).partition(b"\n")[0]
        finally:
            os.close(descriptor)
    except OSError:
        return None  # execute permission alone is enough for a binary
    if not line.startswith(b"#!"):
        return None
    words = line[2:].strip(b" \t").split(None if b"\r" not in line else b" ")
    interpreter = os.fsdecode(words[0]) if words else ""
    if words and words[-1].endswith(b"\r"):
        # The kernel, and env, would look for a program whose name ends in "\r".
        raise LaunchError(
            f"the first line of its script {program} ends as Windows has it (CR LF): "
            f"sed -i 's/\\r$//' {program}"
        )
    if not os.access(interpreter, os.X_OK):
        raise LaunchError(
            f"its script {program} asks for the interpreter "
            f'"{printable(interpreter)}", which is not there: correct its first line'
        )
    return interpreter


def _interpreter(program: str) -> List[str]:
    ending = os.path.splitext(program)[1]
    if ending == ".ts":
        return [_typescript_runner()]
    name = INTERPRETERS.get(ending)
    if name is None:
        raise LaunchError(f"its script {program} is not executable: chmod +x {program}")
    found = shutil.which(name)
    if found is None:
        raise LaunchError(f"{name}, which runs {program}, is not on PATH: install it")
    return [found]


def _typescript_runner() -> str:
    tsx, node = shutil.which("tsx"), shutil.which("node")
    if tsx:
        return tsx
    if node and _node_version(node, os.stat(node).st_mtime_ns) >= NODE_STRIPS_TYPES:
        return node
    needed = ".".join(map(str, NODE_STRIPS_TYPES))
    raise LaunchError(
        f"a .ts script needs tsx, or node {needed} or later, on PATH: "
        "npm install -g tsx"
    )


@functools.lru_cache(maxsize=8)
def _node_version(node: str, _changed_ns: int) -> Tuple[int, ...]:
    """Return the version of a `node`, asked once until that file changes."""
    with contextlib.suppress(OSError, subprocess.SubprocessError, ValueError):
        asked = subprocess.run(
            [node, "--version"],
            env=script_environment(os.environ),
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
        return tuple(int(part) for part in asked.stdout.strip()[1:].split(".")[:2])
    return (0, 0)


#: What a script does not inherit: settings, the secret above all, and what systemd
#: gave to this server alone.
PRIVATE_VARIABLES = re.compile(
    r"CRON_TRIGGER(_.*)?|CRON_NAME|CRON_RUN_ID|CRON_PARAM_.*|NOTIFY_SOCKET|WATCHDOG_.*"
    r"|LISTEN_.*|CREDENTIALS_DIRECTORY|FDSTORE"
)


def script_environment(environ: Mapping[str, str]) -> Dict[str, str]:
    """Return the part of this server's environment that its scripts may see."""
    return {n: v for n, v in environ.items() if not PRIVATE_VARIABLES.fullmatch(n)}


def check_directory(cron: Cron) -> None:
    """Refuse a working directory that is not there; raises LaunchError."""
    if not os.path.isdir(cron.directory):
        raise LaunchError(f"its folder {cron.directory} is missing: create it")


def start_fault(cron: Cron, user_id: int) -> Optional[str]:
    """Return why a cron would not start, as far as one can tell without a start."""
    try:
        script_arguments(cron, {}, user_id)
        check_directory(cron)
        # The server makes its own log folder, but no other.
        if os.path.isabs(cron.log_file or ""):
            os.stat(os.path.dirname(cron.log_path))
    except LaunchError as error:
        return str(error)
    except OSError as error:
        return log_fault(cron.log_path, error)
    return None
