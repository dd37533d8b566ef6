"""Disks that are not as ext4 is: gone, without numbers that last, written anew."""

from __future__ import annotations

import unittest

from support import Server, patched

REGISTRY = {
    "brief": {"description": "Brief", "command": ["sh", "-c", "echo a; exit 3"]}
}
#: A disk whose FUSE or NFS server is gone answers each question so.
GONE = """
import errno
def stat(path, whole=os.stat, **how):
    if "/state" in str(path) and os.access({at!r}, os.F_OK):
        raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN), path)
    return whole(path, **how)
os.stat = stat
"""


class Gone(unittest.TestCase):
    def test_the_historys_stops_no_run_and_no_start(self) -> None:
        with Server(REGISTRY, start=False) as server:
            at = server.folder / "gone"
            server.program = list(patched("import os", GONE.format(at=str(at))))
            server.start()
            before = server.completed("brief")
            at.touch()
            ids = [server.completed("brief")["id"]]
            server.kill()
            server.start()
            ids.append(server.completed("brief")["id"])
            (problem,) = server.get("/health").json["problems"]
            self.assertIn("not connected", problem)
            at.unlink()
            for run_id in ids:
                self.assertEqual(server.ended(run_id)["exitCode"], 3)
            self.assertGreater(ids[0], before["id"])


if __name__ == "__main__":
    unittest.main()
