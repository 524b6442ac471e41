#!/usr/bin/env python3
"""Runs what docs/clients.md shows, against a running server, and compares what it prints.

    clients_doc.py --base http://HOST:PORT --pat PAT --image FILE --images URL
                   --https-base https://HOST:PORT --https-pat PAT --ca FILE

Each block of the page that begins with ```python is run by itself, by the Python that runs this, and has to print what
the next block, ```text, shows. A block that begins with ```python 12.5 is for that version of the SDK alone.
Two names of the page stand for the test's own: https://images.example.com is replaced by the URL of `--images`, where
`--image` is served as /seven.png, and https://models.example.com:8443 by `--https-base`, for which `--https-pat` is the
token. `ca.pem` and `seven.png` are in the folder where the blocks run.

Prints `ok LINE` for each block. At the end exit code 1 where one printed something else.
"""
import argparse
import importlib.metadata
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

PAGE = pathlib.Path(__file__).resolve().parents[2] / "docs" / "clients.md"
IMAGES, MODELS = "https://images.example.com", "https://models.example.com:8443"
BLOCK = re.compile(r"^```(\w+)(?: (\d+)\.(\d+))?\n(.*?)^```$", re.DOTALL | re.MULTILINE)
BLOCK_SECONDS_MAX = 60


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("base", "pat", "images", "https-base", "https-pat"):
        parser.add_argument(f"--{name}", required=True)
    for name in ("image", "ca"):
        parser.add_argument(f"--{name}", required=True, type=pathlib.Path)
    return parser.parse_args()


def blocks(page):
    """The line, the version if it is for one, the program and the output of each block of Python."""
    found = list(BLOCK.finditer(page))
    for block, after in zip(found, [*found[1:], None]):
        if block[1] != "python":
            continue
        line = page.count("\n", 0, block.start()) + 1
        assert after and after[1] == "text", f"line {line}: no output is shown"
        only = (int(block[2]), int(block[3])) if block[2] else None
        yield line, only, block[4], after[4]


def environment(arguments, home, over_tls):
    """What the page tells to export, and nothing else of the SDK's settings."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("CLARIFAI_")}
    variables.update(
        HOME=home,
        CLARIFAI_API_BASE=arguments.https_base if over_tls else arguments.base,
        CLARIFAI_PAT=arguments.https_pat if over_tls else arguments.pat,
        no_proxy="127.0.0.1,localhost",
        no_grpc_proxy="127.0.0.1,localhost",
    )
    return variables


def main():
    arguments = parse_arguments()
    version = tuple(int(part) for part in importlib.metadata.version("clarifai").split(".")[:2])
    ran = failed = 0
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as home:
        shutil.copy(arguments.ca, pathlib.Path(folder, "ca.pem"))
        shutil.copy(arguments.image, pathlib.Path(folder, "seven.png"))
        for line, only, program, expected in blocks(PAGE.read_text(encoding="utf-8")):
            if only not in (None, version):
                continue
            over_tls = MODELS in program
            program = program.replace(IMAGES, arguments.images).replace(MODELS, arguments.https_base)
            result = subprocess.run(
                [sys.executable, "-B", "-c", program],
                cwd=folder,
                env=environment(arguments, home, over_tls),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=BLOCK_SECONDS_MAX,
            )
            ran += 1
            if result.returncode == 0 and result.stdout == expected:
                print(f"ok {line}", flush=True)
            else:
                failed += 1
                print(f"failed {line}: expected\n{expected}got\n{result.stdout}{result.stderr}", flush=True)
    return 1 if failed or not ran else 0


if __name__ == "__main__":
    sys.exit(main())
