"""Runs `cast demo --once` against a server of its own: the demo is its own users, and ends well only when the client of each
dialect saw what it should."""

import os
import subprocess
import sys

from harness import Server, program


def main():
    cast = os.path.join(os.path.dirname(program()), "cast")
    if not os.path.exists(cast):
        print(f"{cast} is missing: build it with cargo build --release --workspace")
        return 1
    passed = 0
    # Twice: the second run meets what the first one left.
    with Server(prompts=False) as server:
        for _ in range(2):
            done = subprocess.run(
                [cast, "demo", "--once", "--url", f"http://127.0.0.1:{server.port}", "--speed", "5"],
                capture_output=True,
                text=True,
                timeout=120,
            )
            if done.returncode != 0:
                print(done.stdout, done.stderr, sep="\n")
                print(f"cast demo --once ended with {done.returncode}; the server's last words:\n{server.last_words()}")
                break
            passed += 1
    print(f"{passed} passed, {2 - passed} failed")
    return 0 if passed == 2 else 1


if __name__ == "__main__":
    sys.exit(main())
