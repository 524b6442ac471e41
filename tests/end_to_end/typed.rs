//! Typed methods, as they are on the wire.

use ringfence::proto::clarifai::api;
use ringfence::proto::clarifai::api::status::StatusCode;
use ringfence::proto::json;
use ringfence_tests::{Answer, Client, Host, block_on, collect, guests, request, text_input};
use serde_json::{Value, json};

fn part(id: &str, data: api::Data) -> api::Part {
    api::Part { id: id.into(), data: Some(data) }
}

fn text(text: &str) -> api::Data {
    api::Data { string_value: text.into(), ..Default::default() }
}

fn integer(integer: i64) -> api::Data {
    api::Data { int_value: integer, ..Default::default() }
}

fn call(method: &str, parts: Vec<api::Part>) -> api::PostModelOutputsRequest {
    let Value::Object(fields) = json!({ "_method_name": method }) else { unreachable!() };
    let metadata = Some(json::to_struct(fields));
    let data = api::Data { parts, metadata, ..Default::default() };
    request("typed", vec![api::Input { id: String::new(), data: Some(data) }])
}

fn returned(answer: &Answer) -> api::Data {
    let data = answer.outputs[0].data.clone().unwrap();
    let part = data.parts.into_iter().find(|part| part.id == "return");
    part.unwrap_or_else(|| panic!("nothing is returned: {answer:?}")).data.unwrap()
}

#[test]
fn arguments_arrive_by_name_and_the_host_fills_in_defaults() {
    let host = Host::serve(&[guests::TYPED]);
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        let all =
            vec![part("times", integer(3)), part("prompt", text("x")), part("end", text("!"))];
        let answer = client.predict_request(call("predict", all)).await;
        let data = returned(&answer);
        assert_eq!(data.string_value, "xxx!", "{answer:?}");
        assert_eq!(data.text.unwrap().raw, "xxx!");
        let one = client.predict_request(call("predict", vec![part("prompt", text("x"))])).await;
        assert_eq!(returned(&one).string_value, "xx.");

        // The first argument may lie in the input itself, and zero is a value.
        let mut inlined = call("predict", vec![part("times", integer(0))]);
        inlined.inputs[0].data.as_mut().unwrap().string_value = "y".into();
        assert_eq!(returned(&client.predict_request(inlined).await).string_value, ".");
    });
}

#[test]
fn lists_tuples_and_named_fields_are_flattened_and_rebuilt() {
    let host = Host::serve(&[guests::TYPED]);
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        // Elements of a list have no names.
        let elements = [0, 40, 2].map(|n| part("", integer(n))).to_vec();
        let list = api::Data { parts: elements, ..Default::default() };
        let answer = client.predict_request(call("sum", vec![part("numbers", list)])).await;
        assert_eq!(returned(&answer).int_value, 42, "{answer:?}");

        let fields = vec![part("age", integer(36)), part("name", text("Ada"))];
        let person = api::Data { parts: fields, ..Default::default() };
        let asked = call("older", vec![part("person", person), part("years", integer(1))]);
        let fields = returned(&client.predict_request(asked).await).parts;
        let seen: Vec<_> = fields.iter().map(|part| part.id.as_str()).collect();
        assert_eq!(seen, ["name", "age"]);
        assert_eq!(fields[1].data.as_ref().unwrap().int_value, 37);
    });
}

#[test]
fn each_wrong_call_is_told_by_the_name_of_what_is_wrong() {
    let host = Host::serve(&[guests::TYPED, guests::ECHO]);
    let image = api::Image { url: String::new(), base64: vec![1].into() };
    let image = api::Data { image: Some(image), ..Default::default() };
    let prompt = || part("prompt", text("x"));
    let listed = || api::Data { parts: vec![part("", integer(1))], ..Default::default() };
    let mut inlined = call("predict", vec![prompt()]);
    inlined.inputs[0].data.as_mut().unwrap().int_value = 5;
    let argument = "INVALID_ARGUMENT";
    let cases = [
        (call("predict", vec![]), argument, "`predict` needs the argument `prompt`"),
        (
            call("predict", vec![prompt(), part("colour", text("x"))]),
            argument,
            "no argument \"colour\"; it takes prompt, times, loud, end",
        ),
        (
            call("predict", vec![part("prompt", image)]),
            argument,
            "`prompt` takes a text, not an image",
        ),
        (
            call("predict", vec![prompt(), part("times", text("3"))]),
            argument,
            "`times` takes an integer, not a text",
        ),
        (call("predict", vec![prompt(); 5]), argument, "`predict` takes 4 arguments"),
        (call("predict", vec![prompt(), prompt()]), argument, "`prompt` is given twice"),
        (
            call("predict", vec![prompt(), part("times", listed())]),
            argument,
            "`times` takes an integer, not a list or fields",
        ),
        (inlined, argument, "`predict` has no argument for an integer"),
        (
            call("older", vec![part("person", integer(1)), part("years", integer(1))]),
            argument,
            "`person` takes named fields, not an integer",
        ),
        (
            call("sing", vec![prompt()]),
            "NO_SUCH_METHOD",
            "the model has no method \"sing\"; it has predict, sum",
        ),
        (
            call("count", vec![part("to", integer(1))]),
            "NO_SUCH_METHOD",
            "`count` is called by generate, and not by predict",
        ),
    ];
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        for (asked, reason, text) in cases {
            let answer = client.predict_request(asked).await;
            assert_eq!(answer.reason(), reason, "{text}: {answer:?}");
            assert!(answer.status.details.contains(text), "{text}: {answer:?}");
        }
        let mut untyped = call("predict", vec![prompt()]);
        untyped.model_id = "echo".into();
        let answer = client.predict_request(untyped).await;
        assert_eq!(answer.code(), StatusCode::InputUnsupportedFormat, "{answer:?}");
        assert_eq!(answer.reason(), "NO_TYPED_METHODS");
    });
}

#[test]
fn a_stream_has_all_arguments_in_its_first_message_only() {
    let host = Host::serve(&[guests::TYPED]);
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        let word = |word: &str| part("word", text(word));
        let messages = vec![
            call("stream", vec![word("a"), part("prefix", text("- "))]),
            call("stream", vec![word("b")]),
        ];
        let answers = collect(client.stream(tokio_stream::iter(messages)).await).await;
        let words: Vec<_> = answers.iter().map(|one| returned(one).string_value).collect();
        assert_eq!(words, ["- a", "- b"]);
    });
}

#[test]
fn a_plain_call_of_an_old_client_is_a_call_of_the_method_of_that_name() {
    let host = Host::serve(&[guests::TYPED]);
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        let answer = client.predict("typed", vec![text_input("ab")]).await;
        let data = answer.outputs[0].data.clone().unwrap();
        assert_eq!((data.text.unwrap().raw, data.string_value), ("abab.".into(), "abab.".into()));
        // There is no method `generate`.
        let asked = request("typed", vec![text_input("3")]);
        let answers = client.generate_all(asked).await;
        assert_eq!(answers[0].reason(), "NO_SUCH_METHOD", "{answers:?}");
    });
}

#[test]
fn signatures_are_told_both_ways() {
    let host = Host::serve(&[guests::TYPED]);
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        let set = api::UserAppIdSet { user_id: "local".into(), app_id: "main".into() };
        let asked = api::GetModelVersionRequest {
            user_app_id: Some(set),
            model_id: "typed".into(),
            ..Default::default()
        };
        let version = client.v2().get_model_version(client.with_token(asked)).await.unwrap();
        let signatures = version.into_inner().model_version.unwrap().method_signatures;
        let names: Vec<_> = signatures.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(names, ["predict", "sum", "older", "swap", "count", "stream"]);
        assert_eq!(signatures[0].input_fields[1].default, "2");

        let asked = client.predict_request(call("_GET_SIGNATURES", vec![api::Part::default()]));
        let told: Value = serde_json::from_str(&asked.await.text()).unwrap();
        assert_eq!(told["count"]["methodType"], "UNARY_STREAMING");
        assert_eq!(told["sum"]["inputFields"][0]["typeArgs"][0]["type"], "INT");
    });
}

/// `tests/python/compare_port.py` recorded what the Python class answers. Its
/// letters are drawn, so only their number is compared.
#[test]
fn a_ported_model_answers_as_the_python_class_does() {
    let recorded: Value =
        serde_json::from_str(include_str!("../fixtures/hello-world-python.json")).unwrap();
    let host = Host::serve(&[guests::HELLO_WORLD]);
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        let mut seen = std::collections::BTreeSet::new();
        for answer in recorded["answers"].as_array().unwrap() {
            let method = answer["method"].as_str().unwrap();
            seen.insert(method);
            let given = answer["arguments"].as_object().unwrap();
            let scalars = given.iter().filter_map(|(name, value)| {
                let data = match value {
                    Value::String(given) => text(given),
                    Value::Number(given) => integer(given.as_i64().unwrap()),
                    _ => return None,
                };
                Some(part(name, data))
            });
            let named = |parts| api::PostModelOutputsRequest {
                model_id: "hello-world".into(),
                ..call(method, parts)
            };
            let mut scalars: Vec<_> = scalars.collect();
            let answers = match method {
                "predict" => vec![client.predict_request(named(scalars)).await],
                "generate" => client.generate_all(named(scalars)).await,
                _ => {
                    let words = given["input_iterator"].as_array().unwrap().iter();
                    let messages: Vec<_> = words
                        .map(|word| {
                            let word = part("input_iterator", text(word.as_str().unwrap()));
                            named([vec![word], std::mem::take(&mut scalars)].concat())
                        })
                        .collect();
                    collect(client.stream(tokio_stream::iter(messages)).await).await
                }
            };
            let letters = answer["letters"].as_u64().unwrap() as usize;
            let expected: Vec<_> =
                answer["outputs"].as_array().unwrap().iter().map(|o| o.as_str().unwrap()).collect();
            let ours: Vec<_> = answers.iter().map(|answer| returned(answer).string_value).collect();
            assert_eq!(ours.len(), expected.len(), "{answer}");
            for (ours, theirs) in ours.iter().zip(expected) {
                let (before, drawn) = ours.split_at(ours.len() - letters - 1);
                assert_eq!(before, &theirs[..theirs.len() - letters - 1], "{answer}");
                let drawn = drawn.strip_suffix('\n').unwrap();
                assert!(drawn.bytes().all(|b| b.is_ascii_alphabetic()), "{ours:?}");
            }
        }
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["generate", "predict", "s"]);
    });
}
