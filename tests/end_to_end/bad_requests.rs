//! What a bad request gets: the code, the reason, the text, and that the next
//! call works.

use super::digits::single;
use ringfence::proto::clarifai::api::status::{Status, StatusCode};
use ringfence::proto::clarifai::api::{self, PostModelOutputsRequest};
use ringfence::proto::json;
use ringfence_tests::{
    Canary, Client, Host, Variant, block_on, collect, field, guests, image_input, output_config,
    raw_answer, raw_answer_to, request, text_input,
};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;
use tonic::Code;

fn with_version(version: &str) -> PostModelOutputsRequest {
    PostModelOutputsRequest {
        version_id: version.into(),
        ..request("echo", vec![text_input("hello")])
    }
}

fn of_user(user: &str) -> PostModelOutputsRequest {
    let set = api::UserAppIdSet { user_id: user.into(), app_id: "main".into() };
    PostModelOutputsRequest { user_app_id: Some(set), ..request("echo", vec![text_input("hello")]) }
}

fn with_url() -> api::Input {
    let text = api::Text { raw: String::new(), url: "http://127.0.0.1:9/".into() };
    let data = api::Data { text: Some(text), ..Default::default() };
    api::Input { id: String::new(), data: Some(data) }
}

fn broken_png() -> Vec<u8> {
    let mut file = single("seven.png");
    file.truncate(file.len() / 2);
    file
}

/// A PNG header that promises 10^9 pixels, which no decoder may believe.
fn huge_png() -> Vec<u8> {
    let mut file = single("three.png");
    file[16..20].copy_from_slice(&31_623_u32.to_be_bytes());
    file[20..24].copy_from_slice(&31_623_u32.to_be_bytes());
    file
}

#[test]
fn each_bad_request_gets_its_answer_and_the_next_call_works() {
    let mut host = Host::serve(&[guests::ECHO, guests::DIGITS]);
    let text = || vec![text_input("hello")];
    let invalid = StatusCode::InputInvalidArgument;
    let absent = StatusCode::ModelDoesNotExist;
    let refused = StatusCode::PredictInvalidRequest;
    let cases = [
        ("no inputs", request("echo", vec![]), refused, "INVALID_REQUEST", "at least one"),
        ("no model", request("", text()), refused, "INVALID_REQUEST", "model_id"),
        ("unknown model", request("nobody", text()), absent, "NO_SUCH_MODEL", "model id"),
        ("odd model", request("../echo", text()), absent, "NO_SUCH_MODEL", "model id"),
        ("another's model", of_user("mallory"), absent, "NO_SUCH_MODEL", "model id"),
        ("unknown version", with_version("0"), absent, "NO_SUCH_VERSION", "leave the version"),
        (
            "129 inputs",
            request("echo", vec![text_input("x"); 129]),
            refused,
            "INVALID_REQUEST",
            "128",
        ),
        (
            "empty input",
            request("echo", vec![api::Input::default()]),
            invalid,
            "EMPTY_INPUT",
            "no data",
        ),
        (
            "URL",
            request("echo", vec![with_url()]),
            StatusCode::InputInvalidUrl,
            "URL_NOT_FETCHED",
            "bytes",
        ),
        ("text to an image model", request("digits", text()), invalid, "GUEST_ERROR", "image"),
        (
            "no image file",
            request("digits", vec![image_input(*b"GIF89a")]),
            invalid,
            "GUEST_ERROR",
            "PNG",
        ),
        (
            "broken PNG",
            request("digits", vec![image_input(broken_png())]),
            invalid,
            "GUEST_ERROR",
            "PNG",
        ),
    ];
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        let canary = Canary::start(&host).await;
        for (name, asked, code, reason, text) in cases {
            let predicted = client.predict_request(asked.clone()).await;
            let generated = client.generate_all(asked.clone()).await;
            let streamed = collect(client.stream(tokio_stream::once(asked)).await).await;
            assert_eq!((generated.len(), streamed.len()), (1, 1), "{name}");
            for answer in [&predicted, &generated[0], &streamed[0]] {
                assert_eq!(answer.code(), code, "{name}: {answer:?}");
                assert_eq!(answer.reason(), reason, "{name}: {answer:?}");
                assert!(answer.status.details.contains(text), "{name}: {answer:?}");
                assert!(!answer.status.req_id.is_empty(), "{name}: {answer:?}");
            }
            let next = client.predict("echo", vec![text_input("next")]).await;
            assert_eq!(next.text(), "next", "after {name}");
        }
        let huge = client.predict("digits", vec![image_input(huge_png())]).await;
        assert_eq!(huge.reason(), "GUEST_ERROR", "{huge:?}");
        canary.ends(&mut host, "bad requests").await;
    });
}

/// What the newest clients ask a model for before they call it.
fn for_signatures() -> PostModelOutputsRequest {
    let mut input = text_input("hello");
    let method = serde_json::json!({ "_method_name": "_GET_SIGNATURES" });
    let serde_json::Value::Object(fields) = method else { unreachable!() };
    input.data.as_mut().unwrap().metadata = Some(json::to_struct(fields));
    request("echo", vec![input])
}

#[test]
fn what_there_is_not_is_said_to_be_absent() {
    let host = Host::serve(&[guests::ECHO]);
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        let set = api::UserAppIdSet { user_id: "mallory".into(), app_id: String::new() };
        let asked = api::GetUserRequest { user_app_id: Some(set), ..Default::default() };
        let user = client.v2().get_user(client.with_token(asked)).await.unwrap().into_inner();
        let asked = api::GetModelTypeRequest { model_type_id: "odd".into(), ..Default::default() };
        let kind = client.v2().get_model_type(client.with_token(asked)).await.unwrap().into_inner();
        assert!(user.user.is_none() && kind.model_type.is_none());
        for (status, reason) in [(user.status, "NO_SUCH_USER"), (kind.status, "NO_SUCH_MODEL_TYPE")]
        {
            let status = status.unwrap();
            assert_eq!(status.code(), StatusCode::ConnDoesNotExist, "{status:?}");
            assert!(status.details.starts_with(reason), "{status:?}");
        }
        let answer = client.predict_request(for_signatures()).await;
        assert_eq!(answer.code(), StatusCode::InputUnsupportedFormat, "{answer:?}");
        assert_eq!(answer.reason(), "NO_TYPED_METHODS");
    });
}

fn of_parts(parts: Vec<api::Part>) -> PostModelOutputsRequest {
    let data = api::Data { parts, ..Default::default() };
    request("echo", vec![api::Input { id: String::new(), data: Some(data) }])
}

/// One part with an id of 1 MiB and 4,000 leaves, each of whose paths begins
/// with that id.
fn long_paths() -> PostModelOutputsRequest {
    let leaf = |number: i64| api::Part {
        id: number.to_string(),
        data: Some(api::Data { int_value: number, ..Default::default() }),
    };
    let leaves = api::Data { parts: (1..=4000).map(leaf).collect(), ..Default::default() };
    of_parts(vec![api::Part { id: "p".repeat(1 << 20), data: Some(leaves) }])
}

fn many_selected() -> PostModelOutputsRequest {
    let concept = |number: u32| api::Concept { id: number.to_string(), ..Default::default() };
    let select_concepts = (0..=1000).map(concept).collect();
    let config = api::OutputConfig { select_concepts, ..Default::default() };
    output_config(request("echo", vec![text_input("hello")]), config)
}

/// Small on the wire and large once the host has taken them apart.
#[test]
fn requests_that_would_swell_are_refused_before_they_do() {
    let host = Host::serve(&[guests::ECHO]);
    let over = StatusCode::InputOverLimit;
    let cases = [
        ("long paths", long_paths(), over, "PATH_TOO_LONG"),
        ("empty parts", of_parts(vec![api::Part::default(); 100_000]), over, "TOO_MANY_PARTS"),
        ("1,001 concepts", many_selected(), StatusCode::PredictInvalidRequest, "INVALID_REQUEST"),
    ];
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        let before = client.predict("echo", vec![text_input("before")]).await;
        assert_eq!(before.text(), "before");
        let resident_bytes = host.resident_bytes_peak();
        for (name, asked, code, reason) in cases {
            let call = client.predict_request(asked);
            let answer = tokio::time::timeout(Duration::from_secs(10), call).await;
            let answer = answer.unwrap_or_else(|_| panic!("{name} took too long"));
            assert_eq!((answer.code(), answer.reason()), (code, reason), "{name}: {answer:?}");
        }
        let grown_bytes = host.resident_bytes_peak() - resident_bytes;
        assert!(grown_bytes < 256 << 20, "the host grew by {grown_bytes} bytes");
        let next = client.predict("echo", vec![text_input("next")]).await;
        assert_eq!(next.text(), "next");
    });
}

/// The host has a model of somebody else, and no call tells so.
#[test]
fn someone_elses_model_and_none_get_the_same_answer() {
    let foreign = Variant::of(guests::ECHO, &[("user_id: local", "user_id: mallory")]);
    let host = Host::serve(&[guests::ECHO, foreign.path()]);
    let set = |user: &str| Some(api::UserAppIdSet { user_id: user.into(), app_id: "main".into() });
    let same = |mut a: Status, mut b: Status| {
        a.req_id.clear();
        b.req_id.clear();
        assert_eq!(a, b);
        assert_eq!(a.code(), StatusCode::ModelDoesNotExist);
    };
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        let absent = client.predict("nobody", vec![text_input("x")]).await;
        let foreign = client.predict_request(of_user("mallory")).await;
        same(absent.status, foreign.status);

        let model = async |user: &str, id: &str| {
            let asked = api::GetModelRequest {
                user_app_id: set(user),
                model_id: id.into(),
                ..Default::default()
            };
            let found = client.v2().get_model(client.with_token(asked)).await.unwrap();
            let found = found.into_inner();
            assert!(found.model.is_none());
            found.status.unwrap()
        };
        same(model("mallory", "echo").await, model("local", "nobody").await);

        let version = async |user: &str, id: &str| {
            let asked = api::GetModelVersionRequest {
                user_app_id: set(user),
                model_id: id.into(),
                ..Default::default()
            };
            let found = client.v2().get_model_version(client.with_token(asked)).await.unwrap();
            let found = found.into_inner();
            assert!(found.model_version.is_none());
            found.status.unwrap()
        };
        same(version("mallory", "echo").await, version("local", "nobody").await);

        let versions = async |user: &str, id: &str| {
            let asked = api::ListModelVersionsRequest {
                user_app_id: set(user),
                model_id: id.into(),
                ..Default::default()
            };
            let found = client.v2().list_model_versions(client.with_token(asked)).await.unwrap();
            let found = found.into_inner();
            assert!(found.model_versions.is_empty());
            found.status.unwrap()
        };
        same(versions("mallory", "echo").await, versions("local", "nobody").await);

        let listed = async |user: &str| {
            let asked = api::ListModelsRequest { user_app_id: set(user), ..Default::default() };
            let found = client.v2().list_models(client.with_token(asked)).await.unwrap();
            found.into_inner().models.len()
        };
        assert_eq!((listed("me").await, listed("mallory").await), (1, 0));
    });
}

/// CLI-02.
#[test]
fn a_message_over_the_limit_is_refused_with_a_grpc_code() {
    let host = Host::serve(&[guests::ECHO]);
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        let large = request("echo", vec![text_input(&"x".repeat(17 << 20))]);
        let refused = client.v2().post_model_outputs(client.with_token(large)).await.unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
        let fits = request("echo", vec![text_input(&"x".repeat(15 << 20))]);
        assert_eq!(client.predict_request(fits).await.text().len(), 15 << 20);
    });
}

/// CLI-01.
#[test]
fn a_message_that_is_no_protobuf_is_the_clients_fault() {
    let host = Host::serve(&[guests::ECHO]);
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        // A user that is no UTF-8, sent through a message of the same shape
        // whose field is bytes.
        let odd = ringfence::proto::clarifai::api::NdArray {
            buffer: vec![0xff; 3].into(),
            ..Default::default()
        };
        let channel = tonic::transport::Endpoint::new(host.base().to_owned()).unwrap();
        let mut grpc = tonic::client::Grpc::new(channel.connect().await.unwrap());
        grpc.ready().await.unwrap();
        let codec: tonic_prost::ProstCodec<_, api::MultiOutputResponse> =
            tonic_prost::ProstCodec::default();
        let path = "/clarifai.api.V2/PostModelOutputs".parse().unwrap();
        let refused = grpc.unary(client.with_token(odd), path, codec).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
    });
}

/// CLI-01: what is no message of the protocol at all, in each of the ways there are.
#[test]
fn bytes_that_are_no_message_are_the_clients_fault() {
    const MODEL_ID: u8 = 2 << 3 | 2;
    let mut host = Host::serve(&[guests::ECHO]);
    let cases: [(&str, Vec<u8>); 9] = [
        ("a varint without an end", [vec![MODEL_ID], vec![0xff; 11]].concat()),
        ("a varint beyond 64 bits", [&[MODEL_ID][..], &[0xff; 9], &[0x7f]].concat()),
        ("a length beyond the end", vec![MODEL_ID, 100, b'x']),
        ("a length of 2^63", [&[MODEL_ID][..], &[0x80; 9], &[1]].concat()),
        ("a number where a text should be", vec![2 << 3, 1]),
        ("a group that does not end", vec![99, 0]),
        ("a wire type that is none", vec![2 << 3 | 6, 1]),
        ("field 0", vec![2, 0]),
        ("structs 10,000 deep", nested(10_000)),
    ];
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        let canary = Canary::start(&host).await;
        let own = format!("Key {}", host.pat());
        let path = "/clarifai.api.V2/PostModelOutputs";
        for (what, bytes) in cases {
            let authorization = [("authorization", own.as_str())];
            let answer = raw_answer_to(host.base(), path, &authorization, &bytes).await;
            assert_eq!(answer.code, Some(Code::InvalidArgument as u32), "{what}: {answer:?}");
            let after = client.predict_request(request("echo", vec![text_input(what)])).await;
            assert_eq!(after.text(), what);
        }
        canary.ends(&mut host, "bytes that are no messages").await;
    });
}

/// A request with an input whose metadata is a list in a list, and so on.
fn nested(depth: usize) -> Vec<u8> {
    // Value.list_value and ListValue.values, in turn.
    let numbers = [6, 1];
    let lists = (0..depth).rev().fold(Vec::new(), |inner, level| field(numbers[level % 2], &inner));
    // Data.metadata, Struct.fields, the entry's value.
    let metadata = field(5, &field(1, &field(2, &lists)));
    // PostModelOutputsRequest.inputs, Input.data.
    field(4, &field(2, &metadata))
}

/// CLI-21: what is not for a gRPC service at all.
#[test]
fn what_is_no_grpc_is_refused_and_the_next_call_works() {
    let mut host = Host::serve(&[guests::ECHO]);
    let hello = request("echo", vec![text_input("hello")]);
    block_on(async {
        let canary = Canary::start(&host).await;
        let own = format!("Key {}", host.pat());
        let path = "/clarifai.api.V2/PostModelOutputs";
        for kind in ["application/grpc-web", "application/grpc-web-text", "text/plain", "x"] {
            let headers = [("authorization", own.as_str()), ("content-type", kind)];
            let answer = raw_answer(host.base(), path, &headers, &hello).await;
            assert_eq!(answer.status, 415, "{kind}: {answer:?}");
            assert!(answer.message.is_none(), "{kind}: {answer:?}");
        }
        let authorization = [("authorization", own.as_str())];
        for path in [
            "/",
            "/../clarifai.api.V2/PostModelOutputs",
            "/clarifai.api.V2/../clarifai.api.V2/PostModelOutputs",
            "//clarifai.api.V2/PostModelOutputs",
            "/clarifai.api.V2/PostModelOutputs/",
            "/clarifai.api.V2/postmodeloutputs",
            "/clarifai.api.V2/",
            "/clarifai.api.V2/PostNothing",
            "/clarifai.api.V2",
            "/clarifai.api.V2Other/PostModelOutputs",
            "/clarifai.api.V3/PostModelOutputs",
        ] {
            let answer = raw_answer(host.base(), path, &authorization, &hello).await;
            assert_eq!(answer.code, Some(Code::Unimplemented as u32), "{path}: {answer:?}");
        }
        canary.ends(&mut host, "what is no gRPC").await;
    });
}

/// CLI-21: HTTP of before, which nobody is answered in.
#[test]
fn a_client_of_http_1_is_let_go() {
    let mut host = Host::serve(&[guests::ECHO]);
    block_on(async {
        let canary = Canary::start(&host).await;
        for asked in [
            "GET / HTTP/1.1\r\nhost: x\r\n\r\n".to_owned(),
            format!("GET / HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "x".repeat(1 << 20)),
            "\r\n".repeat(100),
        ] {
            let address = host.base().strip_prefix("http://").unwrap().to_owned();
            let ended = tokio::task::spawn_blocking(move || said_to(&address, &asked)).await;
            let (answer, waited) = ended.unwrap();
            assert!(!waited, "the connection stays open");
            assert!(!answer.starts_with(b"HTTP/1"), "{:?}", String::from_utf8_lossy(&answer));
        }
        canary.ends(&mut host, "clients of HTTP/1.1").await;
    });
}

/// What a host answers to some bytes, and whether one waits for its end in vain.
fn said_to(address: &str, bytes: &str) -> (Vec<u8>, bool) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    // It may be closed before all of it has left.
    let _ = stream.write_all(bytes.as_bytes());
    let mut answer = Vec::new();
    let ended = stream.read_to_end(&mut answer);
    (answer, ended.is_err_and(|error| error.kind() == ErrorKind::WouldBlock))
}

/// CLI-21.
#[test]
fn an_unknown_method_is_unimplemented() {
    let host = Host::serve(&[guests::ECHO]);
    block_on(async {
        let channel = tonic::transport::Endpoint::new(host.base().to_owned()).unwrap();
        let mut grpc = tonic::client::Grpc::new(channel.connect().await.unwrap());
        grpc.ready().await.unwrap();
        let codec: tonic_prost::ProstCodec<_, api::MultiOutputResponse> =
            tonic_prost::ProstCodec::default();
        let path = "/clarifai.api.V2/PostNothing".parse().unwrap();
        let asked = tonic::Request::new(api::GetUserRequest::default());
        let refused = grpc.unary(asked, path, codec).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unimplemented);
    });
}
