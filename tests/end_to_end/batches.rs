//! Batches, several kinds of input at once, parameters.

use super::digits::single;
use ringfence::proto::clarifai::api;
use ringfence::proto::clarifai::api::status::StatusCode;
use ringfence_tests::{Client, Host, block_on, guests, image_input, params, request, text_input};
use serde_json::json;

#[test]
fn a_bad_input_fails_alone_and_the_order_is_kept() {
    let host = Host::serve(&[guests::DIGITS]);
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        let inputs = vec![
            image_input(single("three.png")),
            image_input(*b"no image"),
            api::Input::default(),
            image_input(single("seven.png")),
        ];
        let answer = client.predict("digits", inputs).await;
        assert_eq!(answer.code(), StatusCode::MixedStatus);
        let codes: Vec<_> =
            answer.outputs.iter().map(|output| output.status.as_ref().unwrap().code()).collect();
        let bad = StatusCode::InputInvalidArgument;
        assert_eq!(codes, [StatusCode::Success, bad, bad, StatusCode::Success]);
        let best = |index: usize| &answer.outputs[index].data.as_ref().unwrap().concepts[0].id;
        assert_eq!((best(0).as_str(), best(3).as_str()), ("3", "7"));
    });
}

#[test]
fn a_batch_in_which_everything_fails_says_so() {
    let host = Host::serve(&[guests::DIGITS]);
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        let answer = client.predict("digits", vec![text_input("a"), text_input("b")]).await;
        assert_eq!(answer.code(), StatusCode::Failure, "{answer:?}");
        assert_eq!(answer.outputs.len(), 2);
    });
}

#[test]
fn every_input_gets_its_own_output() {
    let host = Host::serve(&[guests::ECHO]);
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        let inputs = (0..128)
            .map(|n| api::Input { id: format!("id {n}"), ..text_input(&format!("text {n}")) })
            .collect();
        let answer = client.predict("echo", inputs).await;
        assert_eq!(answer.outputs.len(), 128);
        for (n, output) in answer.outputs.iter().enumerate() {
            assert_eq!(output.id, format!("id {n}"));
            let text = output.data.as_ref().unwrap().text.as_ref().unwrap();
            assert_eq!(text.raw, format!("text {n}"));
        }
    });
}

#[test]
fn image_and_text_arrive_together() {
    let host = Host::serve(&[guests::ECHO]);
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        let mut input = text_input("what is this?");
        let picture = image_input(single("three.png")).data.unwrap().image;
        input.data.as_mut().unwrap().image = picture.clone();
        let answer = client.predict("echo", vec![input]).await;
        let data = answer.outputs[0].data.clone().unwrap();
        assert_eq!(data.text.unwrap().raw, "what is this?");
        assert_eq!(data.image, picture);
    });
}

#[test]
fn inference_parameters_reach_the_guest() {
    let host = Host::serve(&[guests::ECHO]);
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        let parameters = json!({ "n": 3, "t": 0.5, "list": [1, "two", null], "on": true });
        let asked = params(request("echo", vec![text_input("x")]), parameters);
        let answer = client.predict_request(asked).await;
        let metadata = answer.outputs[0].data.clone().unwrap().metadata.unwrap();
        let shown = format!("{metadata:?}");
        for part in ["\"n\"", "3.0", "0.5", "\"two\"", "true"] {
            assert!(shown.contains(part), "{part} in {shown}");
        }
    });
}
