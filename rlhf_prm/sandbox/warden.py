"""Runs one program that a model wrote. This script uses only the standard library, in a fresh interpreter.

There are three processes. The *warden* is the trainer's child; it enters new namespaces and forks the *init*, process 1
of the new process namespace: when it ends, or the warden does, the kernel ends everything in there. The init gives its
child, the *runner*, a separate file system; the runner drops all rights, sets the limits, and runs the program.

Settings come as JSON in the first argument, the program through standard input. The last line that the warden itself
writes, to descriptor 3, is a JSON object: which protections it has, and why others are missing.
"""

import contextlib
import ctypes
import json
import os
import resource
import signal
import sys
import time
import traceback

NEW_MOUNTS, NEW_USER, NEW_PROCESSES, NEW_NETWORK, NEW_IPC = 0x20000, 0x10000000, 0x20000000, 0x40000000, 0x08000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 32, 4096, 16384, 1 << 18
PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS = 1, 38
SYSTEM = ("/usr", "/lib", "/lib32", "/lib64", "/bin", "/etc/ld.so.cache", "/etc/alternatives")
DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")
WORK = "/sandbox"
REPORT = 3  # the descriptor on which the protections are reported


def libc():
    return ctypes.CDLL(None, use_errno=True)


def checked(value: int, what: str) -> None:
    if value != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def mount(source: str | None, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    text = [None if part is None else part.encode() for part in (source, target, kind, data)]
    checked(libc().mount(text[0], text[1], text[2], ctypes.c_ulong(flags), text[3]), f"mount {target}")


def enter_namespaces() -> dict[str, str]:
    """Enter new namespaces for this process's children. Returns what was not granted, with the reason."""
    missing = {}
    uid, gid = os.getuid(), os.getgid()
    needs_user = uid != 0
    if needs_user:
        try:
            checked(libc().unshare(NEW_USER), "unshare of the user namespace")
            for path, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
                with open(f"/proc/self/{path}", "w") as handle:
                    handle.write(text)
        except OSError as error:
            return {name: str(error) for name in ("network", "processes", "files")}
    for name, flags in (("network", NEW_NETWORK), ("processes", NEW_PROCESSES | NEW_IPC), ("files", NEW_MOUNTS)):
        try:
            checked(libc().unshare(flags), f"unshare for {name}")
        except OSError as error:
            missing[name] = str(error)
    return missing


def show_only(root: str, visible: list[str], disk: int) -> None:
    """Enter a root with the system's libraries and the interpreter, read-only, and a folder to work in."""
    mount(None, "/", None, MS_REC | MS_PRIVATE)
    mount("tmpfs", root, "tmpfs", MS_NOSUID | MS_NODEV, f"size={disk},nr_inodes=4096,mode=755")
    for path in (*SYSTEM, *visible):
        target = root + path
        if not os.path.exists(path) or os.path.lexists(target):
            continue
        os.makedirs(os.path.dirname(target), exist_ok=True)
        if os.path.islink(path):
            os.symlink(os.readlink(path), target)
            continue
        _bind(path, target)
        mount(None, target, None, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV)
    for path in DEVICES:
        os.makedirs(root + "/dev", exist_ok=True)
        _bind(path, root + path)
    for folder in (WORK, "/tmp", "/proc"):
        os.makedirs(root + folder, exist_ok=True)
    for folder in (WORK, "/tmp"):
        os.chmod(root + folder, 0o1777)
    with contextlib.suppress(OSError):  # a container that hides parts of its own /proc allows no new one
        mount("proc", root + "/proc", "proc", MS_NOSUID | MS_NODEV)
    os.chroot(root)
    os.chdir(WORK)


def _bind(path: str, target: str) -> None:
    if os.path.isdir(path):
        os.makedirs(target, exist_ok=True)
    else:
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))
    mount(path, target, None, MS_BIND)


def give_up_rights(uid: int | None) -> None:
    """Drop all groups and capabilities, with no way to regain any; as root, also switch to another user."""
    if uid is not None:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    header, none = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    checked(libc().capset(header, none), "capset")
    checked(libc().prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")


def limit(settings: dict) -> None:
    """Set the limits of memory, processor time, processes and files."""
    seconds = int(settings["seconds"]) + 1
    for kind, value in (
        (resource.RLIMIT_AS, settings["memory"]),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_NPROC, settings["processes"]),
        (resource.RLIMIT_FSIZE, settings["file_size"]),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
    ):
        resource.setrlimit(kind, (value, value))


def run_program(program: str, settings: dict, uid: int | None) -> None:
    """The runner: never returns."""
    code = 1
    try:
        os.setsid()
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as handle:
            handle.write("1000")  # memory runs out here first
        give_up_rights(uid)
        libc().prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # needed if there is no process namespace that ends it
        limit(settings)
        sys.path[:] = settings["path"]
        sys.argv = ["program.py"]
        sys.stdin = open("/dev/null")  # noqa: SIM115  # the program's
        exec(compile(program, "program.py", "exec"), {"__name__": "__main__"})
        code = 0
    except SystemExit as error:
        code = 0 if error.code in (None, 0) else 1
        if isinstance(error.code, str):
            print(error.code)
    except MemoryError:
        print("MemoryError")
    except BaseException as error:
        told = "".join(traceback.format_exception(error, limit=-8))
        print(told.replace(f'  File "{__file__}"', '  File "sandbox"'))
    finally:
        try:
            sys.stdout.flush()
        finally:
            os._exit(code)


def init(program: str, settings: dict, missing: dict[str, str]) -> int:
    """Process 1 of the namespace: waits for the program, but not longer than it may take."""
    libc().prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    uid = settings["uid"] if os.getuid() == 0 else None
    if "files" not in missing:
        try:
            show_only(settings["root"], settings["visible"], settings["disk"])
        except OSError as error:
            missing["files"] = str(error)
    os.write(REPORT, (json.dumps(missing) + "\n").encode())
    os.close(REPORT)
    if set(settings["required"]) & set(missing):
        return 1
    child = os.fork()
    if not child:
        run_program(program, settings, uid)
    deadline = time.monotonic() + settings["seconds"]
    while time.monotonic() < deadline:
        ended, status = os.waitpid(-1, os.WNOHANG)
        if ended == child:
            return 1 if os.WIFEXITED(status) and os.WEXITSTATUS(status) else 0 if os.WIFEXITED(status) else 99
        if not ended:
            time.sleep(0.005)
    return 98


def main() -> None:
    settings = json.loads(sys.argv[1])
    libc().prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != settings["parent"]:
        os._exit(1)
    program = sys.stdin.buffer.read().decode("utf-8", "replace")
    missing = enter_namespaces()
    child = os.fork()
    if not child:
        code = 1
        try:
            code = init(program, settings, missing)
        finally:
            os._exit(code)
    os.close(REPORT)
    _, status = os.waitpid(child, 0)
    os._exit(os.WEXITSTATUS(status) if os.WIFEXITED(status) else 99)


if __name__ == "__main__":
    main()
