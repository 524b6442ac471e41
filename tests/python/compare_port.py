#!/usr/bin/env python3
"""Calls a Python model folder's class, and the port of it that a server has, and compares what they answer.

    compare_port.py --folder FOLDER --base http://HOST:PORT [--pat PAT] [--record FILE]

FOLDER is `hello-world` of https://github.com/Clarifai/runners-examples, whose class runs here, without a server. The
port is `guests/hello-world`, called with the same SDK by the names of its methods. That model ends each text with
letters drawn at random; for those, both answers must have the same number of them, and all else must be equal.
`--record` writes the class's answers down as `tests/fixtures/hello-world-python.json` has them: there `letters` is
how many characters before the last one were drawn.

Prints both answers of each call. Exit code 1 if any differ.
"""
import argparse
import importlib.metadata
import importlib.util
import json
import pathlib
import re
import sys
import tempfile

from sdk_scenario import isolate

REPOSITORY = "https://github.com/Clarifai/runners-examples"
COMMIT = "1ece936442a9f0eebc1627d321ac1f0415e4452f"
UNICODE = "Grüße, 世界 🌍"
LETTERS_DEFAULT = 3

# A list is what a caller streams. Nothing is drawn where `number_of_letters` is 0, so there the whole answer counts.
CALLS = [
    ("predict", {"prompt": "Ada"}),
    ("predict", {"prompt": "Ada", "number_of_letters": 0}),
    ("predict", {"prompt": "Ada", "number_of_letters": 5}),
    ("predict", {"prompt": "Ada", "number_of_letters": -1}),
    ("predict", {"prompt": "", "number_of_letters": 0}),
    ("predict", {"prompt": UNICODE, "number_of_letters": 0}),
    ("predict", {"prompt": "two\nlines\n", "number_of_letters": 0}),
    ("generate", {}),
    ("generate", {"number_of_letters": 0}),
    ("generate", {"prompt": "", "number_of_letters": 0}),
    ("generate", {"prompt": "Ada"}),
    ("generate", {"prompt": UNICODE, "number_of_letters": 0}),
    ("s", {"input_iterator": ["Ada", "", UNICODE]}),
    ("s", {"input_iterator": ["Ada", "", UNICODE], "number_of_letters": 0}),
    ("s", {"input_iterator": ["Ada"], "number_of_letters": 5}),
]


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=pathlib.Path, required=True, help="the Python model folder")
    parser.add_argument("--base", required=True, help="http://HOST:PORT, without a slash at the end")
    parser.add_argument("--pat", default="none", help="anything will do for a server without authentication")
    parser.add_argument("--record", type=pathlib.Path, help="where to write what the class answered")
    return parser.parse_args()


def load(folder):
    specification = importlib.util.spec_from_file_location("ported", folder / "1" / "model.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    model = module.MyModel()
    model.load_model()
    return model


def call(model, method, arguments):
    given = {name: iter(value) if isinstance(value, list) else value for name, value in arguments.items()}
    answer = getattr(model, method)(**given)
    return [answer] if isinstance(answer, str) else list(answer)


def fixed(outputs, letters):
    """The outputs with each letter that was drawn replaced by the same one."""
    drawn = re.compile(rf"[A-Za-z]{{{letters}}}\n\Z")
    return [drawn.sub("?" * letters + "\n", output) for output in outputs]


def main():
    arguments = parse_arguments()
    with tempfile.TemporaryDirectory() as home:
        isolate(arguments, home)
        from clarifai.client.model import Model

        version = f"clarifai {importlib.metadata.version('clarifai')}"
        there = load(arguments.folder)
        here = Model(model_id="hello-world", user_id="local", app_id="main")
        answers, differences = [], 0
        for method, given in CALLS:
            letters = max(0, given.get("number_of_letters", LETTERS_DEFAULT))
            python, port = call(there, method, given), call(here, method, given)
            same = fixed(python, letters) == fixed(port, letters)
            differences += not same
            print(f"{'same' if same else 'DIFFERENT'} {method} {given}\n  python {python}\n  port   {port}")
            answers.append({"method": method, "arguments": given, "letters": letters, "outputs": python})
    if arguments.record:
        source = {"repository": REPOSITORY, "path": "hello-world", "commit": COMMIT}
        record = {"source": source, "python": version, "answers": answers}
        arguments.record.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{version}: {len(CALLS)} calls, {differences} different")
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
