#!/usr/bin/env python3
"""Measures payrelay against the article's design, side by side, on this machine.

Starts each server afresh with its own Redis on free ports, has `payrelay bench` load it, and ends by pid whatever it
started. Both take turns (A B A B ...), so that a slow minute of the machine meets both. README.md says what is
compared and what that is worth. Python's standard library only.
"""
import argparse
import contextlib
import datetime
import fcntl
import json
import os
import platform
import shlex
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
ARTICLE = HERE / "article"
SERVERS = ("payrelay", "article")
START_SECS = 20
STOP_SECS = 12
QUIET_SECS = 30
# Node.js translates what runs often, and Redis and both servers take their memory: none of it is what is measured.
WARM_UP_SECS = 2
TICKS = os.sysconf("SC_CLK_TCK")

# What each work adds for payrelay, and for the article's design.
LOAD = ["--clients", "1000", "--senders", "16", "--size", "256"]
WORKS = {
    "W1": ("closed loop, single posts", [], []),
    "W1b": ("closed loop, batches of 128 (the article has none: HTTP pipelining 128 deep)",
            ["--batch", "128"], ["--pipeline", "128"]),
    "W2": ("2,000 payments a second, at fixed times", ["--rate", "2000"], ["--rate", "2000"]),
}
# What the table shows of a result: title, figure, unit.
METRICS = [
    ("accepted", lambda r: r["report"]["accepted_per_second"], "/s"),
    ("delivered", lambda r: r["report"]["delivered_per_second"], "/s"),
    ("answer p50", lambda r: r["report"]["answer_us"]["p50"] / 1000, "ms"),
    ("answer p99", lambda r: r["report"]["answer_us"]["p99"] / 1000, "ms"),
    ("end to end p50", lambda r: r["report"]["end_to_end_us"]["p50"] / 1000, "ms"),
    ("end to end p99", lambda r: r["report"]["end_to_end_us"]["p99"] / 1000, "ms"),
    ("end to end p99.9", lambda r: r["report"]["end_to_end_us"]["p999"] / 1000, "ms"),
    ("CPU for 1,000", lambda r: r["cpu_ms_per_1000"], "ms"),
    ("lost", lambda r: r["report"]["lost"], ""),
]


class Failed(Exception):
    """A line for the user."""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def cpu_ticks(pid):
    """User and system time that a process has used, threads included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


def machine_ticks():
    """(all, idle) of all cores since the start."""
    ticks = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return sum(ticks), ticks[3] + ticks[4]


def await_quiet():
    """Waits until the cores are nine tenths idle, but not for ever; returns how idle they were."""
    until = time.monotonic() + QUIET_SECS
    while True:
        (all_before, idle_before) = machine_ticks()
        time.sleep(0.5)
        (all_after, idle_after) = machine_ticks()
        idle = (idle_after - idle_before) / max(1, all_after - all_before)
        if idle >= 0.9 or time.monotonic() >= until:
            return round(idle, 2)


class Processes:
    """What was started for one run, in a directory of its own; all of it ends with the `with` block."""

    def __init__(self):
        self.dir = Path(tempfile.mkdtemp(prefix="payrelay-bench-"))
        self.running = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.running:
            process.terminate()
        until = time.monotonic() + STOP_SECS
        for process in self.running:
            try:
                process.wait(max(0.1, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self.dir, ignore_errors=True)

    def start(self, name, command, **environment):
        log = open(self.dir / f"{name}.log", "wb")
        with log:
            # A group of its own: Ctrl-C is for us, who then end it in order. No session of its own: Linux would give
            # each a share of the cores whatever it has to do, and the load generator would wait for what it measures.
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.dir,
                                       env={**os.environ, **environment}, preexec_fn=os.setpgrp)
        self.running.append(process)
        return process

    def await_ready(self, name, is_ready):
        until = time.monotonic() + START_SECS
        while True:
            with contextlib.suppress(OSError):
                if is_ready():
                    return
            if self.running[-1].poll() is not None or time.monotonic() >= until:
                log = (self.dir / f"{name}.log").read_text(errors="replace")[-2000:]
                raise Failed(f"{name} did not start:\n{log}")
            time.sleep(0.05)

    def cpu_ticks(self):
        return sum(cpu_ticks(process.pid) for process in self.running)


def start_redis(processes, fsync):
    port = free_port()
    processes.start("redis-server", ["redis-server", "--port", str(port), "--bind", "127.0.0.1",
                                     "--dir", str(processes.dir), "--save", "", "--appendonly", "yes",
                                     "--appendfsync", fsync, "--maxclients", "10000"])

    def answers():
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    processes.await_ready("redis-server", answers)
    return port


def start_payrelay(processes, binary, store, nodes):
    if store == "embedded":
        inbox = ["--data-dir", str(processes.dir / "inbox")]
    else:
        inbox = ["--redis", f"redis://127.0.0.1:{start_redis(processes, store)}/0"]
    ports = []
    for number in range(nodes):
        http, tcp = free_port(), free_port()
        processes.start(f"payrelay-{number}", [binary, "serve", "--http", f"127.0.0.1:{http}",
                                               "--tcp", f"127.0.0.1:{tcp}", *inbox])

        def is_ready():
            with urllib.request.urlopen(f"http://127.0.0.1:{http}/readyz", timeout=2) as response:
                return response.status == 200
        processes.await_ready(f"payrelay-{number}", is_ready)
        ports.append((http, tcp))
    return ports


def start_article(processes, store, nodes):
    # The same Redis, although publishing writes nothing to its disk.
    redis = start_redis(processes, "everysec" if store == "embedded" else store)
    ports = []
    for number in range(nodes):
        http, tcp = free_port(), free_port()
        name = f"node-{number}"
        processes.start(name, ["node", str(ARTICLE / "server.js")],
                        HTTP_PORT=str(http), TCP_PORT=str(tcp), REDIS_PORT=str(redis))
        processes.await_ready(name, lambda: "ready" in (processes.dir / f"{name}.log").read_text())
        ports.append((http, tcp))
    return ports


def load(binary, server, work, secs, ports, processes):
    """Runs the load; returns the report, and the CPU seconds of server and Redis, of the load, of all others."""
    _, for_payrelay, for_article = WORKS[work]
    own = for_payrelay if server == "payrelay" else [*for_article, "--no-ack"]
    command = [binary, "bench", "--http", ",".join(f"http://127.0.0.1:{http}" for http, _ in ports),
               "--tcp", ",".join(f"127.0.0.1:{tcp}" for _, tcp in ports), "--seconds", str(secs), "--json", *LOAD, *own]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PAYRELAY_")}
    children = os.times()
    bench = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                             text=True, env=environment, preexec_fn=os.setpgrp)
    try:
        said, before = "", None
        for line in bench.stderr:
            said = line.strip()
            # The clients have come: from here on it is payments only.
            if before is None and "clients connected" in line:
                before, machine_before = processes.cpu_ticks(), machine_ticks()
        output = bench.stdout.read()
        bench.wait(60)
        after, machine_after = processes.cpu_ticks(), machine_ticks()
    finally:
        if bench.poll() is None:
            bench.kill()
            bench.wait()
    if before is None or not output.strip():
        raise Failed(f"{server}, {work}: {said}")
    if bench.returncode != 0:
        print(f"  {server}, {work}: {said}", file=sys.stderr)
    now = os.times()
    generator = now.children_user + now.children_system - children.children_user - children.children_system
    cpu = (after - before) / TICKS
    busy = (machine_after[0] - machine_before[0]) - (machine_after[1] - machine_before[1])
    return json.loads(output), cpu, generator, max(0, busy / TICKS - cpu - generator)


def measure(binary, server, work, store, secs, nodes):
    idle = await_quiet()
    with Processes() as processes:
        if server == "payrelay":
            ports = start_payrelay(processes, binary, store, nodes)
        else:
            ports = start_article(processes, store, nodes)
        load(binary, server, work, WARM_UP_SECS, ports, processes)
        report, cpu, generator, others = load(binary, server, work, secs, ports, processes)
    thousands = max(1, report["accepted"]) / 1000
    return {
        "server": server, "work": work, "store": store, "nodes": nodes, "secs": secs, "idle_before": idle,
        "cpu_s": round(cpu, 2), "others_cpu_s": round(others, 2),
        "cpu_ms_per_1000": round(cpu * 1000 / thousands, 2),
        "generator_cpu_ms_per_1000": round(generator * 1000 / thousands, 2), "report": report,
    }


def shown(value, unit):
    text = f"{value:,.0f}" if unit in ("/s", "") else f"{value:,.2f}"
    return f"{text}{unit}" if unit == "/s" else f"{text} {unit}".strip()


def table(results, works):
    for work in works:
        rows = {server: [r for r in results if r["work"] == work and r["server"] == server] for server in SERVERS}
        pairs = list(zip(*rows.values()))
        if not pairs:
            continue
        print(f"\n{work}: {WORKS[work][0]}; medians of {len(pairs)}")
        print(f"  {'':18} {'payrelay':>14} {'article':>14}   payrelay / article [min .. max]")
        for title, figure, unit in METRICS:
            ours, theirs = ([figure(pair[side]) for pair in pairs] for side in (0, 1))
            ratios = [a / b for a, b in zip(ours, theirs) if b]
            ratio = "-"
            if len(ratios) == len(pairs):
                ratio = f"{statistics.median(ratios):.2f}  [{min(ratios):.2f} .. {max(ratios):.2f}]"
            print(f"  {title:18} {shown(statistics.median(ours), unit):>14} {shown(statistics.median(theirs), unit):>14}"
                  f"   {ratio}")


def prepare(arguments):
    for program, package in (("redis-server", "redis-server"), ("node", "nodejs"), ("npm", "npm")):
        if shutil.which(program) is None:
            raise Failed(f"{program} is missing; on Debian: apt-get install {package}")
    if not (ARTICLE / "node_modules").is_dir():
        subprocess.run(["npm", "ci", "--omit=dev", "--no-audit", "--no-fund"], cwd=ARTICLE, check=True)
    if arguments.payrelay:
        return str(Path(arguments.payrelay).resolve())
    subprocess.run(["cargo", "build", "--release", "--locked"], cwd=ROOT, check=True)
    target = os.environ.get("CARGO_TARGET_DIR", "target")
    return str((ROOT / target / "release" / "payrelay").resolve())


def works_of(text):
    works = text.split(",")
    unknown = [work for work in works if work not in WORKS]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]} is none of {', '.join(WORKS)}")
    return works


def positive(text):
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number of 1 or more")
    return int(text)


def read_arguments():
    parser = argparse.ArgumentParser(description="Measures payrelay against the article's design; see README.md.")
    parser.add_argument("--works", type=works_of, default=list(WORKS), help="of " + ", ".join(
        f"{name} ({what})" for name, (what, _, _) in WORKS.items()) + "; all by default")
    parser.add_argument("--reps", type=positive, default=3, help="pairs of runs (default 3)")
    parser.add_argument("--secs", type=positive, default=10, help="seconds of load in each run (default 10)")
    parser.add_argument("--store", choices=["everysec", "always", "embedded"], default="everysec",
                        help="payrelay's inbox: Redis with this appendfsync, or its own file (default everysec)")
    parser.add_argument("--nodes", type=positive, default=1,
                        help="servers that share the Redis, clients and senders spread over them (default 1)")
    parser.add_argument("--payrelay", metavar="FILE", help="a built payrelay; by default it is built (release)")
    parser.add_argument("--results", type=Path, default=HERE / "results" / "results.jsonl",
                        help="where each result is appended as a JSON line (default scripts/bench/results/)")
    arguments = parser.parse_args()
    if arguments.store == "embedded" and arguments.nodes > 1:
        parser.error("the embedded inbox is for one node")
    return arguments


def main():
    arguments = read_arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    binary = prepare(arguments)
    now = datetime.datetime.now().astimezone()
    series = {
        "series": now.isoformat(timespec="seconds"),
        "machine": f"{os.cpu_count()} cores, Linux {platform.release()}",
        "command": shlex.join(["scripts/bench/run.py", *sys.argv[1:]]),
    }
    print(f"{series['series']}, {series['machine']}, payrelay's inbox: {arguments.store}, "
          f"nodes: {arguments.nodes}\n{series['command']}")
    results = []
    with open(Path(tempfile.gettempdir()) / "payrelay-bench.lock", "w") as lock:
        # Two series at once would measure each other.
        fcntl.flock(lock, fcntl.LOCK_EX)
        for work in arguments.works:
            for rep in range(1, arguments.reps + 1):
                for server in SERVERS:
                    result = {**series, "rep": rep, **measure(
                        binary, server, work, arguments.store, arguments.secs, arguments.nodes)}
                    results.append(result)
                    arguments.results.parent.mkdir(parents=True, exist_ok=True)
                    with open(arguments.results, "a") as file:
                        file.write(json.dumps(result) + "\n")
                    print(f"  {work} {rep}/{arguments.reps} {server}: {result['report']['accepted_per_second']:,.0f}/s, "
                          f"idle before {result['idle_before']:.0%}, others took {result['others_cpu_s']:.2f} s of CPU",
                          file=sys.stderr)
    table(results, arguments.works)
    print("\nCPU is that of the server and its Redis. What the load itself took on the same cores, for 1,000 payments:")
    for server in SERVERS:
        own = [result["generator_cpu_ms_per_1000"] for result in results if result["server"] == server]
        print(f"  {server} {min(own):.1f} to {max(own):.1f} ms")
    disturbed = sum(result["others_cpu_s"] > 0.1 * os.cpu_count() * arguments.secs for result in results)
    if disturbed:
        print(f"Others took more than a tenth of this machine in {disturbed} of {len(results)} runs: measure again when it is quiet.")


if __name__ == "__main__":
    try:
        main()
    except Failed as failure:
        sys.exit(f"run.py: {failure}")
    except subprocess.CalledProcessError as failure:
        sys.exit(f"run.py: {shlex.join(failure.cmd)} failed")
    except KeyboardInterrupt:
        sys.exit(130)
