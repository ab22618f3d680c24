"""A private server for cases that starve or stop it."""

import os
import signal
import socket
import subprocess
import time


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return sock.getsockname()[1]


def server_environment():
    """The environment without the addresses of the cases, which are not settings of the server."""
    return {name: value for name, value in os.environ.items() if not name.startswith("FANTAIL_")}


class OwnServer:
    """Runs while the `with` block does; FANTAIL_HTTP, FANTAIL_TCP and FANTAIL_ECHO then name its addresses."""

    def __init__(self, case, options=("--workers", "1")):
        name = f"{os.environ['CONFORMANCE_DRIVER']}-{case}-server.log"
        self.log_path = os.path.join(os.environ["CONFORMANCE_WORK"], "logs", name)
        self.options = options
        self.addresses = {name: f"127.0.0.1:{free_port()}" for name in ("FANTAIL_HTTP", "FANTAIL_TCP", "FANTAIL_ECHO")}

    def command(self):
        return [
            os.environ["FANTAIL_SERVER"], "serve", "--driver", os.environ["CONFORMANCE_DRIVER"],
            "--listen", self.addresses["FANTAIL_HTTP"], "--tcp", self.addresses["FANTAIL_TCP"],
            "--echo", self.addresses["FANTAIL_ECHO"], *self.options,
        ]

    def __enter__(self):
        os.environ.update(self.addresses)
        open(self.log_path, "w").close()
        self.start()
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.stop(signal.SIGTERM)

    def start(self):
        """Starts the server again after `stop`, at the same addresses."""
        with open(self.log_path, "a") as log:
            self.process = subprocess.Popen(self.command(), stdout=log, stderr=log, env=server_environment())
        host, port = self.addresses["FANTAIL_HTTP"].split(":")
        for _ in range(1000):
            try:
                socket.create_connection((host, int(port))).close()
                return
            except OSError:
                if self.process.poll() is not None:
                    break
                time.sleep(0.005)
        self.process.kill()
        raise RuntimeError(f"the server did not start: {self.log()[-500:]}")

    def stop(self, signal_number):
        self.process.send_signal(signal_number)
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        # After a process that used io_uring is killed, its listeners accept connections for a short time.
        host, port = self.addresses["FANTAIL_HTTP"].split(":")
        while True:
            try:
                socket.create_connection((host, int(port))).close()
            except ConnectionRefusedError:
                return
            except OSError:
                pass
            time.sleep(0.005)

    def log(self):
        with open(self.log_path) as file:
            return file.read()
