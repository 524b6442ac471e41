#!/usr/bin/env python3
"""What the unmodified uploader of the Clarifai SDK for Python does against a running server.

    sdk_upload.py --base http://HOST:PORT --pat PAT --component FILE

FILE is a `model.wasm` that answers text with the same text. It is put beside the Python files that the uploader wants
to see, which the host does not look at. Models are made in the app `main` of `local`.

Prints `ok NAME` for each check. Stops at the first that fails, with `failed NAME` and a traceback on standard error,
and exit code 1.
"""
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys

from sdk import APP, USER, assert_equal, parser, play, text_of

UPLOAD_SECONDS_MAX = 90
# What the uploader sends in one message, if there is so much.
CHUNK_BYTES = 127 << 20
MODEL_BUILDING_FAILED = 21108
MISSING = "1/model.wasm is missing: this host runs WebAssembly; see Porting"
# Without ports the uploader's own looks at package indexes fail at once, which it takes for no obstacle.
NO_INDEX = {
    "UV_INDEX_URL": "http://127.0.0.1:9/",
    "UV_HTTP_RETRIES": "0",
    "UV_PYTHON_DOWNLOADS": "never",
    "https_proxy": "http://127.0.0.1:9",
}
CONFIG = """\
model:
  id: {name}
  user_id: local
  app_id: main
  model_type_id: text-to-text
build_info:
  {build_info}
inference_compute_info:
  cpu_limit: "500m"
  cpu_memory: "64Mi"
  num_accelerators: 0
"""
STUB = '''\
from clarifai.runners.models.model_class import ModelClass


class Stub(ModelClass):
    """1/model.wasm is what runs."""
'''


class Scenario:
    """The checks, in the order in which they run."""

    def __init__(self, sdk, arguments, folder):
        self.sdk, self.arguments, self.folder = sdk, arguments, folder

    def model_folder(self, name, component=True, build_info="image: none", requirements=""):
        folder = self.folder / name
        (folder / "1").mkdir(parents=True)
        (folder / "config.yaml").write_text(CONFIG.format(name=name, build_info=build_info))
        (folder / "requirements.txt").write_text(requirements)
        (folder / "1/model.py").write_text(STUB)
        if component:
            shutil.copy(self.arguments.component, folder / "1/model.wasm")
        return folder

    def upload(self, folder, **variables):
        """The uploader's exit code and what it prints, without its colours and line breaks."""
        # The program beside this Python, whatever the environment has.
        program = pathlib.Path(sys.executable).parent / "clarifai"
        options = ["--model_path", folder] if self.sdk.major < 12 else ["--verbose", folder]
        # Its code formats and checks with programs that its environment brings.
        path = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
        result = subprocess.run(
            [program, "model", "upload", *options],
            env={**os.environ, **NO_INDEX, "PATH": path, "COLUMNS": "200", **variables},
            input="\n",
            capture_output=True,
            text=True,
            timeout=UPLOAD_SECONDS_MAX,
        )
        text = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", result.stdout + result.stderr)
        return result.returncode, " ".join(text.split())

    def version(self, text):
        return re.search(r"Created Model Version ID: ([0-9a-f]{32})", text)[1]

    def echoes(self, name, version):
        model = self.sdk.model(name)
        assert_equal(text_of(model.predict_by_bytes("Grüße".encode(), input_type="text")), "Grüße")
        versions = [listed.model_version.id for listed in model.list_versions()]
        assert versions.count(version) == 1, f"{version} is not once in {versions}"

    def request(self, name, request, response, **fields):
        """One RPC without the SDK's own classes."""
        import grpc
        from clarifai_grpc.grpc.api import resources_pb2, service_pb2

        channel = grpc.insecure_channel(self.arguments.base.removeprefix("http://"))
        call = channel.unary_unary(
            f"/clarifai.api.V2/{name}",
            request_serializer=getattr(service_pb2, request).SerializeToString,
            response_deserializer=getattr(service_pb2, response).FromString,
        )
        user_app_id = resources_pb2.UserAppIDSet(user_id=USER, app_id=APP)
        message = getattr(service_pb2, request)(user_app_id=user_app_id, **fields)
        return call(message, metadata=[("authorization", f"Key {self.arguments.pat}")], timeout=30)

    def component_beside_stubs_is_uploaded_and_called(self):
        folder = self.model_folder("beside-stubs")
        code, text = self.upload(folder)
        assert code == 0 and "Model build complete!" in text, text
        self.echoes("beside-stubs", self.version(text))
        # The same again is the same version.
        (folder / "Dockerfile").unlink()
        _, again = self.upload(folder)
        assert_equal(self.version(again), self.version(text))
        self.echoes("beside-stubs", self.version(again))

    def a_folder_as_the_uploader_itself_wants_it(self):
        requirements = f"clarifai=={self.sdk.version}\n"
        folder = self.model_folder("as-wanted", build_info='python_version: "3.11"', requirements=requirements)
        code, text = self.upload(folder)
        assert code == 0 and "Model build complete!" in text, text
        if self.sdk.major >= 12:
            assert "Python code linted successfully" in text, text
        self.echoes("as-wanted", self.version(text))

    def a_folder_of_python_alone_is_told_what_is_missing(self):
        _, text = self.upload(self.model_folder("python-alone", component=False))
        assert MISSING in text and "MODEL_BUILDING_FAILED" in text, text
        version = self.version(text)
        names = {"model_id": "python-alone", "version_id": version}
        answer = self.request("GetModelVersion", "GetModelVersionRequest", "SingleModelVersionResponse", **names)
        assert_equal(answer.model_version.status.code, MODEL_BUILDING_FAILED)
        names = {"model_id": "python-alone", "model_version_id": version, "log_type": "builder"}
        answer = self.request("ListLogEntries", "ListLogEntriesRequest", "MultiLogEntryResponse", **names)
        lines = [entry.message.strip() for entry in answer.log_entries]
        assert MISSING in lines, lines

    def a_package_of_several_chunks_is_uploaded_and_called(self):
        folder = self.model_folder("in-chunks")
        # What does not shrink: the uploader sends 127 MiB in one message, then the rest.
        (folder / "1/noise.bin").write_bytes(random.Random(7).randbytes(CHUNK_BYTES + (1 << 20)))
        code, text = self.upload(folder)
        assert code == 0 and "Model build complete!" in text, text
        self.echoes("in-chunks", self.version(text))

    def a_wrong_token_uploads_nothing(self):
        _, text = self.upload(self.model_folder("without-rights"), CLARIFAI_PAT="wrong")
        assert "Created Model Version" not in text, text
        assert "CONN_KEY_INVALID" in text or "Invalid PAT" in text, text
        names = {model.id for model in self.sdk.app().list_models()}
        assert "without-rights" not in names, names


def main():
    made = parser(__doc__)
    made.add_argument("--component", required=True, type=pathlib.Path, help="a model.wasm that answers with its text")
    arguments = made.parse_args()
    names = [name for name in vars(Scenario) if name.startswith(("a_", "component_"))]
    return play(arguments, Scenario, names)


if __name__ == "__main__":
    sys.exit(main())
