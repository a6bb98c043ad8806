"""`scripts/bench matrix`: goms beside nginx over many kinds of load, in short runs, one row a kind.

    bodies        POST of JSON; answers of 1 KB, 64 KB and 1 MB
    doors         HTTP/1.1 and HTTP/2, plain and by TLS
    connections   1, 512 and 5,000 at once; two workers
    memory        of a connection that has asked once and is idle

Both proxies call the same nginx, with keep-alive. wrk makes the load, of HTTP/2 h2load. They take turns, round after round; each
figure is the median of the rounds, and CPU that of all processes of a proxy.
"""

import argparse
import contextlib
import datetime
import os
import pathlib
import platform
import re
import resource
import socket
import statistics
import subprocess
import tempfile
import time

PREFIX = "/api/user/"
POST = '{"username":"john","password":"secret","numbers":[1,2,3,4,5],"text":"' + "x" * 60 + '"}'
ANSWERS = {"k1": 1 << 10, "k64": 64 << 10, "m1": 1 << 20}
IDLE = 1000  # connections whose memory is measured
MANY_SECONDS = 6  # thousands of connections take a while to be made

# title, path, connections, workers, and how: of wrk its protocol, or h2load's connections and streams of each
ROWS = [
    ("GET, 160 bytes of JSON", "bench", 64, 1, "http"),
    ("POST of JSON, the same answer", "bench", 64, 1, "post"),
    ("answer of 1 KB", "k1", 64, 1, "http"),
    ("answer of 64 KB", "k64", 64, 1, "http"),
    ("answer of 1 MB", "m1", 16, 1, "http"),
    ("TLS, HTTP/1.1", "bench", 64, 1, "https"),
    ("HTTP/2, 8 streams on each of 8 connections", "bench", 8, 1, "h2"),
    ("HTTP/2 by TLS, the same", "bench", 8, 1, "h2s"),
    ("1 connection", "bench", 1, 1, "http"),
    ("512 connections", "bench", 512, 1, "http"),
    ("5,000 connections", "bench", 5000, 1, "http"),
    ("2 workers", "bench", 64, 2, "http"),
]


def main(bench, words):
    """`bench` is the module of scripts/bench: its helpers start, wait for and end processes."""
    results = bench.ROOT / "scripts" / "bench-results" / "matrix.md"
    parser = argparse.ArgumentParser(prog="scripts/bench matrix", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="rounds (default %(default)s)")
    parser.add_argument("--seconds", type=int, default=3, help="length of each run (default %(default)s)")
    parser.add_argument("--rows", default="", help="only rows whose title contains this")
    parser.add_argument("--no-save", action="store_true", help="print only; leave scripts/bench-results/matrix.md as it is")
    options = parser.parse_args(words)
    if min(options.rounds, options.seconds) < 1:
        parser.error("--rounds and --seconds must be at least 1")
    rows = [row for row in ROWS if options.rows in row[0]]
    os.environ["PATH"] = bench.search_path()
    bench.need(nginx="nginx", wrk="wrk", h2load="nghttp2-client", openssl="openssl")
    bench.cargo("build", "--locked", "--release", "--bin", "goms")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # 5,000 connections have two ends, and as many go on to the backend
    with tempfile.TemporaryDirectory(prefix="goms-bench-") as folder:
        folder = pathlib.Path(folder)
        folder.chmod(0o755)  # nginx's worker runs as another user when started by root
        lines = table(*measure(bench, folder, rows, options), options)
    commit = bench.version(["git", "-C", str(bench.ROOT), "rev-parse", "--short", "HEAD"], r"(\w+)")
    kernel = ".".join(platform.release().split(".")[:2])
    text = "\n".join([f"{datetime.date.today()}, commit {commit}, {os.cpu_count()} cores, Linux {kernel} {platform.machine()}", "", *lines]) + "\n"
    print(text, end="")
    if options.no_save or rows != ROWS:
        bench.say("not kept: only a run of every row goes to scripts/bench-results/matrix.md")
    else:
        results.write_text("# scripts/bench matrix, the newest run\n\n" + text)
        bench.say(f"kept in {results.relative_to(bench.ROOT)}")


# --- the backend and the two proxies ---


def nginx(bench, folder, workers, inside, port, path):
    folder.mkdir()
    conf = bench.nginx_conf(folder, inside)
    conf = conf.replace("worker_processes 1;", f"worker_processes {workers}; worker_rlimit_nofile 30000;")
    (folder / "nginx.conf").write_text(conf.replace("worker_connections 2048;", "worker_connections 15000;"))
    process = bench.Process(["nginx", "-p", folder, "-e", folder / "error.log", "-c", folder / "nginx.conf"], folder / "log")
    process.wait_until(lambda: bench.http_status(port, path) == 200, "nginx")
    return process


def backend(bench, folder):
    files = folder / "files"
    files.mkdir()
    files.chmod(0o755)
    for name, size in ANSWERS.items():
        (files / name).write_bytes(b"x" * size)
    port = bench.free_port()
    return nginx(bench, folder / "backend", 1, f"""
      open_file_cache max=10; sendfile on; tcp_nopush on;
      server {{
        listen 127.0.0.1:{port} backlog=8192;
        location = /bench {{ default_type application/json; return 200 '{bench.BODY}'; }}
        location / {{ default_type text/plain; root {files}; }}
      }}""", port, "/bench"), port


def proxy_nginx(bench, folder, origin, certificate, workers):
    ports = {door: bench.free_port() for door in ("http", "https", "h2", "h2s")}
    cert, key = certificate
    tls = f"ssl_certificate {cert}; ssl_certificate_key {key}; ssl_protocols TLSv1.2 TLSv1.3; http2_max_requests 1000000000;"
    pass_on = f"""location {PREFIX} {{ proxy_pass http://backend/; proxy_http_version 1.1; proxy_set_header Connection ""; }}"""
    process = nginx(bench, folder, workers, f"""
      upstream backend {{ server 127.0.0.1:{origin}; keepalive 6000; keepalive_requests 1000000000; }}
      server {{
        listen 127.0.0.1:{ports['http']} backlog=8192; listen 127.0.0.1:{ports['h2']} http2;
        listen 127.0.0.1:{ports['https']} ssl; listen 127.0.0.1:{ports['h2s']} ssl http2;
        {tls} {pass_on}
      }}""", ports["http"], f"{PREFIX}bench")
    return process, ports


def proxy_goms(bench, folder, origin, certificate, workers):
    folder.mkdir()
    http, https, rpc, admin = (bench.free_port() for _ in range(4))
    cert, key = certificate
    (folder / "config.yml").write_text(
        f"routes:\n  - match: {{ path: '{PREFIX}*' }}\n    urls: ['http://127.0.0.1:{origin}']\n    strip: {PREFIX.rstrip('/')}\n"
        "    encode: json\n    answer: goms\n"  # as an action's: what goes in and comes out as JSON is read
        f"tls: {{ certificates: [{{ cert: {cert}, key: {key} }}] }}\nlimits: {{ connections: 20000, inFlight: 20000 }}\ntraces: {{ sample: 0 }}\n")
    command = [bench.TARGET / "goms", "gateway", "--http-port", http, "--https-port", https, "--rpc-port", rpc, "--admin-port", admin,
               "--workers", workers, "--config", folder / "config.yml", "--bind", "127.0.0.1"]
    process = bench.Process(command, folder / "log", bench.folders(folder))
    process.wait_until(lambda: bench.http_status(http, f"{PREFIX}bench") == 200, "the goms gateway")
    return process, {"http": http, "https": https, "h2": http, "h2s": https}


PROXIES = {"nginx": proxy_nginx, "goms": proxy_goms}


def certificate(folder):
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
                    "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", key, "-out", cert],
                   check=True, capture_output=True)
    return cert, key


# --- measuring ---


def measure(bench, folder, rows, options):
    """Per row and proxy the figures of each round, and the bytes of an idle connection."""
    runs, memory = {}, {}
    script = folder / "post.lua"
    script.write_text(f"wrk.method = 'POST'\nwrk.body = '{POST}'\nwrk.headers['Content-Type'] = 'application/json'\n")
    with contextlib.ExitStack() as stack:
        process, origin = backend(bench, folder)
        stack.enter_context(process)
        pem = certificate(folder)
        running = {}
        for workers in sorted({row[3] for row in rows}):
            for name, start in PROXIES.items():
                running[name, workers] = start(bench, folder / f"{name}{workers}", origin, pem, workers)
                stack.enter_context(running[name, workers][0])
        if 1 in {row[3] for row in rows}:
            for name in PROXIES:
                memory[name] = idle(bench, *running[name, 1])
        for turn in range(options.rounds):
            for row in rows:
                for name in PROXIES:
                    process, ports = running[name, row[3]]
                    figures = load(bench, process, ports, row, options.seconds, script)
                    runs.setdefault((row[0], name), []).append(figures)
                    bench.say(f"round {turn + 1}: {row[0]:45} {name:6} {figures['cpu']:7.1f} µs, {figures['rate']:8.0f}/s")
    return rows, runs, memory


def load(bench, process, ports, row, seconds, script):
    _, path, connections, _, how = row
    seconds = max(seconds, MANY_SECONDS) if connections > 1000 else seconds
    before = process.cpu_seconds()
    if how in ("h2", "h2s"):
        url = f"{'https' if how == 'h2s' else 'http'}://127.0.0.1:{ports[how]}{PREFIX}{path}"
        run = subprocess.run(["h2load", "-t1", f"-c{connections}", "-m8", f"-D{seconds}", url], capture_output=True, text=True, check=True).stdout
        done = int(re.search(r"status codes: (\d+) 2xx", run)[1])
        bad, p99 = re.search(r"requests: .* ([1-9]\d*) failed", run), None
    else:
        scheme = "https" if how == "https" else "http"
        url = f"{scheme}://127.0.0.1:{ports[scheme]}{PREFIX}{path}"
        wrk = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", *(["-s", str(script)] if how == "post" else []), url]
        run = subprocess.run(wrk, capture_output=True, text=True, check=True).stdout
        done = int(re.search(r"(\d+) requests in", run)[1])
        bad = re.search(r"Non-2xx or 3xx responses: \d+", run) or re.search(r"Socket errors: .*", run)
        p99 = bench.milliseconds(re.search(r"^\s+99%\s+(\S+)", run, re.M)[1])
    bad = bad or (None if done else ["no request was answered"])
    if bad:
        bench.say(f"  WARNING: {bad[0]}")
    cpu = process.cpu_seconds() - before
    return {"cpu": cpu / max(done, 1) * 1e6, "rate": done / seconds, "p99": p99, "bad": int(bool(bad))}


def idle(bench, process, ports):
    """KB that a connection holds which has asked once."""
    ask = f"GET {PREFIX}bench HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()

    def asked():
        connection = socket.create_connection(("127.0.0.1", ports["http"]), timeout=10)
        connection.sendall(ask)
        got = b""
        while b"\r\n\r\n" not in got or not got.endswith(b"}"):
            got += connection.recv(4096)
        return connection

    with contextlib.ExitStack() as stack:
        for _ in range(100):  # what the first ones need besides
            stack.enter_context(asked())
        time.sleep(0.5)
        before = process.rss_mb()
        for _ in range(IDLE):
            stack.enter_context(asked())
        time.sleep(0.5)
        return (process.rss_mb() - before) * 1024 / IDLE


def table(rows, runs, memory, options):
    lines = ["| load | nginx µs | goms µs | of nginx's | nginx/s | goms/s | nginx p99 ms | goms p99 ms |", "|---|---|---|---|---|---|---|---|"]
    for title, *_ in rows:
        of = {name: runs[title, name] for name in PROXIES}
        cpu, rate = ({name: statistics.median(run[key] for run in of[name]) for name in PROXIES} for key in ("cpu", "rate"))
        p99 = {name: "" if of[name][0]["p99"] is None else f"{statistics.median(run['p99'] for run in of[name]):.2f}" for name in PROXIES}
        errors = " (**with errors**)" if any(run["bad"] for name in PROXIES for run in of[name]) else ""
        ratio = f"{cpu['goms'] / cpu['nginx']:.2f}x" if cpu["nginx"] else "-"
        lines.append(f"| {title}{errors} | {cpu['nginx']:.1f} | {cpu['goms']:.1f} | {ratio} | {rate['nginx']:,.0f} | {rate['goms']:,.0f} | "
                     f"{p99['nginx']} | {p99['goms']} |")
    if memory:
        lines += ["", f"A connection that has asked once and is idle holds {memory['nginx']:.1f} KB of nginx and {memory['goms']:.1f} KB of goms "
                  f"(resident memory, {IDLE:,} of them)."]
    return [*lines, "", f"Medians of {options.rounds} rounds of {options.seconds} s, taken in turn; CPU µs a request; one worker each where nothing else is said."]
