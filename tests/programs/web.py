"""The code under many kinds of HTTP: `serve PORT`, and `call VERB HOST PORT` in the cluster."""
import hashlib, http.client, http.server, os, socket, sys, threading

CALLERS = 200
REQUESTS = 5  # of each, on one connection
MIB = 1 << 20
BULK = os.urandom(MIB)
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS = 0, 1, 4
ACK, END_STREAM, END_HEADERS = 1, 1, 4


class Handler(http.server.BaseHTTPRequestHandler):
    """One per connection."""

    protocol_version = "HTTP/1.1"
    requests = 0
    everybody = threading.Barrier(CALLERS)

    def answer(self, text):
        self.requests += 1
        body = text.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        if self.headers.get("Upgrade") == "echo":
            return self.upgrade()
        if self.path == "/everybody":
            self.everybody.wait()
        self.answer(f"{self.path} {self.requests + 1}")

    def do_PUT(self):
        digest, left = hashlib.sha256(), int(self.headers["Content-Length"])
        while left:
            piece = self.rfile.read1(min(left, MIB))
            digest.update(piece)
            left -= len(piece)
        self.answer(digest.hexdigest())

    def upgrade(self):
        """From here on, lines in both directions, and at their end all of them again."""
        self.send_response(101)
        self.send_header("Connection", "Upgrade")
        self.send_header("Upgrade", "echo")
        self.end_headers()
        self.wfile.write(b"welcome\n")
        for line in self.rfile:
            self.wfile.write(line)
        self.wfile.write(b"goodbye\n")
        self.close_connection = True

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = CALLERS
    daemon_threads = True


def frame(kind, flags, stream, payload=b""):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def http2(connection):
    """As much of RFC 9113 as an answer takes: the request is not looked at, and 0x88 is the whole header ":status: 200" (RFC 7541)."""
    reader = connection.makefile("rb")
    assert reader.read(len(PREFACE)) == PREFACE
    connection.sendall(frame(SETTINGS, 0, 0))
    while head := reader.read(9):
        kind, flags, stream = head[3], head[4], int.from_bytes(head[5:], "big")
        reader.read(int.from_bytes(head[:3], "big"))
        if kind == SETTINGS and not flags & ACK:
            connection.sendall(frame(SETTINGS, ACK, 0))
        if kind == HEADERS:
            answer = frame(HEADERS, END_HEADERS, stream, b"\x88")
            connection.sendall(answer + frame(DATA, END_STREAM, stream, f"stream {stream}\n".encode()))


def serve_http2(port):
    server = socket.create_server(("", port))
    while True:
        connection, _ = server.accept()
        threading.Thread(target=http2, args=(connection,), daemon=True).start()


def many(host, port):
    """All at once, each with a connection of its own that it keeps."""
    good = []

    def call(n):
        connection = http.client.HTTPConnection(host, port, timeout=60)
        for request in range(1, REQUESTS + 1):
            path = "/everybody" if request == 1 else f"/{n}"
            connection.request("GET", path)
            answer = connection.getresponse().read().decode()
            assert answer == f"{path} {request}", answer
            good.append(answer)

    calls = [threading.Thread(target=call, args=(n,)) for n in range(CALLERS)]
    for call in calls:
        call.start()
    for call in calls:
        call.join()
    print(len(good))


def upgraded(host, port):
    """More in both directions at once than any buffer takes, after the server's greeting and before its last word."""
    connection = socket.create_connection((host, port), 60)
    connection.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n".encode())
    reader = connection.makefile("rb")
    print(reader.readline().decode().split()[1])
    while reader.readline().strip():
        pass
    print(reader.readline().decode().strip())
    sent = b"".join(b"%d\n" % n for n in range(2_000_000))

    def send():
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)

    sending = threading.Thread(target=send)
    sending.start()
    received = reader.read()
    sending.join()
    print("intact" if received == sent + b"goodbye\n" else f"broken: {len(received)} bytes")


match sys.argv[1:]:
    case ["serve", port, http2_port]:
        threading.Thread(target=serve_http2, args=(int(http2_port),), daemon=True).start()
        Server(("", int(port)), Handler).serve_forever()
    case ["call", verb, host, port]:
        globals()[verb](host, int(port))
