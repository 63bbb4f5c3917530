"""A backend that uses livekit-api's own receiver.

It prints the port that it listens on, then one JSON line for each request.
"""

import argparse
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from livekit.api import TokenVerifier, WebhookReceiver

BODY_BYTES_MAX = 4 << 20

parser = argparse.ArgumentParser()
parser.add_argument("--listen", default="127.0.0.1:0")
parser.add_argument("--key", required=True)
parser.add_argument("--secret", required=True)
arguments = parser.parse_args()

receiver = WebhookReceiver(TokenVerifier(arguments.key, arguments.secret))
printing = threading.Lock()


def print_line(value):
    with printing:
        print(value, flush=True)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        length = int(self.headers["Content-Length"])
        if length > BODY_BYTES_MAX:
            self.close_connection = True
            return self.answer(413)
        body = self.rfile.read(length)
        line = {
            "sha256": hashlib.sha256(body).hexdigest(),
            "attempt": self.headers["Oncehook-Attempt"],
            "idempotency_key": self.headers["Idempotency-Key"],
            "possible_duplicate": self.headers["Oncehook-Possible-Duplicate"],
            "protocol": self.request_version,
        }
        try:
            event = receiver.receive(body.decode(), self.headers["Authorization"] or "")
            line.update(outcome="accepted", event=event.event, id=event.id)
            status = 200
        except Exception as error:  # the SDK raises what its libraries raise
            line.update(outcome="refused", reason=repr(error))
            status = 401
        print_line(json.dumps(line))
        self.answer(status)

    def answer(self, status):
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        """stdout and stderr are for the test."""


host, port = arguments.listen.split(":")
server = ThreadingHTTPServer((host, int(port)), Handler)
server.daemon_threads = True
print_line(server.server_address[1])
server.serve_forever()
