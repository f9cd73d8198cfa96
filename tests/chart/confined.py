"""Run a command under a seccomp profile, as a container runtime would: `python confined.py PROFILE COMMAND...`.

The profile becomes a program for the kernel's filter (seccomp(2), x86-64), and the command is executed under it.
"""

import ctypes
import json
import os
import re
import struct
import sys
from pathlib import Path

NUMBERS = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")
# Newer than some headers; numbers of system calls never change.
NEWER = {
    "fchmodat2": 452,
    "map_shadow_stack": 453,
    "futex_wake": 454,
    "futex_wait": 455,
    "futex_requeue": 456,
    "mseal": 462,
}
ARCHITECTURE = 0xC000003E  # AUDIT_ARCH_X86_64
LOAD, AND, EQUAL, RETURN = 0x20, 0x54, 0x15, 0x06  # of 32-bit words at an offset of struct seccomp_data
ALLOW, ERRNO = 0x7FFF0000, 0x00050000
NO_NEW_PRIVS, SET_SECCOMP, FILTER = 38, 22, 2


def numbers():
    """Numbers of system calls by name."""
    return dict(NEWER) | {
        name: int(number) for name, number in re.findall(r"#define __NR_(\w+) (\d+)", NUMBERS.read_text())
    }


def compiled(profile):
    """The filter's instructions: rules in order, then what is the case for all others."""
    known = numbers()

    def verdict(rule, default=1):
        return ALLOW if rule["action"] == "SCMP_ACT_ALLOW" else ERRNO | rule.get("errnoRet", default)

    code = [(LOAD, 0, 0, 4), (EQUAL, 1, 0, ARCHITECTURE), (RETURN, 0, 0, ERRNO | 1)]
    for rule in profile["syscalls"]:
        for name in rule["names"]:
            if name not in known:
                continue
            tests = [(LOAD, 0, 0, 0), (EQUAL, 0, None, known[name])]
            for argument in rule.get("args", []):
                tests.append((LOAD, 0, 0, 16 + 8 * argument["index"]))
                if argument["op"] == "SCMP_CMP_MASKED_EQ":
                    tests += [(AND, 0, 0, argument["value"]), (EQUAL, 0, None, argument["valueTwo"])]
                else:
                    assert argument["op"] == "SCMP_CMP_EQ", argument
                    tests.append((EQUAL, 0, None, argument["value"]))
            # What does not hold goes to the next rule, behind this one's verdict.
            for at, (operation, yes, no, operand) in enumerate(tests):
                code.append((operation, yes, len(tests) - at if no is None else no, operand))
            code.append((RETURN, 0, 0, verdict(rule)))
    code.append((RETURN, 0, 0, ERRNO | profile["defaultErrnoRet"]))
    return code


def confine(profile):
    """Put this process, and all that it becomes, under the profile."""
    code = compiled(profile)
    words = b"".join(struct.pack("<HBBI", *each) for each in code)
    held = ctypes.create_string_buffer(words)
    program = struct.pack("<HxxxxxxQ", len(code), ctypes.addressof(held))
    libc = ctypes.CDLL(None, use_errno=True)
    for call in ((NO_NEW_PRIVS, 1, 0, 0, 0), (SET_SECCOMP, FILTER, program, 0, 0)):
        if libc.prctl(*call):
            raise OSError(ctypes.get_errno(), "prctl")


if __name__ == "__main__":
    confine(json.loads(Path(sys.argv[1]).read_text()))
    os.execvp(sys.argv[2], sys.argv[2:])
