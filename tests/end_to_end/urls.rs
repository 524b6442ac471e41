//! URLs of inputs: what the host fetches, for whom, and what it refuses.

use super::digits::single;
use ringfence::proto::clarifai::api::status::StatusCode;
use ringfence::proto::clarifai::api::{self, PostModelOutputsRequest};
use ringfence::proto::json;
use ringfence_tests::web::{CA_FILE, Page, Web};
use ringfence_tests::{
    Answer, Canary, Client, Host, HostOptions, Variant, binary, block_on, collect, guests,
    refused_start, request, text_input,
};
use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// Longer than anything here takes.
const BOUND: Duration = Duration::from_secs(30);

const PLAIN: &str = "text/plain; charset=utf-8";

fn host_with(models: &[&str], args: Vec<String>) -> Host {
    let models = models.iter().map(Into::into).collect();
    Host::start(HostOptions { models, args, ..HostOptions::default() })
}

fn text_data(url: &str) -> api::Data {
    let text = api::Text { raw: String::new(), url: url.into() };
    api::Data { text: Some(text), ..Default::default() }
}

fn image_data(url: &str) -> api::Data {
    let image = api::Image { url: url.into(), base64: Vec::new().into() };
    api::Data { image: Some(image), ..Default::default() }
}

fn input(data: api::Data) -> api::Input {
    api::Input { id: String::new(), data: Some(data) }
}

fn echo(data: api::Data) -> PostModelOutputsRequest {
    request("echo", vec![input(data)])
}

fn part(id: &str, data: api::Data) -> api::Part {
    api::Part { id: id.into(), data: Some(data) }
}

fn typed(method: &str, parts: Vec<api::Part>) -> PostModelOutputsRequest {
    let method = serde_json::json!({ "_method_name": method });
    let serde_json::Value::Object(fields) = method else { unreachable!() };
    let metadata = Some(json::to_struct(fields));
    request("typed", vec![input(api::Data { parts, metadata, ..Default::default() })])
}

fn data_of(answer: &Answer) -> api::Data {
    let output = answer.outputs.first().unwrap_or_else(|| panic!("no output in {answer:?}"));
    output.data.clone().unwrap()
}

fn assert_refused(answer: &Answer, code: StatusCode, reason: &str, text: &str) {
    assert_eq!((answer.code(), answer.reason()), (code, reason), "{answer:?}");
    assert!(answer.status.details.contains(text), "{text}: {answer:?}");
}

/// Whoever is asked for a URL learns nothing of who sent it. CLI-18.
#[test]
fn what_a_url_leads_to_reaches_a_model_in_every_kind_of_call() {
    let web = Web::start();
    let seven = single("seven.png");
    web.put("/hello", Page::Content(PLAIN, b"hello out there".to_vec()));
    web.put("/json", Page::Content("application/json", br#"{"a":1}"#.to_vec()));
    web.put("/seven", Page::Content("image/png", seven.clone()));
    web.put("/tone", Page::Content("audio/wav", b"RIFF".to_vec()));
    web.put("/film", Page::Content("video/mp4", b"ftyp".to_vec()));
    let moved = vec![("Location", "/hello".to_owned()), ("Set-Cookie", "a=b".to_owned())];
    web.put("/moved", Page::Status("302 Found", moved));
    let host = host_with(&[guests::ECHO, guests::DIGITS, guests::TYPED], web.flag());
    let url = |path: &str| web.url(path);
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;

        let mut asked = client.with_token(echo(text_data(&url("/hello"))));
        asked.metadata_mut().insert("x-secret", "CANARY".parse().unwrap());
        let answer = client.v2().post_model_outputs(asked).await.unwrap().into_inner();
        assert_eq!(Answer::from(answer).text(), "hello out there");
        let moved = client.predict_request(echo(text_data(&url("/moved")))).await;
        assert_eq!(moved.text(), "hello out there", "{moved:?}");

        // All kinds in one input, and in parts of parts.
        let audio = api::Audio { url: url("/tone"), base64: Vec::new().into() };
        let video = api::Video { url: url("/film"), base64: Vec::new().into() };
        let all = api::Data {
            audio: Some(audio),
            video: Some(video),
            text: text_data(&url("/json")).text,
            ..image_data(&url("/seven"))
        };
        let data = data_of(&client.predict_request(echo(all.clone())).await);
        assert_eq!(
            data.image.unwrap(),
            api::Image { url: String::new(), base64: seven.clone().into() }
        );
        assert_eq!(data.audio.unwrap().base64, &b"RIFF"[..]);
        assert_eq!(data.video.unwrap().base64, &b"ftyp"[..]);
        assert_eq!(data.text.unwrap().raw, r#"{"a":1}"#);
        let inner = api::Data { parts: vec![part("b", text_data(&url("/hello")))], ..all };
        let nested = api::Data { parts: vec![part("a", inner)], ..Default::default() };
        let nested = client.predict_request(echo(nested)).await;
        assert_eq!(nested.code(), StatusCode::Success, "{nested:?}");
        let seen = client.predict("digits", vec![input(image_data(&url("/seven")))]).await;
        assert_eq!(seen.concepts()[0].id, "7", "{seen:?}");

        let pieces = client.generate_all(echo(text_data(&url("/hello")))).await;
        assert_eq!(pieces.iter().map(Answer::text).collect::<String>(), "hello out there");

        let messages =
            [echo(text_data(&url("/hello"))), request("echo", vec![text_input("between")])];
        let messages = messages.into_iter().chain([echo(text_data(&url("/json")))]);
        let messages: Vec<_> = messages.collect();
        let answers = collect(client.stream(tokio_stream::iter(messages)).await).await;
        let texts: Vec<_> = answers.iter().map(Answer::text).collect();
        assert_eq!(texts, ["hello out there", "between", r#"{"a":1}"#]);

        let returned = |answer: &Answer| data_of(answer).parts.remove(0).data.unwrap();
        let prompt = part("prompt", text_data(&url("/hello")));
        let answer = client.predict_request(typed("predict", vec![prompt])).await;
        let twice = "hello out therehello out there.";
        assert_eq!(returned(&answer).string_value, twice, "{answer:?}");
        let number = api::Data { float_value: 1.5, ..Default::default() };
        let pair = vec![part("0", text_data(&url("/hello"))), part("1", number)];
        let pair = part("pair", api::Data { parts: pair, ..Default::default() });
        let answer = client.predict_request(typed("swap", vec![pair])).await;
        let swapped = returned(&answer).parts;
        assert_eq!(swapped[1].data.as_ref().unwrap().string_value, "hello out there");
        let plain = request("typed", vec![input(text_data(&url("/hello")))]);
        assert_eq!(client.predict_request(plain).await.text(), twice);
    });
    let heads = web.heads().join("");
    assert!(heads.matches("GET /hello ").count() >= 7, "{heads}");
    let pat = host.pat();
    for secret in [pat.as_str(), "CANARY", "authorization", "cookie", "x-secret", "referer"] {
        assert!(!heads.to_ascii_lowercase().contains(&secret.to_ascii_lowercase()), "{heads}");
    }
    let agents = heads.lines().filter(|line| line.starts_with("user-agent: ringfence"));
    assert_eq!(agents.count(), heads.matches("GET ").count(), "{heads}");
}

#[test]
fn urls_are_off_unless_their_host_is_opened_and_data_needs_no_opening() {
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let here = format!("http://{}/", other.local_addr().unwrap());
    let host = Host::serve(&[guests::ECHO, guests::DIGITS]);
    let off = "URL_NOT_FETCHED: url inputs are off for samples.clarifai.com; the operator can \
               start the host with --allow-url-host samples.clarifai.com, or send bytes";
    let only = "URL_NOT_FETCHED: only https and data URLs are taken";
    let cases = [
        ("https://samples.clarifai.com/metro-north.jpg", off),
        (&here, "URL_NOT_FETCHED: url inputs are off for 127.0.0.1:"),
        ("http://169.254.169.254/latest/meta-data/", "off for 169.254.169.254;"),
        ("file:///etc/passwd", only),
        ("/etc/passwd", only),
        ("../../etc/passwd", only),
        ("ftp://samples.clarifai.com/a.jpg", only),
        ("unix:///run/docker.sock", only),
        ("https://", "URL_INVALID: it is no URL"),
        ("https://u:p@samples.clarifai.com/", "URL_INVALID: a URL with a user name"),
        ("data:image/png;base64,*", "URL_INVALID: the data URL cannot be read"),
        ("data:text/plain,x", "URL_INVALID: the data URL is text/plain, and image/*"),
    ];
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        for (url, text) in cases {
            let asked = echo(image_data(url));
            let predicted = client.predict_request(asked.clone()).await;
            let generated = client.generate_all(asked.clone()).await;
            let streamed = collect(client.stream(tokio_stream::once(asked)).await).await;
            assert_eq!((generated.len(), streamed.len()), (1, 1), "{url}");
            for answer in [&predicted, &generated[0], &streamed[0]] {
                assert_eq!(answer.code(), StatusCode::InputInvalidUrl, "{url}: {answer:?}");
                assert!(answer.status.details.contains(text), "{url}: {answer:?}");
            }
        }
        let answer = client.predict_request(echo(image_data(cases[0].0))).await;
        assert_eq!(answer.status.details, off);

        let seven: String = single("seven.png").iter().map(|b| format!("%{b:02X}")).collect();
        let seven = format!("data:image/png,{seven}");
        let seen = client.predict("digits", vec![input(image_data(&seven))]).await;
        assert_eq!(seen.concepts()[0].id, "7", "{seen:?}");
        let brief = client.predict_request(echo(text_data("data:,A%20brief%20note"))).await;
        assert_eq!(brief.text(), "A brief note");

        let both = api::Text { raw: "x".into(), url: "data:,y".into() };
        let both = api::Data { text: Some(both), ..Default::default() };
        let both = client.predict_request(echo(both)).await;
        assert_refused(&both, StatusCode::InputInvalidArgument, "URL_AND_BYTES", "send one");
    });
    other.set_nonblocking(true).unwrap();
    assert!(other.accept().is_err(), "a host that is not opened was asked");
}

#[test]
fn a_url_that_leads_on_is_judged_again_at_every_hop() {
    let web = Web::start();
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = other.local_addr().unwrap().port();
    let moved = |path: &str, to: String| {
        web.put(path, Page::Status("307 Temporary Redirect", vec![("Location", to)]));
    };
    moved("/port", format!("http://127.0.0.1:{port}/"));
    moved("/name", web.url("/").replace("127.0.0.1", "localhost"));
    moved("/metadata", "http://169.254.169.254/latest/meta-data/".to_owned());
    moved("/file", "file:///etc/passwd".to_owned());
    moved("/circle", "/circle".to_owned());
    let host = host_with(&[guests::ECHO], web.flag());
    let (invalid, failed) = (StatusCode::InputInvalidUrl, StatusCode::InputDownloadFailed);
    let port = format!("off for 127.0.0.1:{port};");
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        for (path, code, reason, text) in [
            ("/port", invalid, "URL_NOT_FETCHED", port.as_str()),
            ("/name", invalid, "URL_NOT_FETCHED", "off for localhost:"),
            ("/metadata", invalid, "URL_NOT_FETCHED", "off for 169.254.169.254;"),
            ("/file", invalid, "URL_NOT_FETCHED", "only https and data"),
            ("/circle", failed, "URL_FAILED", "more than 5 times"),
            ("/nowhere", failed, "URL_FAILED", "answered with the status 404"),
        ] {
            let answer = client.predict_request(echo(text_data(&web.url(path)))).await;
            assert_refused(&answer, code, reason, text);
        }
    });
    let circled = web.heads().iter().filter(|head| head.starts_with("GET /circle")).count();
    assert_eq!(circled, 6, "once, and five times more");
    other.set_nonblocking(true).unwrap();
    assert!(other.accept().is_err(), "the other port was asked");
}

#[test]
fn a_content_that_is_too_large_or_of_another_type_fails_its_own_input_alone() {
    let web = Web::start();
    web.put("/good", Page::Content(PLAIN, b"good".to_vec()));
    web.put("/length", Page::Stalls(PLAIN, (16 << 20) + 1));
    web.put("/endless", Page::Endless(PLAIN));
    web.put("/octets", Page::Content("application/octet-stream", b"good".to_vec()));
    web.put("/latin", Page::Content("text/plain; charset=latin1", b"good".to_vec()));
    web.put("/binary", Page::Content(PLAIN, vec![0xff]));
    let mut host = host_with(&[guests::ECHO], web.flag());
    let text = |path: &str| input(text_data(&web.url(path)));
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        let canary = Canary::start(&host).await;
        let paths = ["/good", "/length", "/endless", "/octets", "/latin", "/binary", "/good"];
        let inputs: Vec<_> = paths.iter().map(|path| text(path)).collect();
        let answer = client.predict("echo", inputs).await;
        assert_eq!(answer.code(), StatusCode::MixedStatus, "{answer:?}");
        let statuses: Vec<_> =
            answer.outputs.iter().map(|output| output.status.clone().unwrap()).collect();
        let (good, large, kind) =
            (StatusCode::Success, StatusCode::InputOverLimit, StatusCode::InputDownloadFailed);
        let expected = [
            (good, ""),
            (large, "URL_TOO_LARGE: what the URL leads to is more than the 16777212 bytes"),
            (large, "URL_TOO_LARGE"),
            (kind, "URL_CONTENT_TYPE: 127.0.0.1:"),
            (kind, "latin1, and text/*, application/json is asked for"),
            (kind, "URL_CONTENT_TYPE: what the URL leads to is no UTF-8"),
            (good, ""),
        ];
        assert_eq!(statuses.len(), expected.len());
        for (status, (code, text)) in statuses.iter().zip(expected) {
            assert_eq!(status.code(), code, "{status:?}");
            assert!(status.details.contains(text), "{text}: {status:?}");
        }
        assert_eq!(answer.text(), "good");
        canary.ends(&mut host, "contents that are refused").await;
    });
    // Neither the one that never sends nor the one that never ends is read on.
    web.wait_for_gone(2);
}

fn echo_with_one_place(call_timeout: &str) -> Variant {
    let accelerators = "num_accelerators: 0";
    let limits = format!(
        "{accelerators}\n\nringfence:\n  call_timeout: {call_timeout}\n  max_concurrency: 1"
    );
    Variant::of(guests::ECHO, &[(accelerators, &limits)])
}

#[test]
fn a_content_that_comes_slowly_is_awaited_until_the_deadline_and_no_longer() {
    let web = Web::start();
    web.put("/drips", Page::Drips(PLAIN));
    let variant = echo_with_one_place("1s");
    let host = host_with(&[variant.path()], web.flag());
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        let asked = || echo(text_data(&web.url("/drips")));
        let late = |answer: &Answer| {
            assert_refused(answer, StatusCode::RpcRequestTimeout, "WALL_DEADLINE", "deadline");
        };
        let predicted = client.predict_request(asked());
        late(&tokio::time::timeout(BOUND, predicted).await.expect("the deadline"));
        let generated = client.generate_all(asked());
        late(&tokio::time::timeout(BOUND, generated).await.expect("the deadline")[0]);
        // The second message of a stream, after an answer to the first.
        let messages = [request("echo", vec![text_input("first")]), asked()];
        let answers = collect(client.stream(tokio_stream::iter(messages)).await);
        let answers = tokio::time::timeout(BOUND, answers).await.expect("the deadline");
        assert_eq!(answers[0].text(), "first");
        late(&answers[1]);

        let next = client.predict("echo", vec![text_input("next")]).await;
        assert_eq!(next.text(), "next", "{next:?}");
    });
    web.wait_for_gone(3);
}

/// Six are wanted, and none of them comes.
#[test]
fn one_request_has_no_more_than_four_fetches_at_a_time() {
    let web = Web::start();
    web.put("/stalls", Page::Stalls(PLAIN, 1));
    let variant = echo_with_one_place("3s");
    let host = host_with(&[variant.path()], web.flag());
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        let inputs = vec![input(text_data(&web.url("/stalls"))); 6];
        let answer = client.predict("echo", inputs).await;
        assert_eq!(answer.reason(), "WALL_DEADLINE", "{answer:?}");
    });
    let asked = web.heads().len();
    assert!((2..=4).contains(&asked), "{asked}");
}

/// CLI-08. The only place is free again, and the connection closed.
#[test]
fn a_client_that_leaves_ends_the_fetch() {
    let web = Web::start();
    web.put("/stalls", Page::Stalls(PLAIN, 1));
    let variant = echo_with_one_place("1h");
    let host = host_with(&[variant.path()], web.flag());
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        let asked = || echo(text_data(&web.url("/stalls")));
        let next = async |after: &str| {
            let next = client.predict("echo", vec![text_input("next")]);
            let next = tokio::time::timeout(BOUND, next).await.expect("a place");
            assert_eq!(next.text(), "next", "after {after}: {next:?}");
        };

        let predicting = tokio::spawn({
            let (client, asked) = (client.clone(), asked());
            async move { client.predict_request(asked).await }
        });
        web.wait_for_a_request();
        predicting.abort();
        web.wait_for_gone(1);
        next("predict").await;
        web.heads();

        let generating = client.generate(asked()).await;
        web.wait_for_a_request();
        drop(generating);
        web.wait_for_gone(2);
        next("generate").await;
        web.heads();

        let (sender, messages) = mpsc::channel(2);
        sender.send(request("echo", vec![text_input("first")])).await.unwrap();
        let mut answers = client.stream(ReceiverStream::new(messages)).await;
        let first: Answer = answers.message().await.unwrap().unwrap().into();
        assert_eq!(first.text(), "first");
        sender.send(asked()).await.unwrap();
        web.wait_for_a_request();
        // Whoever may still send has not left.
        drop(answers);
        drop(sender);
        web.wait_for_gone(3);
        next("stream").await;
    });
}

/// SUP-05: what is trusted and who is asked stands on the command line alone.
#[test]
fn https_is_checked_and_the_environment_is_not_asked() {
    let web = Web::over_tls();
    web.put("/hello", Page::Content(PLAIN, b"hello".to_vec()));
    let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxied = format!("http://{}", proxy.local_addr().unwrap());
    let names = ["http_proxy", "https_proxy", "all_proxy", "HTTPS_PROXY", "ALL_PROXY"];
    let mut variables: Vec<_> =
        names.iter().map(|name| ((*name).to_owned(), proxied.clone())).collect();
    variables.push(("SSL_CERT_FILE".to_owned(), CA_FILE.to_owned()));
    let host = |args: Vec<String>| {
        let models = vec![guests::ECHO.into()];
        let variables = variables.clone();
        Host::start(HostOptions { models, args, variables, ..HostOptions::default() })
    };
    let ask = async |host: &Host, url: &str| {
        let client = Client::connect(host.base(), &host.pat()).await;
        client.predict_request(echo(text_data(url))).await
    };
    let trusting = [web.flag(), vec!["--url-ca".to_owned(), CA_FILE.to_owned()]].concat();
    block_on(async {
        let trusting = host(trusting);
        let hello = ask(&trusting, &web.url("/hello")).await;
        assert_eq!(hello.text(), "hello", "{hello:?}");
        // The same port without TLS is another matter.
        let http = ask(&trusting, &web.url("/hello").replace("https", "http")).await;
        let text = format!(
            "are off over http; use https, or the operator can start the host \
             with --allow-url-host http://{}",
            web.authority()
        );
        assert_refused(&http, StatusCode::InputInvalidUrl, "URL_NOT_FETCHED", &text);
        let by_address = ask(&trusting, &web.url("/").replace("localhost", "127.0.0.1")).await;
        assert_refused(&by_address, StatusCode::InputInvalidUrl, "URL_NOT_FETCHED", "off for");

        let doubting = host(web.flag());
        let failed = ask(&doubting, &web.url("/hello")).await;
        let code = StatusCode::InputDownloadFailed;
        assert_refused(&failed, code, "URL_FAILED", "has no certificate that this host trusts");
    });
    proxy.set_nonblocking(true).unwrap();
    assert!(proxy.accept().is_err(), "a proxy was asked");
}

/// `--url` of the command line is the same thing.
#[test]
fn the_command_line_sends_urls_too() {
    let web = Web::start();
    web.put("/hello", Page::Content(PLAIN, b"hello".to_vec()));
    let host = host_with(&[guests::ECHO], web.flag());
    let predict = |url: &str| {
        let output = Command::new(binary())
            .args(["predict", "echo", "--url", &format!("text={url}")])
            .env("RINGFENCE_BASE", host.base())
            .env("RINGFENCE_PAT", host.pat())
            .output()
            .unwrap();
        let told = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(told).unwrap())
    };
    let (code, told) = predict(&web.url("/hello"));
    assert!(code == Some(0) && told.contains("hello"), "{told}");
    let (code, told) = predict("https://h.example/");
    assert!(code == Some(1) && told.contains("--allow-url-host h.example"), "{told}");
}

#[test]
fn what_opens_no_single_host_is_wrong_usage() {
    let certificate = guests::ECHO.to_owned() + "/config.yaml";
    for (args, text) in [
        (vec!["--allow-url-host", "*.example"], "a wildcard opens too much"),
        (vec!["--allow-url-host", "https://h.example/path"], "write HOST, HOST:PORT"),
        (vec!["--allow-url-host", ""], "write HOST"),
        (vec!["--url-ca", CA_FILE], "--allow-url-host"),
        (vec!["--allow-url-host", "h", "--url-ca", "nowhere"], "cannot read nowhere"),
        (vec!["--allow-url-host", "h", "--url-ca", &certificate], "no certificate in PEM"),
    ] {
        let (code, told) = refused_start(&[vec!["--listen", "127.0.0.1:0"], args].concat());
        assert_eq!(code, Some(2), "{told}");
        assert!(told.contains(text), "{text}: {told}");
    }
}
