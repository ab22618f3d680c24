"""Makes tokens of clients, signed with a secret."""

import base64
import hashlib
import hmac
import json


def signed_token(claims, secret):
    def encoded(part):
        return base64.urlsafe_b64encode(part).rstrip(b"=").decode()

    signed = ".".join(encoded(json.dumps(part).encode()) for part in ({"alg": "HS256", "typ": "JWT"}, claims))
    return f"{signed}.{encoded(hmac.digest(secret.encode(), signed.encode(), hashlib.sha256))}"
