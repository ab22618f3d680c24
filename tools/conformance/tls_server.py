"""A server of its own over TLS, with a P-256 certificate that openssl makes.

    tls_server.py CASE COMMAND...    runs a command while FANTAIL_TLS_HTTP and FANTAIL_TLS_ECHO name its addresses

FANTAIL_TLS_CERT names the file of the certificate, which is for localhost and 127.0.0.1.
"""

import os
import subprocess
import sys

from own_server import OwnServer, free_port

WORK = os.environ["CONFORMANCE_WORK"]
SECRET = "0123456789abcdef0123456789abcdef"


def certificate():
    """The files of a certificate and its key; they are made once."""
    folder = os.path.join(WORK, "tls")
    os.makedirs(folder, exist_ok=True)
    cert, key = os.path.join(folder, "cert.pem"), os.path.join(folder, "key.pem")
    if not os.path.exists(cert):
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30",
             "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
             "-keyout", key, "-out", cert],
            check=True, capture_output=True,
        )
    return cert, key


class TlsServer(OwnServer):
    """Runs while the `with` block does, with two workers."""

    def __init__(self, case):
        cert, key = certificate()
        self.http, self.echo = (f"127.0.0.1:{free_port()}" for _ in range(2))
        super().__init__(case, (
            "--workers", "2", "--listen", f"{self.http} tls", "--echo", f"{self.echo} tls",
            "--tls-cert", cert, "--tls-key", key, "--tls-ticket-secret", SECRET,
        ))
        self.addresses |= {"FANTAIL_TLS_HTTP": self.http, "FANTAIL_TLS_ECHO": self.echo, "FANTAIL_TLS_CERT": cert}


def main():
    with TlsServer(sys.argv[1]) as server:
        more = {
            "FANTAIL_ECHO_URL": f"wss://{server.echo}",
            "NODE_EXTRA_CA_CERTS": server.addresses["FANTAIL_TLS_CERT"],
        }
        return subprocess.run(sys.argv[2:], env=os.environ | more).returncode


if __name__ == "__main__":
    sys.exit(main())
