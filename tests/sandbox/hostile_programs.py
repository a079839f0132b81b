"""Two hundred programs that mean harm, made from families: (name, program, how it may end).

``{canary}`` is a file of the trainer's, ``{port}`` a port it listens on, ``{pid}`` its process id; each family comes in
ten shapes.
"""

from collections.abc import Callable

SHAPES = 10
ANY = ("done", "error", "died", "timeout", "output")
TOLD = ("done", "error")  # it was told no, or did what hurts nobody
ENDED = ("timeout", "died", "error", "output")


def loops(n):
    bodies = [
        "while True: pass",
        "import time\nwhile True: time.sleep(10)",
        "x = 0\nwhile True: x += 1",
        "import itertools\nfor _ in itertools.count(): pass",
        "import threading\nthreading.Event().wait()",
        "import signal\nsignal.pause()",
        "import select\nselect.select([], [], [])",
        "def f():\n    while True: yield\nfor _ in f(): pass",
        "import signal\nfor s in (1, 2, 3, 10, 12, 15): signal.signal(s, signal.SIG_IGN)\nwhile True: pass",
        "import os\nif os.fork():\n    os.wait()\nelse:\n    while True: pass",
    ]
    return bodies[n], ("timeout", "died")


def fork_bombs(n):
    start = ["import os", "import os\nos.setpgid(0, 0)"][n % 2]
    bombs = [
        "while True: os.fork()",
        "for _ in range(1000):\n    if not os.fork():\n        while True: pass",
        "import subprocess\nps = [subprocess.Popen(['/bin/sleep', '100']) for _ in range(1000)]",
        "while True:\n    try: os.fork()\n    except OSError: pass",
        "import threading, time\nts = [threading.Thread(target=time.sleep, args=(9,)) for _ in range(1000)]\n"
        "[t.start() for t in ts]",
    ]
    return f"{start}\n{bombs[n // 2]}", ("error", "timeout", "died")


def daemons(n):
    detach = ["os.setsid()", "os.setsid(); os.fork() and os._exit(0)", "pass", "os.setpgid(0, 0)", "os.nice(10)"][n % 5]
    after = ["import time; time.sleep(60)", "while True: pass"][n // 5]
    return f"import os\nif not os.fork():\n    {detach}\n    {after}\nprint('gone on')", ("done",)


def zombies(n):
    return f"import os\nfor _ in range({n + 1}):\n    if not os.fork(): os._exit({n})\nprint('left')", TOLD


def memory(n):
    bodies = [
        "x = 'a' * 10 ** 10",
        "x = []\nwhile True: x.append('a' * 10 ** 6)",
        "x = bytearray(2 ** 33)",
        "x = [0] * 10 ** 10",
        "x = list(range(10 ** 9))",
        "x = {}\nfor i in range(10 ** 9): x[i] = str(i) * 100",
        "x = 'ab'\nwhile True: x += x",
        "x = 9 ** 9 ** 9",
        "import mmap\nms = [mmap.mmap(-1, 2 ** 28) for _ in range(100)]",
        "import os\nos.fork(); os.fork()\nx = []\nwhile True: x.append(bytearray(10 ** 6))",
    ]
    return bodies[n], ENDED


def recursion(n):
    bodies = [
        "def f(): f()\nf()",
        "import sys\nsys.setrecursionlimit(10 ** 9)\ndef f(): f()\nf()",
        "import sys\nsys.setrecursionlimit(10 ** 9)\nclass A:\n    def __repr__(self): return repr(self)\nrepr(A())",
        "x = []\nfor _ in range(10 ** 6): x = [x]\nprint(x == x, repr(x)[:9])",
        "eval('(' * 10 ** 5 + ')' * 10 ** 5)",
        "import json\njson.loads('[' * 10 ** 6)",
        "import ctypes\nctypes.string_at(0)",
        "import os\nos.abort()",
        "import ctypes\nctypes.memset(1, 0, 10)",
        "exec('x=' + '-' * 10 ** 6 + '1')",
    ]
    return bodies[n], ANY


def output(n):
    bodies = [
        "while True: print('x' * 1000)",
        "print('x' * 10 ** 7)",
        "import sys\nwhile True: sys.stderr.write('e' * 1000)",
        "import os\nwhile True: os.write(1, b'y' * 65536)",
        "import sys\nwhile True: sys.stdout.buffer.write(b'\\xff' * 5000)",
        "import os\nwhile True: os.write(2, bytes(4096))",
        "import subprocess\nsubprocess.run(['/usr/bin/yes'])",
        "raise ValueError('v' * 10 ** 6)",
        "import os\nos.fork()\nwhile True: print('z' * 500)",
        "import sys\nsys.exit('s' * 10 ** 6)",
    ]
    return bodies[n], ("output", "error", "timeout")


def writes_outside(n):
    places = [
        "{canary}", "/etc/passwd", "/usr/lib/harm", "/root/harm", "/harm", "../../harm",
        "/proc/sys/kernel/core_pattern", "/dev/shm/harm", "/proc/1/mem", "/var/tmp/harm",
    ]  # fmt: skip
    return f"open({places[n]!r}, 'w').write('harm')", ("error", "done")


def reads_outside(n):
    places = [
        "{canary}", "/etc/shadow", "/root/.bashrc", "/proc/{pid}/environ", "/proc/{pid}/mem", "/home", "/etc/hostname",
        "/var/log", "/sys/class/net", "/proc/1/root/etc/passwd",
    ]  # fmt: skip
    return f"import os\np = {places[n]!r}\nprint(os.listdir(p) if os.path.isdir(p) else open(p).read())", ("error",)


def huge_files(n):
    bodies = [
        "open('big', 'wb').write(b'x' * 10 ** 8)",
        "f = open('big', 'wb')\nwhile True: f.write(b'x' * 10 ** 6)",
        "for i in range(10 ** 5): open(f'small{i}', 'w').write('x' * 10 ** 4)",
        "import os\nfor i in range(10 ** 5): os.mkdir(f'd{i}')",
        "f = open('sparse', 'wb')\nf.seek(2 ** 40)\nf.write(b'x')",
        "import os\nos.truncate(os.open('t', os.O_CREAT | os.O_RDWR), 2 ** 40)",
        "for i in range(100): open(f'/tmp/part{i}', 'wb').write(b'x' * 10 ** 6)",
        "import os\nfor i in range(10 ** 5): os.symlink('x', f'l{i}')",
        "fs = [open(f'f{i}', 'w') for i in range(10 ** 5)]",
        "import os\nwhile True: os.mkdir('d'); os.chdir('d')",
    ]
    return bodies[n], (*ENDED, "done")  # a file that turns out too large when it is closed is lost without a word


def sockets(n):
    bodies = [
        "import socket\nsocket.create_connection(('127.0.0.1', {port}), 1).send(b'harm')",
        "import socket\nsocket.create_connection(('8.8.8.8', 53), 1)",
        "import urllib.request\nurllib.request.urlopen('http://127.0.0.1:{port}', timeout=1)",
        "import socket\nsocket.getaddrinfo('example.com', 80)",
        "import socket\nsocket.socket(socket.AF_INET6).connect(('::1', {port}))",
        "import socket\nsocket.socket(socket.AF_INET, socket.SOCK_RAW, 1)",
        "import socket\nsocket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'harm', ('127.0.0.1', {port}))",
        "import socket\nsocket.socket(socket.AF_PACKET, socket.SOCK_RAW)",
        "import socket\nsocket.socket(socket.AF_UNIX).connect('/run/docker.sock')",
        "import http.client\nhttp.client.HTTPConnection('127.0.0.1', {port}, timeout=1).request('GET', '/')",
    ]
    return bodies[n], ("error", "timeout")  # some import for longer than they may run on a busy machine


def listening(n):
    return f"import socket\ns = socket.socket()\ns.bind(('', {20000 + n}))\ns.listen()\ns.accept()", (
        "timeout",
        "error",
    )


def signals(n):
    bodies = [
        "os.kill(os.getppid(), 9)", "os.kill({pid}, 9)", "os.kill({pid}, 15)", "os.kill({pid}, signal.SIGUSR1)",
        "os.kill(-1, 9)", "os.killpg(0, 9)", "os.kill(1, 9)", "[os.kill(p, 9) for p in range(2, 400)]",
        "os.killpg(os.getpgid({pid}), 9)", "signal.pthread_kill({pid}, 9)",
    ]  # fmt: skip
    return f"import os, signal\n{bodies[n]}\nprint('sent')", ("done", "error", "died")


def tracing(n):
    request, target = (16, 0x4206)[n % 2], ("{pid}", "1", "os.getppid()", "2", "3")[n // 2]
    return (
        f"import ctypes, os\nl = ctypes.CDLL(None, use_errno=True)\nr = l.ptrace({request}, {target}, 0, 0)\n"
        "print('traced' if r == 0 else 'refused')"
    ), ("done", "died", "timeout")


def environment(n):
    bodies = [
        "import os; print(os.environ)", "import os; print(os.environ['SANDBOX_CANARY'])",
        "print(open('/proc/self/environ').read())", "print(open('/proc/1/environ').read())",
        "print(open('/proc/{pid}/environ').read())", "import os; print(os.getenv('SANDBOX_CANARY'))",
        "import subprocess; print(subprocess.run(['/usr/bin/env'], capture_output=True).stdout)",
        "import sys; print(sys.argv, sys.path)", "print(open('/proc/1/cmdline').read())",
        "import os; os.execve('/usr/bin/env', ['env'], os.environ)",
    ]  # fmt: skip
    return bodies[n], TOLD


def waits_for_input(n):
    bodies = [
        "input()", "import sys; sys.stdin.read(); input('?')", "import os; os.read(0, 1); input()",
        "import sys\nfor line in sys.stdin: print(line)\ninput()", "open('/dev/tty').read()",
        "import getpass; getpass.getpass()", "import code; code.interact(); input()", "import pdb; pdb.set_trace()",
        "import os; os.dup2(1, 0); os.read(0, 1)", "breakpoint()",
    ]  # fmt: skip
    return bodies[n], ("error", "done", "timeout")


def rights(n):
    calls = [
        "os.setuid(0)", "os.setgid(0)", "os.chroot('/')", "os.setgroups([0])", "os.nice(-10)",
        "l.unshare(0x10000000) and 1 / 0", "l.mount(b'x', b'/tmp', b'tmpfs', 0, None) and 1 / 0",
        "l.setns(3, 0) and 1 / 0", "resource.setrlimit(resource.RLIMIT_NPROC, (10 ** 6, 10 ** 6))",
        "l.umount(b'/proc') and 1 / 0",
    ]  # fmt: skip
    return f"import os, resource, ctypes\nl = ctypes.CDLL(None)\n{calls[n]}\nprint('had')", TOLD


def descriptors(n):
    tried = "    try: os.write(d, b'harm')\n    except OSError: pass\n"
    return f"import os\nfor d in range({3 + n}, 4096):\n{tried}print('tried')", ("done",)


def commands(n):
    lines = [
        "rm -rf {canary}", "kill -9 {pid}", "shutdown -h now", "mount", "sudo id",
        "dd if=/dev/zero of=/dev/sda count=1", "chmod -R 777 /", "cat /etc/shadow",
        "wget http://127.0.0.1:{port}", "kill -9 -1",
    ]  # fmt: skip
    return f"import os\nprint(os.system({lines[n]!r}))", ("done", "died", "error", "output")


def exits(n):
    bodies = [
        "import os; os._exit(0)", "import os; os._exit(98)", "import os; os._exit(99)", "raise SystemExit('bye')",
        "import os, signal; os.kill(os.getpid(), 11)", "import os; os.close(1); os.close(2); print('x')",
        "import sys; sys.stdout = None; print('x')", "import atexit, time; atexit.register(time.sleep, 99)",
        "import gc\n[o.clear() for o in gc.get_objects() if type(o) is dict]", "import os; os.write(3, b'{}\\n')",
    ]  # fmt: skip
    return bodies[n], ANY


FAMILIES: tuple[Callable, ...] = (
    loops, fork_bombs, daemons, zombies, memory, recursion, output, writes_outside, reads_outside, huge_files,
    sockets, listening, signals, tracing, environment, waits_for_input, rights, descriptors, commands, exits,
)  # fmt: skip


def programs(canary: str, port: int, pid: int) -> list[tuple[str, str, tuple[str, ...]]]:
    """All of them, for a trainer with this file, port and process id."""
    found = []
    for family in FAMILIES:
        for n in range(SHAPES):
            text, states = family(n)
            for name, value in (("canary", canary), ("port", str(port)), ("pid", str(pid))):
                text = text.replace("{" + name + "}", value)
            found.append((f"{family.__name__}-{n}", text, states))
    return found
