#!/usr/bin/env bash
# The listener of a killed process stays open for a while if io_uring waits for connections on it.
#
# liburing 2026.3.30 (Python, with its own copy of liburing); Linux 6.18. A child listens and is killed; its parent
# waits for it with waitpid, and then connects to the same address every 5 ms.
#
# Expected: connections are refused once waitpid returns, because a process that has exited holds no descriptors.
# Observed: this holds if nothing waits on the socket. If an accept is queued in io_uring, the kernel accepts
# connections for about 10 ms more, because the ring is destroyed after the process; those connections are reset, and if
# they fill the backlog, the next SYN is dropped and retried after a second. A supervisor that kills and restarts at
# once sends the first clients to the old listener, and with SO_REUSEPORT both are open at the same time.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/python"
"$folder/python/bin/pip" -q install --disable-pip-version-check liburing==2026.3.30
cat >"$folder/listen.py" <<'PY'
import socket
import sys
import time

listener = socket.create_server(("127.0.0.1", int(sys.argv[2])))
if sys.argv[1] == "io_uring":
    import liburing

    ring = liburing.Ring()
    liburing.io_uring_queue_init(8, ring)
    liburing.io_uring_prep_accept(liburing.io_uring_get_sqe(ring), listener.fileno(), None, 0)
    liburing.io_uring_submit(ring)
print("ready", flush=True)
time.sleep(60)
PY
cat >"$folder/kill.py" <<'PY'
import platform
import socket
import subprocess
import sys
import time


def connects_after_the_end(way):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    child = subprocess.Popen([sys.executable, sys.argv[1], way, str(port)], stdout=subprocess.PIPE)
    assert child.stdout.readline() == b"ready\n", "no io_uring here"
    child.kill()
    child.wait()
    count = 0
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
        except ConnectionRefusedError:
            return count
        except OSError:
            pass
        count += 1
        time.sleep(0.005)


plain = [connects_after_the_end("plain") for _ in range(10)]
waiting = [connects_after_the_end("io_uring") for _ in range(10)]
print(f"Linux {platform.release()}: connections after waitpid: without io_uring {plain}, with {waiting}")
sys.exit(0 if not any(plain) and sum(count > 0 for count in waiting) >= 5 else 1)
PY
"$folder/python/bin/python" "$folder/kill.py" "$folder/listen.py"
