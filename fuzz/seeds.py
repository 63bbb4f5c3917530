#!/usr/bin/env python3
"""Writes seeds for every target to a folder, from the corpora under tests/data: seeds.py FOLDER.

What fuzz/corpus/ holds began with these; `run` adds them again, and what they still show is kept. Nothing but Python's
own library is used."""

import base64, hashlib, hmac, json, re, struct, sys, tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "tests" / "data"
KEY, SECRET = "APIfuzz", "a-secret-of-at-least-thirty-two-characters"
NOW = 1_800_000_000
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
KINDS = "data headers priority rst_stream settings push_promise ping goaway window_update continuation".split()
FLAGS = {"-": 0, "end_stream": 1, "ack": 1, "end_headers": 4, "padded": 8, "priority": 32}
NUMBER = "0" * 16
BODY = '{"event":"room_started","room":{"sid":"RM_%s"},"id":"EV_%s"}' % (NUMBER, NUMBER)
BYTES_MAX = 24 * 1024


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def sha256(body):
    return base64.b64encode(hashlib.sha256(body).digest()).decode()


def signed(header, claims, secret=SECRET):
    message = b64(header.encode()) + "." + b64(claims.encode())
    return message + "." + b64(hmac.digest(secret.encode(), message.encode(), "sha256"))


def webhook_token(body, exp=4102444800, secret=SECRET):
    claims = '{"iss":"%s","exp":%d,"nbf":1700000000,"sha256":"%s"}' % (KEY, exp, sha256(body))
    return signed('{"alg":"HS256","typ":"JWT"}', claims, secret)


TOKEN = webhook_token(BODY.encode())


def repeated(text):
    out = b""
    for part in text.split():
        pairs, _, times = part.partition("*")
        out += bytes.fromhex(pairs) * min(int(times or 1), 20_000)
    return out


def filled(text, values):
    def value(match):
        name = match.group(1)
        if name.startswith("hex:"):
            return repeated(name[4:]).decode("latin-1")
        if name.startswith("now"):
            return str(NOW + int(name[3:] or 0))
        return values.get(name, "x")

    return re.sub(r"\$\{([^}]*)\}", value, text).encode("utf-8", "surrogatepass")


def cases(folder):
    for path in sorted((DATA / folder).glob("*.toml")):
        yield path.stem, tomllib.loads(path.read_text())


def tokens():
    default = '{"iss":"${key}","exp":${now+300},"nbf":${now},"sha256":"${sha256}"}'
    values = {"key": KEY, "sha256": sha256(b"{}"), "secret": SECRET}
    for name, case in cases("tokens"):
        header = filled(case.get("header", '{"alg":"HS256","typ":"JWT"}'), values)
        claims = filled(case.get("claims", default), values)
        yield name, b"\1" + header + b"\0" + claims
        message = b64(header) + "." + b64(claims)
        signature = b64(hmac.digest(SECRET.encode(), message.encode(), "sha256"))
        more = values | {"header": b64(header), "claims": b64(claims), "signature": signature}
        more["message"] = filled(case.get("message", "${header}.${claims}"), more).decode("latin-1")
        yield name + "-raw", b"\0" + filled(case.get("token", "${message}.${signature}"), more)
    for path in sorted((DATA / "livekit").glob("*.jsonl")):
        line = json.loads(path.read_text().splitlines()[0])
        yield path.stem, b"\0" + line["authorization"].encode()


def events():
    for name, case in cases("bodies"):
        for number, copy in enumerate(case.get("copy", [])):
            if isinstance(copy.get("body"), str):
                yield f"{name}-{number}", filled(copy["body"], {"case": "c"})
    seen = set()
    for path in sorted((DATA / "livekit").glob("*.jsonl")):
        for line in path.read_text().splitlines():
            body = json.loads(line)["body"]
            kind = json.loads(body).get("event")
            if (path.stem, kind) not in seen:
                seen.add((path.stem, kind))
                yield f"{path.stem}-{kind}", body.encode()


def configurations():
    for folder in (DATA / "config", ROOT / "config"):
        for path in sorted(folder.glob("*.toml")):
            text = path.read_bytes()
            yield path.stem, text
    whole = (ROOT / "config" / "oncehook.toml").read_text()
    yield "every-key", "\n".join(re.sub(r"^# (\S+ = |\[)", r"\1", line) for line in whole.splitlines()).encode()
    variables = ["LIVEKIT_API_KEY=APIfuzz", "LIVEKIT_API_SECRET=s3cret-of-thirty-two-characters-x", "ONCEHOOK_TLS__ENABLED=false",
                 "ONCEHOOK_UPSTREAM__BACKEND=http://127.0.0.1:8080/hook"]
    yield "variables", b"\0" + "\n".join(variables).encode()
    yield "variables-2", b'[claim]\nlease = "20s"\n\0' + "\n".join(
        [*variables, "REDIS_URL=redis://user:pass@redis:6379/1", "LIVEKIT_KEYS=a: b", "ONCEHOOK_CLAIM__GUARD=3s"]).encode()


def proxies():
    for number, line in enumerate(["TCP4 192.0.2.1 198.51.100.1 56324 443", "TCP6 2001:db8::1 2001:db8::2 1 65535", "UNKNOWN",
                                   "UNKNOWN ffff:f...f:ffff 65535", "TCP4 192.0.2.1 198.51.100.1 056324 443", "TCP6 ::ffff:1.2.3.4 ::1 0 0"]):
        yield f"v1-{number}", f"PROXY {line}\r\nGET / HTTP/1.1\r\n".encode()
    blocks = {0x11: bytes(range(12)), 0x12: bytes(12), 0x21: bytes(range(36)), 0x22: bytes(36), 0x31: bytes(216), 0: b"", 0x41: b""}
    for family, block in blocks.items():
        for command in (0x20, 0x21, 0x22, 0x11):
            rest = block + b"\x04\x00\x03abc"
            head = b"\r\n\r\n\0\r\nQUIT\n" + bytes([command, family]) + struct.pack(">H", len(rest))
            yield f"v2-{family}-{command}", head + rest + b"GET /"


def disks():
    lease = b"L" + bytes(15) + b"\x07" + struct.pack(">IIQ", 3, 2, 7)
    for number, record in enumerate([lease, b"R" + struct.pack(">IIQ", 2, 0, 9), b"L" + b"\xff" * 32, b"SD" + struct.pack(">HQ", 204, 7),
                                     b"SR" + struct.pack(">HQ", 422, 7), b"SU" + struct.pack(">HQ", 0, 7), b"SU\1\1" + bytes(8)]):
        for kind in range(3):
            choice = bytes([kind, kind]) + bytes(15) + b"\x07" + struct.pack(">QQ", 8, 5)
            yield f"{number}-{kind}", choice + struct.pack(">Q", 99) + record


def bulk(text):
    return b"$%d\r\n%s\r\n" % (len(text), text)


def redises():
    answers = {
        "won": b"*3\r\n" + bulk(b"won") + b":2\r\n:1\r\n", "busy": b"*2\r\n" + bulk(b"busy") + b":900\r\n",
        "duplicate": b"*3\r\n" + bulk(b"duplicate") + bulk(b"D200") + bulk(bytes(range(8))),
        "unknown": b"*3\r\n" + bulk(b"duplicate") + bulk(b"U000") + bulk(bytes(8)),
        "done": b"*1\r\n" + bulk(b"done"), "settled": b"*1\r\n" + bulk(b"already_settled"), "fenced": b"*1\r\n" + bulk(b"fenced"),
        "nil": b"$-1\r\n", "null": b"_\r\n", "push": b">2\r\n+message\r\n+x\r\n", "map": b"%1\r\n+a\r\n:1\r\n", "set": b"~1\r\n:1\r\n",
        "attribute": b"|1\r\n+ttl\r\n:1\r\n*1\r\n" + bulk(b"done"), "big": b"(123456789012345678901234567890\r\n", "double": b",1.5\r\n",
        "verbatim": b"=7\r\ntxt:won\r\n", "bool": b"#t\r\n", "blob": b"!9\r\nERR wrong\r\n", "deep": b"*1\r\n" * 200, "huge": b"*1000000000\r\n",
        "huge-text": b"$999999999\r\nx", "negative": b"*-7\r\n", "lapses": b"*3\r\n" + bulk(b"won") + b":1\r\n:9\r\n",
        "none": b"*3\r\n" + bulk(b"won") + b":0\r\n:0\r\n", "plus": b"*3\r\n" + bulk(b"duplicate") + bulk(b"D+20") + bulk(bytes(8)),
        "http": b"HTTP/1.1 400 Bad Request\r\n\r\n", "ssh": b"SSH-2.0-OpenSSH_9.6\r\n", "empty": b"", "moved": b"-MOVED 1 127.0.0.1:1\r\n",
        "ask": b"-ASK 1 127.0.0.1:1\r\n", "moved-short": b"-MOVED\r\n", "noscript": b"-NOSCRIPT none\r\n*1\r\n" + bulk(b"fenced"),
    }
    words = "NOAUTH NOPERM WRONGTYPE LOADING READONLY BUSY OOM MISCONF CLUSTERDOWN BADRECORD".split()
    answers |= {word: b"-%s text\r\n" % word.encode() for word in words}
    for name, answer in answers.items():
        yield name, b"\0" + answer
        yield name + "-in", b"\x0c+OK\r\n" + answer
    owner = b"%032x" % 7
    values = {
        "first": b"1F" + owner + b":60000:60000", "later": b"1L" + owner + b":2:1:99", "other": b"1F" + b"8" * 32 + b":1:1",
        "settled": b"D200" + bytes(8), "refused": b"R422" + bytes(8), "no-verdict": b"X200" + bytes(8), "released": b"1R1:0:99",
    }
    # To a claim and to a settle: an old value, and what the script says where that is not enough.
    for name, value in values.items():
        for choice in (b"\1", b"\2"):
            yield f"old-{name}-{choice[0]}", choice + bulk(value) + b"*3\r\n" + bulk(b"won") + b":2\r\n:1\r\n"
    for name, answer in {"nil": b"$-1\r\n", "null": b"_\r\n", "syntax": b"-ERR syntax error\r\n"}.items():
        yield f"old-{name}-1", b"\1" + answer
        yield f"old-{name}-2", b"\2" + answer
    yield "told", b"\x04-WRONGPASS hunter2hunter2hunter2 is wrong\r\n"
    yield "told-2", b"\x04$21\r\nhunter2hunter2hunter2\r\n"


def unescaped(text):
    pairs = {"r": b"\r", "n": b"\n", "t": b"\t", "0": b"\0", "\\": b"\\"}
    out = bytearray()
    at = 0
    while at < len(text):
        if text[at] != "\\":
            out += text[at].encode()
            at += 1
        elif text[at + 1] == "x":
            out.append(int(text[at + 2:at + 4], 16))
            at += 4
        else:
            out += pairs[text[at + 1]]
            at += 2
    return bytes(out)


def http1(path):
    request = path.read_text().split("\n---\n", 1)[1].replace("\n", "")
    body = BODY.encode()
    out = b""
    for part in re.split(r"(\{\{.*?\}\})", request):
        if not part.startswith("{{"):
            out += unescaped(part)
            continue
        word, _, argument = part[2:-2].partition(" ")
        if word == "token":
            out += TOKEN.encode()
        elif word == "body":
            out += body
        elif word == "length":
            out += str(len(body) + int(argument or 0)).encode()
        elif word == "hex":
            out += b"%x" % len(body)
        elif word == "chunks":
            out += b"%x\r\n%s\r\n" % (len(body), body)
        elif word == "foreign":
            out += webhook_token(body, secret="another-secret-of-thirty-two-characters").encode()
        elif word == "stale":
            out += webhook_token(body, exp=1_700_000_600).encode()
        elif word == "repeat":
            times, _, what = argument.partition(" ")
            out += unescaped(what) * int(times)
    return out


def integer(number, bits, first):
    most = (1 << bits) - 1
    if number < most:
        return bytes([first | number])
    out, number = [first | most], number - most
    while number >= 128:
        out.append(number % 128 | 128)
        number //= 128
    return bytes([*out, number])


def field(name, value):
    return b"\0" + integer(len(name), 7, 0) + name + integer(len(value), 7, 0) + value


def frame(kind, flags, stream, payload, length=None):
    length = len(payload) if length is None else length
    return struct.pack(">I", length)[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


class Frames:
    """A file of tests/data/http2, as its README says."""

    def __init__(self, text):
        self.stream, self.out = 0, b""
        self.values = {"token": TOKEN, "body": BODY, "length": str(len(BODY))}
        self.all(text.split("\n\n", 1)[1].splitlines())

    def all(self, lines):
        at = 0
        while at < len(lines):
            step, at, payload = lines[at], at + 1, []
            while at < len(lines) and lines[at].startswith("  "):
                payload.append(lines[at].lstrip())
                at += 1
            if not step or step.startswith("#"):
                continue
            if step.startswith("repeat "):
                end = lines.index("end", at)
                for _ in range(min(int(step[7:]), 600)):
                    self.all(lines[at:end])
                at = end + 1
                continue
            self.one(step.split(" "), b"".join(map(self.payload, payload)))

    def one(self, words, payload):
        if words[0] in ("hello", "preface"):
            self.out += PREFACE
            if words[0] == "hello":
                self.out += frame(4, 0, 0, struct.pack(">HI", 1, 0))
        elif words[0] == "raw":
            self.out += payload
        elif words[0] != "await":
            kind = KINDS.index(words[0]) if words[0] in KINDS else int(words[0], 16)
            flags = sum({FLAGS[flag] if flag in FLAGS else int(flag, 16) for flag in words[2].split("+")})
            length = int(words[3].split("=")[1]) if len(words) > 3 else None
            self.out += frame(kind, flags & 255, self.of(words[1]), payload, length)

    def of(self, word):
        if word == "0":
            return 0
        if word == "next":
            self.stream = self.stream + 2 if self.stream else 1
        elif word != "same":
            self.stream = int(word)
        return self.stream

    def payload(self, line):
        if line.startswith("hex "):
            return repeated(line[4:])
        if line.startswith("text "):
            return filled(line[5:], self.values)
        if line.startswith("set "):
            return struct.pack(">HI", *map(int, line[4:].split(" ")))
        name, value = line.rsplit(": ", 1) if ": " in line and not line.endswith(":") else (line.removesuffix(":"), "")
        if ": " in line:
            name, value = line.split(": ", 1)
        # It may be in Latin-1 where it is no UTF-8.
        return field(filled(name, self.values), filled(value, self.values))


def services():
    for path in sorted((DATA / "http1").glob("*.http")):
        yield path.stem + "-1", b"\0\0" + http1(path)
    for name in ("plain-length", "plain-chunked", "pipeline-two", "expect-continue"):
        path = DATA / "http1" / (name + ".http")
        if path.exists():
            for choice in (2, 4, 6):
                yield f"{name}-{choice}", bytes([choice, 13]) + http1(path)
    # From a trusted proxy, and with a backend behind the relay that changes the protocol, asked (8) or not (16).
    for path in sorted((DATA / "http1").glob("spoof-*.http")):
        yield path.stem + "-trusted", b"\x20\0" + http1(path)
    for path in sorted((DATA / "http1").glob("upgrade-*.http")):
        yield path.stem + "-8", b"\x08\0" + http1(path)
    webhook = http1(DATA / "http1" / "plain-length.http")
    get = b"GET /api/socket HTTP/1.1\r\nHost: gateway\r\n"
    wish = get + b"Connection: upgrade\r\nUpgrade: websocket\r\n\r\n"
    yield "relayed-unasked", b"\x10\0" + get + b"\r\n"
    for name, sent in {"bytes": wish + b"\0\x81\x05hello\xff\n\r\n\r\n", "webhook-inside": wish + webhook, "wish-inside": wish + wish,
                       "after-webhook": webhook + wish + b"tunnel", "long": wish + bytes(range(256)) * 40, "nothing": wish,
                       "expect": wish[:-2] + b"Expect: 100-continue\r\n\r\nbytes", "zero": wish[:-2] + b"Content-Length: 0\r\n\r\nbytes",
                       "unnamed": get + b"Upgrade: websocket\r\n\r\nbytes", "old": wish.replace(b"/1.1", b"/1.0") + b"bytes",
                       "lf-inside": wish + b"GET / HTTP/1.1\nHost: a\n\n"}.items():
        for choice, pieces in ((8, 0), (0x48, 9), (0x28, 5), (0, 3), (8, 201)):
            yield f"tunnel-{name}-{choice}-{pieces}", bytes([choice, pieces]) + sent
    for path in sorted((DATA / "http2").glob("*.frames")):
        yield path.stem + "-2", b"\1\0" + Frames(path.read_text()).out
        if path.stem.startswith("valid"):
            yield path.stem + "-2p", b"\5\x0d" + Frames(path.read_text()).out


TARGETS = {"token": tokens, "event": events, "configuration": configurations, "proxy_protocol": proxies, "store_disk": disks,
           "store_redis": redises, "service": services}

for target, seeds in TARGETS.items():
    folder = Path(sys.argv[1]) / target
    folder.mkdir(parents=True, exist_ok=True)
    count = 0
    for name, seed in seeds():
        if len(seed) <= BYTES_MAX:
            (folder / hashlib.sha1(seed).hexdigest()).write_bytes(seed)
            count += 1
    print(f"{target}: {count} seeds")
