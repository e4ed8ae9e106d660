"""The web service of the README's example. Each request runs this file's page() anew, so an edit shows at once."""

import http.server
import os
import runpy
import subprocess

DATABASE = os.environ.get("YOUR_DATABASE_HOST", "localhost")


def page(path):
    if path == "/greetings":
        return query("SELECT text FROM greetings ORDER BY text")
    return f"yourcode says hello, its database is {DATABASE}\n"


def query(sql):
    url = f"postgresql://yourcode:yourcode@{DATABASE}/yourcode?connect_timeout=5"
    return subprocess.run(["psql", "-At", "-c", sql, url], check=True, capture_output=True, text=True).stdout


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        try:
            status, text = 200, runpy.run_path(__file__)["page"](self.path)
        except Exception as error:
            status, text = 500, f"{error}\n"
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    http.server.ThreadingHTTPServer(("0.0.0.0", 8080), Handler).serve_forever()
