"""What the scenarios beside this share: the SDK's differences between its versions, refusals, and how they run."""
import argparse
import faulthandler
import importlib.metadata
import os
import pathlib
import tempfile
import time
import traceback

USER, APP = "local", "main"
# A refusal must come at once: a client that retries what it takes for an overload sleeps 5 seconds first.
REFUSAL_SECONDS_MAX = 4


def isolate(base, pat, home):
    """Keeps the user's settings and proxies out. From 12 on the SDK reads these variables when it is imported."""
    for name in list(os.environ):
        if name.startswith("CLARIFAI_"):
            del os.environ[name]
    os.environ.update(
        HOME=home,
        CLARIFAI_API_BASE=base,
        CLARIFAI_PAT=pat,
        no_proxy="127.0.0.1,localhost",
        no_grpc_proxy="127.0.0.1,localhost",
    )


class Sdk:
    """Hides what differs between the versions of the SDK, and nothing else."""

    def __init__(self, base, ca=None):
        from clarifai.client.app import App
        from clarifai.client.input import Inputs
        from clarifai.client.model import Model
        from clarifai.client.user import User

        self._app, self._model, self._user, self.inputs = App, Model, User, Inputs
        self.base = base
        self.version = importlib.metadata.version("clarifai")
        self.major = int(self.version.split(".")[0])
        # Before 12 the variable CLARIFAI_API_BASE is not read here.
        self.where = {"base_url": base} if self.major < 12 else {}
        if ca:
            self.where["root_certificates_path"] = ca

    def model(self, name, **keywords):
        """By ids. From 12 on this is a call, and raises where the model is not there."""
        return self._model(model_id=name, user_id=USER, app_id=APP, **{**self.where, **keywords})

    def model_by_url(self, name):
        return self._model(url=f"{self.base}/{USER}/{APP}/models/{name}", **self.where)

    def app(self):
        return self._app(app_id=APP, user_id=USER, **self.where)

    def user(self):
        return self._user(user_id=USER, **self.where)

    def text_input(self, text):
        return self.inputs.get_input_from_bytes("", text_bytes=text.encode())


def text_of(response):
    assert len(response.outputs) == 1, f"{len(response.outputs)} outputs"
    return response.outputs[0].data.text.raw


def texts_of(responses):
    return [text_of(response) for response in responses]


def assert_equal(left, right):
    assert left == right, f"{left!r} is not {right!r}"


def assert_refused(call, *words):
    """`call` must raise the SDK's own exception, soon, with the status in its text."""
    import grpc

    started = time.monotonic()
    try:
        answer = call()
    except Exception as error:
        seconds = time.monotonic() - started
        text = str(error)
        assert type(error) is Exception and not isinstance(error, grpc.RpcError), f"raised {error!r}"
        for word in ("code: ", "description: ", *words):
            assert word in text, f"{word!r} is not in the exception's text: {text}"
        assert seconds < REFUSAL_SECONDS_MAX, f"took {seconds:.2f} seconds: {text}"
    else:
        raise AssertionError(f"no exception, but {answer!r}")


def parser(description):
    """What every scenario is told."""
    made = argparse.ArgumentParser(description=description.splitlines()[0])
    made.add_argument("--base", required=True, help="http://HOST:PORT, without a slash at the end")
    made.add_argument("--pat", required=True)
    made.add_argument("--ca", help="PEM file of the CA, where the base is https")
    made.add_argument("--timeout-seconds", type=float, default=180, help="for everything (%(default)s)")
    return made


def play(arguments, scenario, names):
    """Calls the methods of `scenario(sdk, arguments, folder)` with these names, and prints `ok NAME` for each.

    Stops at the first that fails. Returns the exit code.
    """
    faulthandler.dump_traceback_later(arguments.timeout_seconds, exit=True)
    with tempfile.TemporaryDirectory() as folder:
        isolate(arguments.base, arguments.pat, folder)
        sdk = Sdk(arguments.base, arguments.ca)
        print(f"clarifai {sdk.version}, clarifai-grpc {importlib.metadata.version('clarifai-grpc')}", flush=True)
        checks = scenario(sdk, arguments, pathlib.Path(folder))
        for name in names:
            try:
                getattr(checks, name)()
            except Exception:
                print(f"failed {name}", flush=True)
                traceback.print_exc()
                return 1
            print(f"ok {name}", flush=True)
    return 0
