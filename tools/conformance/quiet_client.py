"""quiet_client.py requests|urllib3 URL: prints the lines of a response, read as in the library's documentation."""

import sys

library, url = sys.argv[1:]
if library == "requests":
    import requests

    for line in requests.get(url, stream=True).iter_lines(decode_unicode=True):
        print(line, flush=True)
else:
    import urllib3

    for part in urllib3.PoolManager().request("GET", url, preload_content=False).stream():
        print(part.decode(), end="", flush=True)
