"""`scripts/bench traces [PART …]`: the trace path beside its raw limits, measured in the same run.

A part runs once a round and gives figures; the table shows the medians. A part of benches/traces/ is one line in PARTS:
it is started as `traces PART seconds=N dir=FOLDER SERVER=ADDRESS …` and prints one line of JSON a figure on standard output:

    {"figure": "events/s confirmed", "value": 512345, "unit": "events/s", "raw": 601234, "raw_figure": "bare lapin loop",
     "aim": "500,000/s and 80% of raw"}

`raw`, `raw_figure` and `aim` may be left out; `value / raw` of each round gives the ratio. The newest table of a run with
every part stays in scripts/bench-results/traces.md. GOMS_BENCH_RABBITMQ, …_ELASTICSEARCH, …_ETCD name servers that run
already; without them each is started, on ports and in a folder of this run's own.
"""

import argparse
import contextlib
import dataclasses
import datetime
import json
import os
import pathlib
import platform
import statistics
import subprocess
import tempfile
from typing import Callable


@dataclasses.dataclass
class Part:
    """What it measures, which servers it needs (names of scripts/services), what goes to the program."""

    title: str
    servers: tuple = ()
    arguments: tuple = ()
    run: Callable = None  # (bench, context) -> figures; None: benches/traces does it


def main(bench, words):
    """`bench` is the module of scripts/bench: its helpers start, wait for and end processes."""
    results = bench.ROOT / "scripts" / "bench-results" / "traces.md"
    parser = argparse.ArgumentParser(prog="scripts/bench traces", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"what to measure: {', '.join(PARTS)} (default: all)")
    parser.add_argument("--part", action="append", choices=list(PARTS), help="the same, one at a time; may be repeated")
    parser.add_argument("--rounds", type=int, default=3, help="rounds (default %(default)s)")
    parser.add_argument("--seconds", type=int, default=10, help="about the length of a measurement (default %(default)s)")
    parser.add_argument("--arg", action="append", default=[], metavar="KEY=VALUE", help="handed to the parts of benches/traces as it is")
    parser.add_argument("--profile", default="bench", help="cargo profile of benches/traces (default %(default)s)")
    parser.add_argument("--no-save", action="store_true", help="print only; leave scripts/bench-results/traces.md as it is")
    options = parser.parse_args(words)
    if min(options.rounds, options.seconds) < 1:
        parser.error("--rounds and --seconds must be at least 1")
    options.part = options.parts + (options.part or [])
    if unknown := [name for name in options.part if name not in PARTS]:
        parser.error(f"there is no part `{unknown[0]}`; the parts are {', '.join(PARTS)}")
    names = [name for name in PARTS if not options.part or name in options.part]

    program = build(bench, options.profile)
    rows = {}
    with tempfile.TemporaryDirectory(prefix="goms-bench-") as folder, contextlib.ExitStack() as stack:
        folder = pathlib.Path(folder)
        folder.chmod(0o755)  # nginx's worker runs as another user when started by root
        wanted = sorted({server for name in names for server in PARTS[name].servers})
        context = Context(folder, options, program, start_servers(bench, folder, wanted, stack), stack)
        for name in names:
            rows[name] = medians(rounds(bench, name, context))
    text = table(bench, rows, options)
    print(text, end="")
    if options.no_save or options.part:
        bench.say(f"not kept: only a run of every part goes to {results.relative_to(bench.ROOT)}")
    else:
        results.write_text("# scripts/bench traces, the newest run\n\n" + text)
        bench.say(f"kept in {results.relative_to(bench.ROOT)}")


@dataclasses.dataclass
class Context:
    """What a part may use: a folder, the options, the built program, the addresses of the servers, things to end at the end."""

    folder: pathlib.Path
    options: argparse.Namespace
    program: pathlib.Path
    servers: dict
    stack: contextlib.ExitStack
    memory: dict = dataclasses.field(default_factory=dict)


def build(bench, profile):
    """The program of benches/traces, built with the profile."""
    command = ["bench", "--locked", "--bench", "traces", "--no-run", "--profile", profile, "--message-format", "json"]
    bench.say("cargo " + " ".join(command))
    built = subprocess.run(["cargo", *command], cwd=bench.ROOT, stdout=subprocess.PIPE, text=True)
    if built.returncode != 0:
        bench.fail("the build failed")
    for line in built.stdout.splitlines():
        told = json.loads(line)
        if told.get("reason") == "compiler-artifact" and told["target"]["name"] == "traces" and told.get("executable"):
            return pathlib.Path(told["executable"])
    bench.fail("cargo does not say where benches/traces is")


def start_servers(bench, folder, names, stack):
    """Real servers of this run's own, through scripts/services: name → address."""
    flags = {"etcd": "--etcd-port", "rabbitmq": "--amqp-port", "elasticsearch": "--es-port"}
    address = {"etcd": "127.0.0.1:{}", "rabbitmq": "amqp://guest:guest@127.0.0.1:{}/%2f", "elasticsearch": "http://127.0.0.1:{}"}
    found, command = {}, [str(bench.ROOT / "scripts" / "services")]
    for name in names:
        if given := os.environ.get(f"GOMS_BENCH_{name.upper()}"):
            found[name] = given  # one that runs already
            continue
        port = str(bench.free_port())
        place = ["--dir", str(folder / "services"), flags[name], port, name]
        env = {"ES_FAST": "0", "GOMS_SERVICES": "packages", **os.environ}
        if subprocess.run([*command, "up", *place], env=env).returncode != 0:
            bench.fail(f"{name} does not start")
        stack.callback(subprocess.run, [*command, "down", *place], env=env)
        found[name] = address[name].format(port)
    return found


def rounds(bench, name, context):
    """All rounds of a part: a list of figures each."""
    part, found = PARTS[name], []
    for turn in range(context.options.rounds):
        bench.say(f"round {turn + 1}/{context.options.rounds}: {part.title}")
        figures = part.run(bench, context) if part.run else run_program(bench, name, context)
        for figure in figures:
            raw = f", raw {number(figure['raw'])} ({figure['value'] / figure['raw']:.2f}x)" if figure.get("raw") else ""
            bench.say(f"  {figure['figure']}: {number(figure['value'])} {figure.get('unit', '')}{raw}")
        found.append(figures)
    return found


def run_program(bench, name, context):
    """A part of benches/traces: its lines of JSON."""
    part = PARTS[name]
    words = [f"{server}={context.servers[server]}" for server in part.servers]
    words += [f"seconds={context.options.seconds}", f"dir={context.folder}", *part.arguments, *context.options.arg]
    done = subprocess.run([str(context.program), name, *words], stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        bench.fail(f"the part {name} ended with {done.returncode}")
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def medians(found):
    """One row a figure, in the order of the first round."""
    rows = []
    for first in found[0]:
        same = [figure for figures in found for figure in figures if figure["figure"] == first["figure"]]
        row = {**first, "value": statistics.median(figure["value"] for figure in same)}
        if first.get("raw"):
            row["raw"] = statistics.median(figure["raw"] for figure in same)
            row["ratio"] = statistics.median(figure["value"] / figure["raw"] for figure in same)
        rows.append(row)
    return rows


def number(value):
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def table(bench, rows, options):
    commit = bench.version(["git", "-C", str(bench.ROOT), "rev-parse", "--short", "HEAD"], r"(\w+)")
    kernel = ".".join(platform.release().split(".")[:2])
    lines = [f"{datetime.date.today()}, commit {commit}, {os.cpu_count()} cores, Linux {kernel} {platform.machine()}, load "
             f"{os.getloadavg()[0]:.1f}", "", "| part | figure | measured | raw limit | ratio | aim |", "|---|---|---|---|---|---|"]
    for name, figures in rows.items():
        for row in figures:
            unit = f" {row['unit']}" if row.get("unit") else ""
            raw = f"{number(row['raw'])}{unit} ({row.get('raw_figure', 'raw')})" if row.get("raw") else "-"
            ratio = f"{row['ratio']:.2f}x" if row.get("ratio") else "-"
            lines.append(f"| {name} | {row['figure']} | {number(row['value'])}{unit} | {raw} | {ratio} | {row.get('aim', '-')} |")
    lines += ["", f"Medians of {options.rounds} rounds, each figure and its raw limit in the same round; the ratio is the median of the "
              "rounds' ratios."]
    return "\n".join(lines) + "\n"


# --- parts that are no program of benches/traces ---


def gateway(bench, context):
    """CPU of a gateway worker's process a request, traces off and on (two events a request, RabbitMQ)."""
    running = context.memory.get("gateway")
    if not running:
        os.environ["PATH"] = bench.search_path()
        bench.need(nginx="nginx", wrk="wrk", etcd="etcd-server", etcdctl="etcd-client")
        bench.cargo("build", "--locked", "--release", "--bin", "goms")
        backend = bench.free_port()
        context.stack.enter_context(bench.start_backend(context.folder / "backend", backend))
        on = f"traces: {{ sample: 1 }}\namqpAddr: \"{context.servers['rabbitmq']}\"\namqp: {{ queue: goms-bench-gateway }}\n"
        running = [context.stack.enter_context(bench.peer_goms(context.folder / name, backend, traces))
                   for name, traces in [("off", "traces: { sample: 0 }\n"), ("on", on)]]
        for process, port in running:
            bench.load(process, port, 1, 64)  # warm up
        context.memory["gateway"] = running
    # in short turns, so that what else the machine does falls on both alike
    turns = max(context.options.seconds // 2, 1)
    runs = [[bench.load(process, port, 2, 64) for process, port in running] for _ in range(turns)]
    off, on = (statistics.median(run[which]["cpu"] for run in runs) for which in (0, 1))
    added = statistics.median(run[1]["cpu"] - run[0]["cpu"] for run in runs)
    return [
        {"figure": "gateway CPU added by two events a request", "value": added, "unit": "µs/request", "aim": "at most 3 µs"},
        {"figure": "gateway CPU, traces on", "value": on, "unit": "µs/request", "raw": off, "raw_figure": "traces off"},
        {"figure": "gateway p99, traces on", "value": statistics.median(run[1]["p99"] for run in runs), "unit": "ms",
         "raw": statistics.median(run[0]["p99"] for run in runs), "raw_figure": "traces off"},
        {"figure": "gateway RSS under load, traces on", "value": statistics.median(run[1]["rss"] for run in runs), "unit": "MB",
         "raw": statistics.median(run[0]["rss"] for run in runs), "raw_figure": "traces off"},
    ]


PARTS = {
    "publish": Part("recorder to RabbitMQ, confirmed and durable", servers=("rabbitmq",)),
    "consumer": Part("RabbitMQ to Elasticsearch and to the embedded store", servers=("rabbitmq", "elasticsearch")),
    "elastic": Part("the Elasticsearch store: writing", servers=("elasticsearch",)),
    "embedded": Part("the embedded store: writing, searching, counting, opening"),
    "gateway": Part("gateway CPU a request, traces off and on", servers=("rabbitmq",), run=gateway),
}
