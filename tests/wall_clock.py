"""A wall clock of its own for a process and its children: a small preloaded library.

It moves what `time`, `gettimeofday`, `clock_gettime(CLOCK_REALTIME)` and a timerfd of
that clock say, by what a file has in it at that moment; nothing else.  (libfaketime
moves the other clocks and Python's waits as well.)
"""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

from support import need_command

SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

static const long long none, *shift = &none;

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("WALL_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    void *there = mmap(0, sizeof none, PROT_READ, MAP_SHARED, file, 0);
    if (there != MAP_FAILED)
        shift = there;
    if (file >= 0)
        close(file);
}

static int is_wall(clockid_t id)
{
    return id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE;
}

int clock_gettime(clockid_t id, struct timespec *now)
{
    int result = syscall(SYS_clock_gettime, id, now);
    if (!result && is_wall(id))
        now->tv_sec += *shift;
    return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    struct timespec fine;
    clock_gettime(CLOCK_REALTIME, &fine);
    now->tv_sec = fine.tv_sec;
    now->tv_usec = fine.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *there)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (there)
        *there = now.tv_sec;
    return now.tv_sec;
}

/* The kernel's own clock stays: deadlines that were read from ours go back. */

int timerfd_settime(int fd, int flags, const struct itimerspec *new,
                    struct itimerspec *old)
{
    struct itimerspec moved = *new;
    if (flags & TFD_TIMER_ABSTIME && moved.it_value.tv_sec > 1000000000)
        moved.it_value.tv_sec -= *shift;
    return syscall(SYS_timerfd_settime, fd, flags, &moved, old);
}

int sem_timedwait(sem_t *restrict sem, const struct timespec *restrict until)
{
    static int (*real)(sem_t *, const struct timespec *);
    struct timespec moved = *until;
    if (!real)
        real = dlsym(RTLD_NEXT, "sem_timedwait");
    moved.tv_sec -= *shift;
    return real(sem, &moved);
}
"""


class WallClock:
    """A clock in a folder; `environ` is for the process that is to go by it."""

    def __init__(self, folder: Path) -> None:
        gcc = need_command("gcc")
        source, library = folder / "wall.c", folder / "wall.so"
        source.write_text(SOURCE, encoding="utf-8")
        flags = ["-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"]
        subprocess.run([gcc, *flags], check=True)
        self._file = folder / "wall.shift"
        self._file.write_bytes(struct.pack("q", 0))
        self.environ: dict[str, str] = {
            "LD_PRELOAD": str(library),
            "WALL_CLOCK": str(self._file),
        }

    def set(self, days: float) -> None:
        """Have the clock be so many days ahead of the host's from now on."""
        # In place: the processes have this very file in their memory.
        with open(self._file, "r+b", buffering=0) as file:
            file.write(struct.pack("q", round(days * 86400)))
