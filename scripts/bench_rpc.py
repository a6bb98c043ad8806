"""`scripts/bench rpc`: calls by RPC through the gateway, beside a direct call and nginx's grpc_pass, in the same run.

    unary     Say.Hello by gRPC (JSON messages), direct, by nginx, by the gateway's RPC port: CPU of the proxy a call
    json      HTTP and JSON in, RPC out, beside HTTP in, HTTP out: CPU of the gateway a request
    stream    Say.Stream by gRPC (protobuf messages of 22 to 28 bytes), one call of a million at a time: CPU of the proxy a message
    chain     Go Micro's two tiers (gateway, 2 greeter-api, 2 greeter): requests for a second of CPU of all five, and the same
              of Go Micro v2.9.1 on etcd (tests/interop), where there is Go

Every process is one of goms with one worker, nodes find each other by the local registry, traces are off. h2load keeps 64
calls in flight on 8 connections, wrk 64 connections. The peers take turns, round after round; figures are medians.
"""

import argparse
import contextlib
import datetime
import os
import pathlib
import platform
import re
import shutil
import statistics
import subprocess
import tempfile
import time

GREETING = b'{"name":"John"}'
CHAIN = "/greeter/say/hello?name=John"
STREAMED = 1_000_000  # messages in a stream
STREAM = b"\x0a\x04John\x10" + bytes([STREAMED & 0x7F | 0x80, STREAMED >> 7 & 0x7F | 0x80, STREAMED >> 14])  # protobuf: name, count


def main(bench, words):
    """`bench` is the module of scripts/bench: its helpers start, wait for and end processes."""
    results = bench.ROOT / "scripts" / "bench-results" / "rpc.md"
    parser = argparse.ArgumentParser(prog="scripts/bench rpc", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="rounds (default %(default)s)")
    parser.add_argument("--seconds", type=int, default=6, help="length of each run (default %(default)s)")
    parser.add_argument("--no-save", action="store_true", help="print only; leave scripts/bench-results/rpc.md as it is")
    options = parser.parse_args(words)
    if min(options.rounds, options.seconds) < 1:
        parser.error("--rounds and --seconds must be at least 1")
    os.environ["PATH"] = bench.search_path()
    bench.need(nginx="nginx", wrk="wrk", h2load="nghttp2-client")
    bench.cargo("build", "--locked", "--release", "--bin", "goms")
    with tempfile.TemporaryDirectory(prefix="goms-bench-") as folder:
        folder = pathlib.Path(folder)
        folder.chmod(0o755)  # nginx's worker runs as another user when started by root
        lines = table(measure(bench, folder, options), options)
    commit = bench.version(["git", "-C", str(bench.ROOT), "rev-parse", "--short", "HEAD"], r"(\w+)")
    kernel = ".".join(platform.release().split(".")[:2])
    text = "\n".join([f"{datetime.date.today()}, commit {commit}, {os.cpu_count()} cores, Linux {kernel} {platform.machine()}", "", *lines]) + "\n"
    print(text, end="")
    if not options.no_save:
        results.write_text("# scripts/bench rpc, the newest run\n\n" + text)
        bench.say(f"kept in {results.relative_to(bench.ROOT)}")


class Cluster:
    """Processes of goms that find each other in one folder."""

    def __init__(self, bench, folder, stack):
        self.bench, self.folder, self.stack, self.count = bench, folder, stack, 0
        folder.mkdir()
        (folder / "config.yml").write_text(
            "services:\n  greeter: { hello: { rpc: Say.Hello } }\n  user: { hello: /hello }\ntraces: { sample: 0 }\n")

    def goms(self, *arguments, ready=None):
        self.count += 1
        http, rpc, admin = (self.bench.free_port() for _ in range(3))
        ports = ["--http-port", http, "--rpc-port", rpc, "--admin-port", admin, "--bind", "127.0.0.1", "--workers", 1]
        command = [self.bench.TARGET / "goms", *arguments, *ports, "--config", self.folder / "config.yml"]
        started = self.bench.Process(command, self.folder / f"log{self.count}", self.bench.folders(self.folder))
        process = self.stack.enter_context(started)
        check = (lambda: self.bench.http_status(http, ready) == 200) if ready else (lambda: self.bench.http_status(admin, "/readyz") == 200)
        process.wait_until(check, " ".join(arguments))
        return process, http, rpc


def measure(bench, folder, options):
    rows = {}
    with contextlib.ExitStack() as stack:
        cluster = Cluster(bench, folder / "goms", stack)
        backend = cluster.goms("service", "greeter", "--label", "one")
        cluster.goms("service", "user")
        gateway = cluster.goms("gateway", ready="/api/greeter/hello?name=John")
        port = bench.free_port()
        (folder / "nginx").mkdir()
        (folder / "nginx" / "nginx.conf").write_text(bench.nginx_conf(folder / "nginx", f"""
  upstream greeter {{ server 127.0.0.1:{backend[2]}; keepalive 64; keepalive_requests 1000000000; }}
  server {{ listen 127.0.0.1:{port} http2; location / {{ grpc_pass grpc://greeter; }} }}"""))
        nginx = bench.Process(["nginx", "-p", folder / "nginx", "-e", folder / "nginx" / "error.log", "-c", folder / "nginx" / "nginx.conf"],
                              folder / "nginx" / "log")
        stack.enter_context(nginx)
        time.sleep(0.5)
        message, stream = folder / "message", folder / "stream"
        message.write_bytes(b"\0" + len(GREETING).to_bytes(4, "big") + GREETING)
        stream.write_bytes(b"\0" + len(STREAM).to_bytes(4, "big") + STREAM)
        for turn in range(options.rounds):
            peers = [("direct", backend[0], backend[2]), ("nginx", nginx, port), ("goms", gateway[0], gateway[2])]
            for name, process, to in peers:
                note(bench, rows, turn, ("unary", name), calls(bench, process, to, message, options.seconds))
            for name, process, to in peers:
                note(bench, rows, turn, ("stream", name), messages(bench, process, to, stream, options.seconds))
            for name, path in [("HTTP to HTTP", "/api/user/hello?name=John"), ("JSON to RPC", "/api/greeter/hello?name=John")]:
                note(bench, rows, turn, ("json", name), requests(bench, [gateway[0]], gateway[1], path, options.seconds))
    with contextlib.ExitStack() as stack:
        cluster = Cluster(bench, folder / "chain", stack)
        tiers = [cluster.goms("service", name, "--label", label) for name in ("greeter", "greeter-api") for label in ("one", "two")]
        gateway = cluster.goms("gateway", "--handler", "api", ready=CHAIN)
        everyone = [process for process, *_ in [*tiers, gateway]]
        chains = [("", everyone, gateway[1])]
        if go := go_chain(bench, folder, stack):
            chains.append(("Go's ", *go))
        for turn in range(options.rounds):
            for whose, processes, port in chains:
                for of, counted in [("all five", processes), ("gateway", processes[-1:])]:
                    note(bench, rows, turn, ("chain", whose + of), requests(bench, counted, port, CHAIN, options.seconds))
    return rows


def go_chain(bench, folder, stack):
    """The same two tiers of Go Micro: its processes, the gateway last, and its port. None where there is no Go."""
    os.environ["PATH"] += ":/usr/local/go/bin"
    if not shutil.which("go"):
        bench.say("no Go here: Go Micro's chain is left out")
        return None
    bench.need(etcd="etcd-server")
    subprocess.run([bench.ROOT / "tests" / "interop" / "build", "v2", folder], check=True, stdout=subprocess.DEVNULL)
    etcd, peer, port = (bench.free_port() for _ in range(3))
    urls = [f"http://127.0.0.1:{each}" for each in (etcd, peer)]
    registry = stack.enter_context(bench.Process(
        ["etcd", "--data-dir", folder / "etcd", "--listen-client-urls", urls[0], "--advertise-client-urls", urls[0], "--listen-peer-urls",
         urls[1], "--initial-advertise-peer-urls", urls[1], "--initial-cluster", f"default={urls[1]}"], folder / "etcd.log"))
    registry.wait_until(lambda: bench.http_status(etcd, "/health") == 200, "etcd")
    nodes = [("server", "go.micro.srv.greeter", "srv one"), ("server", "go.micro.srv.greeter", "srv two"),
             ("api", "go.micro.api.greeter", "api one"), ("api", "go.micro.api.greeter", "api two")]
    common = [folder / "go-micro-v2", "-registry", f"127.0.0.1:{etcd}"]
    processes = [stack.enter_context(bench.Process([*common, "-mode", mode, "-name", name, "-label", label], folder / f"go{nth}.log"))
                 for nth, (mode, name, label) in enumerate(nodes)]
    gateway = stack.enter_context(bench.Process([*common, "-mode", "gateway", "-address", f"127.0.0.1:{port}"], folder / "go.log"))
    gateway.wait_until(lambda: bench.http_status(port, CHAIN) == 200, "Go Micro's gateway")
    return [*processes, gateway], port


def note(bench, rows, turn, key, figures):
    rows.setdefault(key, []).append(figures)
    bench.say(f"round {turn + 1}: {' '.join(key):20} {figures[0]:7.2f} µs, {figures[1]:8.0f}/s")


def calls(bench, process, port, message, seconds):
    """CPU µs of the process a call, and calls/s."""
    before = process.cpu_seconds()
    run = subprocess.run(
        ["h2load", "-t1", "-c8", "-m8", f"-D{seconds}", "-d", str(message), "-H", "content-type: application/grpc+json", "-H", "te: trailers",
         f"http://127.0.0.1:{port}/greeter.Say/Hello"], capture_output=True, text=True, check=True)
    cpu = process.cpu_seconds() - before
    done = int(re.search(r"status codes: (\d+) 2xx", run.stdout)[1])
    if bad := re.search(r"requests: .* ([1-9]\d*) failed", run.stdout):
        bench.say(f"  WARNING: {bad[0]}")
    return cpu / max(done, 1) * 1e6, done / seconds


def messages(bench, process, port, asked, seconds):
    """CPU µs of the process a message of a stream, and messages/s: whole streams of a million, until the time is over."""
    # a frame's head, the field's tag and length, `Hello John srv one `, and the number
    expected = sum(5 + 2 + 19 + digits for digits in (len(str(nth)) for nth in range(1, STREAMED + 1)))
    before, began, done = process.cpu_seconds(), time.perf_counter(), 0
    while time.perf_counter() < began + seconds:
        run = subprocess.run(
            ["h2load", "-t1", "-c1", "-m1", "-n1", "-d", str(asked), "-H", "content-type: application/grpc+proto", "-H", "te: trailers",
             f"http://127.0.0.1:{port}/greeter.Say/Stream"], capture_output=True, text=True, check=True)
        came = int(re.search(r"\((\d+)\) data", run.stdout)[1])
        if came != expected:
            bench.fail(f"a stream of {STREAMED:,} messages has {expected:,} bytes, and {came:,} came:\n{run.stdout}")
        done += STREAMED
    elapsed, cpu = time.perf_counter() - began, process.cpu_seconds() - before
    return cpu / done * 1e6, done / elapsed


def requests(bench, processes, port, path, seconds):
    """CPU µs of the processes a request, and requests/s."""
    before = sum(process.cpu_seconds() for process in processes)
    out = subprocess.run(["wrk", "-t1", "-c64", f"-d{seconds}s", f"http://127.0.0.1:{port}{path}"], capture_output=True, text=True, check=True).stdout
    cpu = sum(process.cpu_seconds() for process in processes) - before
    done = int(re.search(r"(\d+) requests in", out)[1])
    if bad := re.search(r"Non-2xx or 3xx responses: (\d+)", out):
        bench.say(f"  WARNING: {bad[0]}")
    return cpu / max(done, 1) * 1e6, done / seconds


def per_second(cpu, what):
    return f"{1e6 / cpu['chain', what]:,.0f} requests a CPU second" if ("chain", what) in cpu else ""


def against_go(cpu, what):
    """Beside Go Micro's, where that was measured."""
    go = cpu.get(("chain", f"Go's {what}"))
    return ", ".join([*([f"{cpu['chain', what] / go:.2f}x Go Micro's"] if go else []), per_second(cpu, what)])


def table(rows, options):
    cpu = {key: statistics.median(run[0] for run in runs) for key, runs in rows.items()}
    rate = {key: statistics.median(run[1] for run in runs) for key, runs in rows.items()}
    nginx, http = cpu["unary", "nginx"], cpu["json", "HTTP to HTTP"]
    lines = ["| what | CPU µs | beside | calls/s | aim |", "|---|---|---|---|---|"]
    for key, title, beside, aim in [
        (("unary", "direct"), "unary, the service itself, called directly", "", ""),
        (("unary", "nginx"), "unary, nginx grpc_pass", "1.00x", ""),
        (("unary", "goms"), "unary, the gateway's RPC port", f"{cpu['unary', 'goms'] / nginx:.2f}x nginx", "1.00x"),
        (("stream", "direct"), "a stream's message, the service itself", "", "500,000/s"),
        (("stream", "nginx"), "a stream's message, nginx grpc_pass", "1.00x", ""),
        (("stream", "goms"), "a stream's message, the gateway's RPC port", f"{cpu['stream', 'goms'] / cpu['stream', 'nginx']:.2f}x nginx", "500,000/s"),
        (("json", "HTTP to HTTP"), "the gateway, HTTP to HTTP", "1.00x", ""),
        (("json", "JSON to RPC"), "the gateway, JSON to RPC", f"{cpu['json', 'JSON to RPC'] / http:.2f}x", "1.50x"),
        (("chain", "gateway"), "the gateway before two tiers", against_go(cpu, "gateway"), ""),
        (("chain", "Go's gateway"), "Go Micro's gateway before two tiers", "1.00x", ""),
        (("chain", "all five"), "two tiers, all five processes", against_go(cpu, "all five"), "66,500 a CPU second"),
        (("chain", "Go's all five"), "Go Micro's two tiers, all five", per_second(cpu, "Go's all five"), ""),
    ]:
        if key not in cpu:
            continue
        lines.append(f"| {title} | {cpu[key]:.{2 if key[0] == 'stream' else 1}f} | {beside} | {rate[key]:,.0f} | {aim} |")
    return [*lines, "", f"Medians of {options.rounds} rounds of {options.seconds} s, taken in turn; one worker each."]
