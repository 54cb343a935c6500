#!/usr/bin/env python3
"""A payrelay receiver in Python 3.8 or newer, with nothing but its standard library.

    receiver.py HOST PORT CLIENT STATE_FILE        a token, where one is needed, in PAYRELAY_TOKEN

Prints each payment once, as the line that came. Put your own work into work().
"""
import json
import os
import random
import socket
import sys
import time

SLOTS = 65536  # the largest window a node has; what is further back does not come again
RECORD = 64
MAX_LINE = 2 << 20  # more than six times the node's --body-limit (256 KiB by default)
# After these the next attempt would end in the same way, or throw out the program that has our id now.
FINAL = {"replaced", "unauthorized", "invalid_client_id", "bad_json", "bad_frame", "line_too_long", "hello_required"}


def work(line):
    # Until this returns, the payment is not acknowledged; if it raises, the program ends and the payment comes again.
    sys.stdout.buffer.write(line + b"\n")
    sys.stdout.buffer.flush()


class Memory:
    """Which payments are done: a file in which each has the place of its seq.

    A crash between work() and keep() does one payment twice. Where the work is a database transaction, let keep() be
    an INSERT of the same transaction, under a unique key of these three columns; then nothing is done twice.
    """

    def __init__(self, path):
        self.file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)

    def record(self, epoch, seq, accepted_at):
        # All three: after a failover, numbers are given again to other payments.
        return f"{epoch} {seq} {accepted_at}".ljust(RECORD - 1).encode() + b"\n"

    def holds(self, epoch, seq, accepted_at):
        return os.pread(self.file, RECORD, seq % SLOTS * RECORD) == self.record(epoch, seq, accepted_at)

    def keep(self, epoch, seq, accepted_at):
        if os.pwrite(self.file, self.record(epoch, seq, accepted_at), seq % SLOTS * RECORD) != RECORD:
            raise OSError("the disk is full")
        os.fsync(self.file)  # what we acknowledge next, the relay forgets


def do_once(memory, line, payment):
    try:
        if not memory.holds(*payment):
            work(line)
            memory.keep(*payment)
    except OSError as error:  # not the connection's fault, so a new connection mends nothing
        sys.exit(f"payment {payment[1]} was not done: {error}")


def send(connection, frame):
    try:
        connection.sendall(json.dumps(frame).encode() + b"\n")
    except ConnectionError:
        pass  # reading goes on: the server's last line, which says why, may be there already


def session(memory, host, port, client):
    """One connection; returns, or raises an OSError, when another one shall be tried."""
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        token = os.environ.get("PAYRELAY_TOKEN")
        send(connection, {"type": "hello", "client": client, **({"token": token} if token else {})})
        epoch, silent, rest = None, 0, b""
        while silent < 3:
            try:
                data = connection.recv(65536)
            except socket.timeout:
                if epoch is None:
                    return "no welcome within 10 s"
                silent += 1
                send(connection, {"type": "ping"})
                continue
            if not data:
                return "the server closed"
            silent = 0
            *lines, rest = (rest + data).split(b"\n")
            if len(rest) > MAX_LINE:
                sys.exit(f"a line of more than {MAX_LINE} bytes: raise MAX_LINE")
            for line in lines:
                frame = json.loads(line)
                kind = frame["type"]
                if kind == "payment":
                    do_once(memory, line, (epoch, frame["seq"], frame["accepted_at"]))
                    send(connection, {"type": "ack", "seq": frame["seq"]})  # a repeat too: its ack was lost
                elif kind == "welcome":
                    epoch = frame["epoch"]
                    connection.settimeout(frame["heartbeat"])
                elif kind == "ping":
                    send(connection, {"type": "pong"})
                elif kind == "error":
                    why = f"{frame['code']}: {frame['message']}"
                    if frame["code"] in FINAL:
                        sys.exit(why)
                    return why
        return "nothing came for three heartbeats"


def main():
    if len(sys.argv) != 5:
        sys.exit("usage: receiver.py HOST PORT CLIENT STATE_FILE")
    host, port, client, state_file = sys.argv[1:]
    memory, pause = Memory(state_file), 0.2
    while True:
        began = time.monotonic()
        try:
            why = session(memory, host, port, client)
        except OSError as error:
            why = error
        if time.monotonic() - began > 10:
            pause = 0.2
        print(f"{why}; connecting again", file=sys.stderr)
        time.sleep(pause * random.uniform(0.5, 1))  # at random, so that a thousand tills do not come at once
        pause = min(pause * 2, 5)


main()
