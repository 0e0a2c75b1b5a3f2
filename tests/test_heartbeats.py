"""Signs of life: who is silent is named, and nobody waits for it for long."""

import socket
import subprocess
import sys
import textwrap
import time
from types import SimpleNamespace

import jax
import pytest
from process_cases import TIMEOUT, launched

from paligemma_lib.runtime import heartbeats
from paligemma_lib.runtime.heartbeats import Heartbeats

OTHER = heartbeats._FOLDER + "1/host-7, pid 817"


class Coordinator:
    """What JAX's client offers, for this process and another one that beats while it may."""

    def __init__(self):
        self.numbers, self.answers, self.other_lives = {OTHER: 0}, True, True
        self.words = {}

    def key_value_increment(self, key, by):
        if not self.answers:
            raise jax.errors.JaxRuntimeError("UNAVAILABLE")
        self.numbers[key] = self.numbers.get(key, 0) + by
        self.numbers[OTHER] += self.other_lives

    def key_value_set(self, key, value):
        if key in self.words:
            raise jax.errors.JaxRuntimeError("ALREADY_EXISTS")
        self.words[key] = value

    def key_value_try_get(self, key):
        if key not in self.words:
            raise jax.errors.JaxRuntimeError("NOT_FOUND")
        return self.words[key]

    def key_value_dir_get(self, folder):
        assert folder == heartbeats._FOLDER
        return [(key, str(number)) for key, number in self.numbers.items()]


class Clock:
    """Time that passes when told to; the processes beat meanwhile."""

    def __init__(self, monkeypatch):
        self.now, self.watches = 100.0, []
        monkeypatch.setattr(heartbeats.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(heartbeats.time, "sleep", self.pass_)

    def pass_(self, seconds):
        end = self.now + seconds
        while self.now < end:
            self.now += heartbeats._BEAT
            for watch in self.watches:
                watch._beat_once()
                if who := watch._silent():
                    return who
        return ""


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


@pytest.fixture
def coordinator(monkeypatch):
    coordinator = Coordinator()
    monkeypatch.setattr(heartbeats.global_state, "client", coordinator)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(jax, "process_index", lambda: 0)
    return coordinator


@pytest.fixture
def watch(clock, coordinator):
    clock.watches.append(Heartbeats())
    return clock.watches[0]


def test_while_all_live_nobody_is_missing(clock, watch):
    assert clock.pass_(1000) == ""
    assert watch.missing() == []


def test_who_falls_silent_is_named(clock, watch, coordinator):
    clock.pass_(20)
    coordinator.other_lives = False
    assert watch.missing() == ["process 1 of 2 (on host-7, pid 817)"]
    assert clock.pass_(40) == ""
    assert clock.pass_(20) == "process 1 of 2 (on host-7, pid 817)"


def test_a_coordinator_that_does_not_answer_is_named(clock, watch, coordinator, monkeypatch):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    clock.pass_(20)
    coordinator.answers = False
    assert clock.pass_(50) == ""
    assert clock.pass_(20) == "process 0 of 2 (the coordinator)"


def test_who_was_asleep_hears_the_others_before_it_judges(clock, watch):
    clock.pass_(20)
    clock.now += 3600
    assert watch._silent() == ""
    assert clock.pass_(100) == ""


def test_the_end_is_told(watch, monkeypatch, capsys):
    codes = []
    monkeypatch.setattr(heartbeats.os, "_exit", codes.append)
    watch._end("process 1 of 2 (on host-7, pid 817)")
    told = "process 0 of 2: process 1 of 2 (on host-7, pid 817) is missing: no heartbeat for 60 s"
    assert told in capsys.readouterr().err
    assert codes == [1]


def test_who_ends_is_followed_with_its_code_and_words(watch, monkeypatch, capsys):
    codes = []
    monkeypatch.setattr(heartbeats.os, "_exit", codes.append)
    watch.follow()
    assert codes == []  # nobody has ended
    watch.announce_end(1, "a disk is full")
    watch.announce_end(143, "SystemExit")  # too late
    watch.follow()
    assert codes == []  # it is its own
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    watch.follow()
    assert codes == [1]
    told = "process 1 of 2: process 0 of 2 ended: a disk is full. Ending too\n"
    assert capsys.readouterr().err == told


def test_who_coordinates_knows_from_where_others_have_come(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        state = SimpleNamespace(service=None, coordinator_address=f"127.0.0.1:{port}")
        monkeypatch.setattr(heartbeats, "global_state", state)
        program = f"import socket; socket.create_connection(('127.0.0.1', {port})); input()"
        command = [sys.executable, "-c", program]
        with (
            socket.create_connection(("127.0.0.1", port)),  # itself
            server.accept()[0],
            subprocess.Popen(command, stdin=subprocess.PIPE) as other,
            server.accept()[0],
        ):
            assert heartbeats.connected() == []  # another one coordinates
            state.service = object()
            assert heartbeats.connected() == ["127.0.0.1"]
            other.communicate(b"\n")
        assert heartbeats.connected() == []


@pytest.mark.slow
@pytest.mark.timeout(2 * TIMEOUT)
@pytest.mark.parametrize(
    ("how", "who", "told"),
    [
        ("SIGKILL", 1, r"process 0 of 2: process 1 of 2 (on "),
        ("SIGSTOP", 1, r"process 0 of 2: process 1 of 2 (on "),
        ("SIGSTOP", 0, r"process 1 of 2: process 0 of 2 (the coordinator) is missing"),
    ],
)
def test_who_waits_for_a_missing_process_names_it_and_ends(tmp_path, how, who, told):
    path = tmp_path / "script.py"
    path.write_text(
        textwrap.dedent(f"""
        import os, signal, sys
        from paligemma_lib.runtime import heartbeats, processes
        heartbeats.Heartbeats.__init__.__defaults__ = (6.0,)
        host, count, number = (argument.split("=")[1] for argument in sys.argv[-3:])
        with processes.joined(host, int(count), int(number)):
            processes.gather(b"")
            if number == "{who}":
                os.kill(os.getpid(), signal.{how})
            processes.gather(b"")
        """)
    )
    start = time.monotonic()
    result = launched(2, [str(path)])
    assert result.returncode == (137 if how == "SIGKILL" else 1)
    assert told in result.stderr
    assert time.monotonic() - start < 90


@pytest.mark.slow
@pytest.mark.timeout(2 * TIMEOUT)
def test_who_stands_still_at_the_very_end_is_named_too(tmp_path):
    path = tmp_path / "script.py"
    path.write_text(
        textwrap.dedent("""
        import os, signal, sys
        from paligemma_lib.runtime import heartbeats, processes
        heartbeats.Heartbeats.__init__.__defaults__ = (6.0,)
        host, count, number = (argument.split("=")[1] for argument in sys.argv[-3:])
        meet = processes.sync_global_devices

        def stand_still(name):
            meet(name)
            if number == "1":
                os.kill(os.getpid(), signal.SIGSTOP)

        processes.sync_global_devices = stand_still
        with processes.joined(host, int(count), int(number)):
            pass
        """)
    )
    result = launched(2, [str(path)])
    assert result.returncode == 1
    assert "process 0 of 2: process 1 of 2 (on " in result.stderr
    assert "stack trace" not in result.stderr
