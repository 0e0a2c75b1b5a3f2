"""Several processes as one: how they meet, agree and end, and that they compute what one does."""

import json
import os
import socket
import subprocess
import sys
import textwrap
import time

import jax
import numpy as np
import pytest
from process_cases import ENVIRONMENT, TIMEOUT, launched

from paligemma_lib.checkpoint import gathering
from paligemma_lib.runtime import launch, processes
from paligemma_lib.runtime.heartbeats import Heartbeats


def test_what_processes_say_of_errors_cannot_command_a_terminal(capsys):
    words = "ValueError: a\x1b[2J.jpg\nERROR: lost"
    processes._tell(f"process 0 of 2: {words}")
    beats = Heartbeats.__new__(Heartbeats)
    beats._count = 2
    beats._say(words)  # of another process
    line = "process 0 of 2: ValueError: a\\x1b[2J.jpg\n  ERROR: lost\n"
    assert capsys.readouterr().err == 2 * line


def test_alone_there_is_nothing_to_wait_for():
    with processes.joined(), processes.main_process_first():
        assert not jax.distributed.is_initialized()
    assert processes.gather(b"mine") == [b"mine"]
    rows = np.ones((2, 3))
    assert processes.gather_rows(rows) is rows
    params = {"a": jax.numpy.ones(3), "b": (np.ones(2), jax.numpy.zeros(2))}
    leaves = jax.tree.leaves(gathering.gather_params(params))
    assert all(a is b for a, b in zip(leaves, jax.tree.leaves(params), strict=True))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"coordinator": "10.0.0.1:80"}, "processes, process is missing"),
        ({"processes": 2, "process": 0}, "coordinator is missing"),
        ({"coordinator": "here", "processes": 2, "process": 0}, "expected HOST:PORT"),
        ({"coordinator": "a:1", "processes": 2, "process": 2}, "expected 0 to 1"),
    ],
)
def test_wrong_arguments_are_told(arguments, message):
    with pytest.raises(ValueError, match=message), processes.joined(**arguments):
        pass


@pytest.mark.parametrize(
    ("environment", "tries"),
    [
        ({}, True),  # JAX finds none
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, False),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "3"}, True),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, False),
        ({"TPU_WORKER_HOSTNAMES": "t-0,t-1", "KUBERNETES_SERVICE_HOST": "10.0.0.1"}, True),
        ({"TPU_WORKER_HOSTNAMES": "t-0", "MEGASCALE_COORDINATOR_ADDRESS": "10.0.0.2"}, True),
    ],
)
def test_a_cluster_is_looked_for_where_there_may_be_one(monkeypatch, environment, tries):
    calls = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda **given: calls.append(given))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with processes.joined():
        assert bool(calls) == tries


@pytest.fixture
def script(tmp_path):
    """Writes a script; returns its path."""

    def write(text: str) -> str:
        path = tmp_path / "script.py"
        path.write_text(textwrap.dedent(text))
        return str(path)

    return write


TOGETHER = """
    import json, os, pathlib, signal, sys, time
    import psutil
    from paligemma_lib.runtime import processes
    from paligemma_lib.checkpoint import gathering
    from paligemma_lib.runtime.termination import Termination

    folder = pathlib.Path(sys.argv[1])
    host, count, number = (argument.split("=")[1] for argument in sys.argv[-3:])
    number = int(number)
    with processes.joined(host, int(count), number):
        import jax, numpy as np
        from jax.sharding import Mesh, NamedSharding, PartitionSpec

        assert jax.process_count() == 2 and jax.process_index() == number
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        if number == 0:  # who coordinates hears this machine alone
            port = int(host.rpartition(":")[2])
            ears = psutil.Process().net_connections("tcp")
            mine = [each for each in ears if each.laddr.port == port and not each.raddr]
            assert {each.laddr.ip.removeprefix("::ffff:") for each in mine} == {"127.0.0.1"}
        with processes.main_process_first():
            if not (folder / "made").exists():
                time.sleep(0.3)
                (folder / "made").write_text(str(number))
        texts = [processes.gather(text) for text in (b"x" * number, b"12" * (5 - number))]
        rows = processes.gather_rows(np.full((2, 1), number, np.float32))

        mesh = Mesh(np.reshape(jax.devices(), (1, 2)), ("data", "fsdp"))
        values = np.arange(24.0, dtype=np.float32).reshape(2, 12)
        split = NamedSharding(mesh, PartitionSpec(None, "fsdp"))
        array = jax.make_array_from_callback(values.shape, split, lambda index: values[index])
        found = gathering.gather_params({"a": (array,)})["a"][0]
        assert number > 0 or np.array_equal(found, values)

        with Termination(mesh) as termination:
            for step in range(100):
                if number == 1 and step == 3:
                    os.kill(os.getpid(), signal.SIGTERM)
                if termination.agreed():
                    break
        if number == 0:
            time.sleep(0.5)  # the others wait
        said = {"texts": [[t.decode() for t in each] for each in texts], "rows": rows.tolist()}
        (folder / f"{number}.json").write_text(json.dumps(said | {"step": step}))
    (folder / f"left_{number}").write_text(str((folder / "0.json").exists()))
"""


@pytest.mark.slow
def test_two_processes_exchange_what_they_have_and_end_together(script, tmp_path):
    command = [
        sys.executable,
        "-m",
        "paligemma_lib.runtime.launch",
        "--count",
        "2",
        script(TOGETHER),
    ]
    result = subprocess.run(
        [*command, str(tmp_path)], env=ENVIRONMENT, capture_output=True, text=True, timeout=TIMEOUT
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert [(tmp_path / f"left_{number}").read_text() for number in (0, 1)] == ["True", "True"]
    assert (tmp_path / "made").read_text() == "0"
    said = [json.loads((tmp_path / f"{number}.json").read_text()) for number in range(2)]
    assert (
        said[0]
        == said[1]
        == {
            "texts": [["", "x"], ["1212121212", "12121212"]],
            "rows": [[0], [0], [1], [1]],
            "step": 4,  # one after SIGTERM came
        }
    )


@pytest.mark.slow
@pytest.mark.timeout(TIMEOUT)
def test_the_first_may_take_its_time(script):
    """JAX gives the first message between CPUs 30 seconds."""
    path = script("""
        import sys, time
        from paligemma_lib.runtime import processes

        host, count, number = (argument.split("=")[1] for argument in sys.argv[-3:])
        with processes.joined(host, int(count), int(number)), processes.main_process_first():
            time.sleep(35 if number == "0" else 0)
    """)
    result = launched(2, [path])
    assert result.returncode == 0, result.stderr[-3000:]


@pytest.mark.slow
def test_who_waits_in_vain_is_told_where():
    address = f"127.0.0.1:{launch._free_port()}"
    program = f"""
        import sys
        from paligemma_lib.runtime import processes
        processes._REMINDER = 0.5
        with processes.joined("{address}", 2, int(sys.argv[1]), timeout=2):
            print("never")
    """
    for number in (0, 1):
        result = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(program), str(number)],
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        )
        assert (result.returncode, result.stdout) == (1, "")
        where = f"2 processes at {address} (this is process {number})"
        reminder, error = result.stderr.splitlines()[-2:]
        assert reminder == f"waiting for {where}"
        assert error.startswith(
            f"timed out after 2 seconds of waiting for {where}. Start all of them"
        )


@pytest.mark.slow
def test_a_port_that_is_taken_is_told():
    with socket.create_server(("127.0.0.1", 0)) as server:
        program = f"""
            from paligemma_lib.runtime import processes
            with processes.joined("127.0.0.1:{server.getsockname()[1]}", 2, 0):
                print("never")
        """
        result = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(program)],
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        )
    assert "ConnectionError: process 0 cannot listen at 127.0.0.1" in result.stderr


@pytest.mark.slow
def test_a_job_of_slurm_is_joined_by_itself():
    program = """
        from paligemma_lib.runtime import processes
        with processes.joined():
            import jax
            assert processes.gather(str(jax.process_index()).encode()) == [b"0", b"1"]
        print("met")
    """
    slurm = {
        "SLURM_JOB_ID": str(os.getpid()),  # says the port
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_NTASKS": "2",
        "JAX_COORDINATOR_BIND_ADDRESS": f"127.0.0.1:{os.getpid() % 2**12 + 61440}",
    }
    started = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(program)],
            env=ENVIRONMENT | slurm | {"SLURM_PROCID": number, "SLURM_LOCALID": number},
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in ("0", "1")
    ]
    assert ["met" in process.communicate(timeout=TIMEOUT)[0] for process in started] == [True] * 2


@pytest.mark.slow
@pytest.mark.timeout(TIMEOUT)
@pytest.mark.parametrize(("count", "who"), [(2, 0), (2, 1), (4, 2)])
def test_an_error_in_one_process_ends_all(script, count, who):
    path = script(f"""
        import sys
        from paligemma_lib.runtime import processes
        host, count, number = (argument.split("=")[1] for argument in sys.argv[-3:])
        with processes.joined(host, int(count), int(number)):
            processes.gather(b"")
            if number == "{who}":
                raise FileNotFoundError("weights.npz is not there")
            processes.gather(b"")
    """)
    start = time.monotonic()
    result = launched(count, [path])
    assert result.returncode == 1
    error = "FileNotFoundError: weights.npz is not there"
    told = [line for line in result.stderr.splitlines() if line.startswith("process ")]
    assert told[0] == f"process {who} of {count}: {error}"
    for other in {*range(count)} - {who}:
        words = f"process {who} of {count} ended: {error}. Ending too"
        assert f"process {other} of {count}: {words}" in told
    assert "stack trace" not in result.stderr
    assert time.monotonic() - start < 90
