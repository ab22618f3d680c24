"""A server of a case's own, to be starved or ended."""

import os
import socket
import subprocess
import time


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return sock.getsockname()[1]


def server_environment():
    """Without the cases' addresses: their names are no settings of the server's."""
    return {name: value for name, value in os.environ.items() if not name.startswith("FANTAIL_")}


class OwnServer:
    """Runs while the `with` block does; FANTAIL_HTTP, FANTAIL_TCP and FANTAIL_ECHO then name its addresses."""

    def __init__(self, case):
        name = f"{os.environ['CONFORMANCE_DRIVER']}-{case}-server.log"
        self.log_path = os.path.join(os.environ["CONFORMANCE_WORK"], "logs", name)
        self.addresses = {name: f"127.0.0.1:{free_port()}" for name in ("FANTAIL_HTTP", "FANTAIL_TCP", "FANTAIL_ECHO")}

    def command(self):
        return [
            os.environ["FANTAIL_SERVER"], "serve", "--workers", "1", "--driver", os.environ["CONFORMANCE_DRIVER"],
            "--listen", self.addresses["FANTAIL_HTTP"], "--tcp", self.addresses["FANTAIL_TCP"],
            "--echo", self.addresses["FANTAIL_ECHO"],
        ]

    def __enter__(self):
        os.environ.update(self.addresses)
        with open(self.log_path, "w") as log:
            self.process = subprocess.Popen(self.command(), stdout=log, stderr=log, env=server_environment())
        host, port = self.addresses["FANTAIL_HTTP"].split(":")
        for _ in range(100):
            try:
                socket.create_connection((host, int(port))).close()
                return self
            except OSError:
                if self.process.poll() is not None:
                    break
                time.sleep(0.05)
        self.process.kill()
        raise RuntimeError(f"the server did not start: {self.log()[-500:]}")

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise

    def log(self):
        with open(self.log_path) as file:
            return file.read()
