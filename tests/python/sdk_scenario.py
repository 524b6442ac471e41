#!/usr/bin/env python3
"""What a user of the unmodified Clarifai SDK for Python does, against a running server.

    sdk_scenario.py --base http://HOST:PORT --pat PAT --digits-image FILE --digits-label LABEL [--models echo,digits]
    sdk_scenario.py --base https://HOST:PORT --pat PAT --ca FILE --models echo

Runs under the SDK versions that the requirements files beside it pin. Expects four models, owned by `local` in the app
`main`: `echo` answers text with the same text, in several chunks when it generates; `scribe` writes text and takes the
parameters `max_tokens` and `seed`; `digits` tells ten digits apart in an image; `typed` has methods with named
arguments. `--models` leaves some of them out.

Prints `ok NAME` for each check. Stops at the first that fails, with `failed NAME` and a traceback on standard error,
and exit code 1.
"""
import pathlib
import sys
import threading

from sdk import APP, USER, assert_equal, assert_refused, parser, play, text_of, texts_of

TEXT = "one two three, Grüße, 世界 🌍, four five six seven eight\nnine"
ITEMS = ["first of three", "second, ä", "third"]
INTERLEAVE_SECONDS_MAX = 20


def parse_arguments():
    made = parser(__doc__)
    made.add_argument("--models", default="echo,scribe,digits,typed", help="which models to call (%(default)s)")
    made.add_argument("--digits-image", type=pathlib.Path, help="an image of one digit")
    made.add_argument("--digits-label", help="the id or the name of the concept that the image shows")
    arguments = made.parse_args()
    arguments.models = set(arguments.models.split(","))
    if not arguments.models <= {"echo", "scribe", "digits", "typed"}:
        made.error("--models takes echo, scribe, digits and typed")
    if "digits" in arguments.models and not (arguments.digits_image and arguments.digits_label):
        made.error("--digits-image and --digits-label are needed for the model digits")
    return arguments


def interleave(model):
    """Gives each item only when the item before it is answered, as one does who types."""
    answered = [threading.Event() for _ in ITEMS]
    unanswered = []

    def items():
        for i, item in enumerate(ITEMS):
            if i > 0 and not answered[i - 1].wait(INTERLEAVE_SECONDS_MAX):
                unanswered.append(ITEMS[i - 1])
                return
            yield item.encode()

    answers = []
    for event, response in zip(answered, model.stream_by_bytes(items()), strict=False):
        answers.append(text_of(response))
        event.set()
    assert not unanswered, f"no answer to {unanswered} before the next item was sent"
    return answers


class Scenario:
    """The checks, in the order in which they run: each method whose name begins with a model's, then `end_`."""

    def __init__(self, sdk, arguments, folder):
        self.sdk, self.arguments, self.folder = sdk, arguments, folder

    def file(self, text):
        path = self.folder / "input.txt"
        path.write_text(text, encoding="utf-8")
        return str(path)

    # Text in, the same text out.

    def echo_predict_by_bytes(self):
        assert_equal(text_of(self.sdk.model("echo").predict_by_bytes(TEXT.encode())), TEXT)

    def echo_predict_by_bytes_of_a_declared_type(self):
        assert_equal(text_of(self.sdk.model("echo").predict_by_bytes(TEXT.encode(), input_type="text")), TEXT)

    def echo_predict_by_filepath(self):
        assert_equal(text_of(self.sdk.model("echo").predict_by_filepath(self.file(TEXT))), TEXT)

    def echo_by_its_url(self):
        assert_equal(text_of(self.sdk.model_by_url("echo").predict_by_bytes(b"by url")), "by url")

    def echo_twice_with_one_client(self):
        model = self.sdk.model("echo")
        assert_equal([text_of(model.predict_by_bytes(item.encode())) for item in ITEMS], ITEMS)

    def echo_predict_of_three_inputs(self):
        response = self.sdk.model("echo").predict([self.sdk.text_input(item) for item in ITEMS])
        assert_equal([output.data.text.raw for output in response.outputs], ITEMS)

    def echo_generate_by_bytes(self):
        chunks = texts_of(self.sdk.model("echo").generate_by_bytes(TEXT.encode()))
        assert len(chunks) > 1, "one chunk only"
        assert_equal("".join(chunks), TEXT)

    def echo_generate_by_filepath(self):
        assert_equal("".join(texts_of(self.sdk.model("echo").generate_by_filepath(self.file(TEXT)))), TEXT)

    def echo_stream_by_bytes(self):
        items = iter([item.encode() for item in ITEMS])
        assert_equal(texts_of(self.sdk.model("echo").stream_by_bytes(items)), ITEMS)

    def echo_stream_by_filepath(self):
        assert_equal(texts_of(self.sdk.model("echo").stream_by_filepath(self.file(TEXT))), [TEXT])

    def echo_stream_answers_before_the_next_item(self):
        assert_equal(interleave(self.sdk.model("echo")), ITEMS)

    def echo_stream_left_early(self):
        answers = self.sdk.model("echo").stream_by_bytes(iter([item.encode() for item in ITEMS]))
        assert_equal(text_of(next(answers)), ITEMS[0])
        answers.close()

    # A language model: parameters arrive, and a seed decides everything.

    def scribe_predict_with_parameters(self):
        model = self.sdk.model("scribe")
        short, again = (self.scribble(model, max_tokens=16, seed=7) for _ in range(2))
        assert short, "no text"
        assert_equal(again, short)
        long = self.scribble(model, max_tokens=64, seed=7)
        assert len(long) > len(short), f"64 tokens {long!r} are not longer than 16 tokens {short!r}"
        assert self.scribble(model, max_tokens=64, seed=8) != long, "the seed makes no difference"

    def scribe_generate_with_parameters(self):
        model = self.sdk.model("scribe")
        parameters = {"max_tokens": 24, "seed": 11}
        chunks = texts_of(model.generate_by_bytes(b"It is a truth", inference_params=parameters))
        assert len(chunks) > 1, "one chunk only"
        assert_equal("".join(chunks), self.scribble(model, **parameters))

    def scribe_stream_with_parameters(self):
        model = self.sdk.model("scribe")
        prompts = iter([b"It is a truth"] * 3)
        texts = "".join(texts_of(model.stream_by_bytes(prompts, inference_params={"max_tokens": 8, "seed": 3})))
        assert_equal(texts, 3 * self.scribble(model, max_tokens=8, seed=3))

    def scribble(self, model, **parameters):
        return text_of(model.predict_by_bytes(b"It is a truth", inference_params=parameters))

    # A classifier.

    def digits_predict_by_filepath(self):
        response = self.sdk.model("digits").predict_by_filepath(str(self.arguments.digits_image))
        self.assert_digits(response, 10)

    def digits_predict_by_bytes(self):
        response = self.sdk.model("digits").predict_by_bytes(self.arguments.digits_image.read_bytes())
        self.assert_digits(response, 10)

    def digits_generate_by_bytes(self):
        responses = list(self.sdk.model("digits").generate_by_bytes(self.arguments.digits_image.read_bytes()))
        self.assert_digits(responses[-1], 10)

    def digits_stream_by_bytes(self):
        items = iter([self.arguments.digits_image.read_bytes()] * 3)
        responses = list(self.sdk.model("digits").stream_by_bytes(items))
        assert_equal(len(responses), 3)
        for response in responses:
            self.assert_digits(response, 10)

    def digits_three_best(self):
        # From 12 on only predict can send an output_config: generate and stream raise before they send anything.
        response = self.sdk.model("digits").predict_by_filepath(
            str(self.arguments.digits_image), output_config={"max_concepts": 3}
        )
        self.assert_digits(response, 3)

    def assert_digits(self, response, count):
        assert_equal(len(response.outputs), 1)
        concepts = response.outputs[0].data.concepts
        values = [concept.value for concept in concepts]
        assert_equal(len(concepts), count)
        assert_equal(values, sorted(values, reverse=True))
        assert all(0 <= value <= 1 for value in values), f"not probabilities: {values}"
        assert_equal(len({concept.id for concept in concepts} - {""}), count)
        label = self.arguments.digits_label
        assert label in (concepts[0].id, concepts[0].name), f"{concepts[0]} comes first, not {label}"

    def digits_refuses_text(self):
        model = self.sdk.model("digits")
        for call in self.calls(model, b"seven", "text"):
            assert_refused(call)

    def digits_refuses_what_is_no_image(self):
        model = self.sdk.model("digits")
        for call in self.calls(model, b"\x00 no image", "image"):
            assert_refused(call)

    # Typed methods: by name from 12 on, and as plain calls by every client.

    def typed_plain_calls(self):
        model = self.sdk.model("typed")
        response = model.predict_by_bytes(b"ab")
        assert_equal(text_of(response), "abab.")
        words = texts_of(model.stream_by_bytes(iter([b"one", b"two"])))
        assert_equal(words, ["> one", "> two"])

    def typed_unary(self):
        if self.sdk.major < 12:
            return
        model = self.sdk.model("typed")
        assert_equal(model.predict(prompt="ab"), "abab.")
        assert_equal(model.predict("ab", 3), "ababab.")
        assert_equal(model.predict(prompt="ab", loud=True, end=""), "ABAB")
        assert_equal(model.predict(prompt="", times=0), ".")
        assert_equal(model.predict([{"prompt": "a"}, {"prompt": "b", "times": 1}]), ["aa.", "b."])

    def typed_nested(self):
        if self.sdk.major < 12:
            return
        model = self.sdk.model("typed")
        assert_equal(model.sum(numbers=[1, 0, 41]), 42)
        assert_equal(model.swap(pair=("half", 0.5)), (0.5, "half"))
        older = model.older(person={"name": "Ada", "age": 36}, years=0)
        assert_equal((older["name"], older["age"]), ("Ada", 36))

    def typed_generator_and_stream(self):
        if self.sdk.major < 12:
            return
        model = self.sdk.model("typed")
        assert_equal(list(model.count(to=3)), [1, 2, 3])
        assert_equal(list(model.stream(iter(["a", "b"]), prefix="- ")), ["- a", "- b"])
        assert_equal(list(model.stream(word=iter(["a"]))), ["> a"])

    def typed_refusals(self):
        if self.sdk.major < 12:
            return
        model = self.sdk.model("typed")
        try:
            model.predict(times=2)
        except TypeError as error:
            assert "prompt" in str(error), error
        else:
            raise AssertionError("a missing argument was not noticed")
        assert_refused(lambda: model.predict(prompt="x", times=100000))

    # Refusals, for each of the three calls.

    def calls(self, model, data, kind):
        yield lambda: model.predict_by_bytes(data, input_type=kind)
        yield lambda: list(model.generate_by_bytes(data, input_type=kind))
        yield lambda: list(model.stream_by_bytes(iter([data] * 3), input_type=kind))

    def assert_all_refused(self, model, *words):
        """From 12 on the constructor raises; before, each call does, with its own RPC."""
        if self.sdk.major >= 12:
            assert_refused(model, *words)
            return
        assert_refused(lambda: model().predict_by_bytes(b"x"), *words)
        for call in self.calls(model(), b"x", "text"):
            assert_refused(call, *words)

    def end_wrong_pat(self):
        self.assert_all_refused(lambda: self.sdk.model("echo", pat="not-a-pat"), "CONN_KEY_INVALID", "TOKEN_INVALID")

    def end_unknown_model(self):
        self.assert_all_refused(lambda: self.sdk.model("no-such-model"), "MODEL_DOES_NOT_EXIST", "NO_SUCH_MODEL")

    def end_unknown_version(self):
        self.assert_all_refused(lambda: self.sdk.model("echo", model_version={"id": "no-such-version"}))

    def end_models_are_listed(self):
        names = {model.id for model in self.sdk.app().list_models()}
        assert self.arguments.models <= names, f"only {sorted(names)} are listed"

    def end_versions_are_listed(self):
        name = sorted(self.arguments.models)[0]
        versions = list(self.sdk.model(name).list_versions())
        assert versions and all(version.model_version.id for version in versions), f"{versions}"

    def end_a_model_is_found_by_its_app(self):
        name = sorted(self.arguments.models)[0]
        model = self.sdk.app().model(name)
        assert_equal((model.id, model.user_id, model.app_id), (name, USER, APP))

    def end_an_app_is_made_found_and_empty(self):
        self.sdk.user().create_app("made-by-the-sdk")
        app = self.sdk.user().app("made-by-the-sdk")
        assert_equal((app.id, app.user_id), ("made-by-the-sdk", USER))
        assert_equal(list(app.list_models()), [])

    def end_who_calls_is_told(self):
        if self.sdk.major >= 12:
            for name in ("me", USER):
                assert_equal(self.sdk.user().get_user_info(user_id=name).user.id, USER)

    def end_all_is_well_after_the_refusals(self):
        if "echo" in self.arguments.models:
            self.echo_predict_by_bytes()


def main():
    arguments = parse_arguments()
    groups = tuple(f"{group}_" for group in [*arguments.models, "end"])
    names = [name for name in vars(Scenario) if name.startswith(groups)]
    return play(arguments, Scenario, names)


if __name__ == "__main__":
    sys.exit(main())
