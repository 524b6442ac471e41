//! Every RPC with every kind of token, over the wire.
//!
//! What is called comes from the descriptors of the services, and what should
//! be told from the host's policy table, so an RPC that is added is tested.

use futures_util::future::join_all;
use prost::Message;
use ringfence::auth::Scope;
use ringfence::proto::clarifai::api;
use ringfence::proto::clarifai::api::status::StatusCode;
use ringfence::server::{Rule, rule};
use ringfence_tests::{Host, HostOptions, RawAnswer, block_on, raw_answer};
use std::time::Duration;

/// The service that answers in its messages and not by codes of gRPC.
const IN_BAND: &str = "/clarifai.api.V2/";

/// What every response of that service begins with.
#[derive(Clone, PartialEq, Message)]
struct Response {
    #[prost(message, optional, tag = "1")]
    status: Option<api::status::Status>,
}

/// What a caller is told about the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Nothing,
    BadToken,
    OtherScope,
}

/// A token, and what it is for; nothing where it is a bad one.
struct Kind {
    name: &'static str,
    authorization: Option<String>,
    scopes: Option<Vec<Scope>>,
}

/// The paths of all RPCs that are served.
fn rpcs() -> Vec<String> {
    let mut paths = Vec::new();
    for bytes in [ringfence::proto::DESCRIPTORS, tonic_health::pb::FILE_DESCRIPTOR_SET] {
        let set = prost_types::FileDescriptorSet::decode(bytes).unwrap();
        for file in &set.file {
            for service in &file.service {
                let service_name = format!("{}.{}", file.package(), service.name());
                let methods = service.method.iter();
                paths.extend(methods.map(|method| format!("/{service_name}/{}", method.name())));
            }
        }
    }
    paths
}

fn kinds(host: &Host) -> Vec<Kind> {
    for user in ["alice", "bob", "gone"] {
        host.operate(&["users", "create", user]);
    }
    let of = |name, token: String, scopes: &[Scope]| Kind {
        name,
        authorization: Some(format!("Key {token}")),
        scopes: Some(scopes.to_vec()),
    };
    let bad = |name, authorization: Option<String>| Kind { name, authorization, scopes: None };
    let revoked = host.token("alice", "predict,upload,admin");
    let listed = host.operate(&["pat", "list", "--user", "alice"]);
    host.operate(&["pat", "revoke", listed.split_whitespace().next().unwrap()]);
    let of_disabled = host.token("gone", "predict,upload,admin");
    host.operate(&["users", "disable", "gone"]);
    let (predict, upload) = (Scope::Predict, Scope::Upload);
    vec![
        bad("none", None),
        bad("junk", Some("Key junk".to_owned())),
        bad("another scheme", Some(format!("Basic {}", host.pat()))),
        bad("revoked", Some(format!("Key {revoked}"))),
        bad("of a disabled user", Some(format!("Key {of_disabled}"))),
        of("own, to predict", host.token("alice", "predict"), &[predict]),
        of("own, to upload", host.token("alice", "upload"), &[upload]),
        of("own", host.token("alice", "predict,upload"), &[predict, upload]),
        of("another user's", host.token("bob", "predict,upload"), &[predict, upload]),
        of("to administrate alone", host.token("alice", "admin"), &[Scope::Admin]),
        of("the operator's", host.pat(), &Scope::ALL),
    ]
}

fn expected(path: &str, kind: &Kind) -> Told {
    match (rule(path).unwrap_or_else(|| panic!("{path} has no row")), &kind.scopes) {
        (Rule::Anyone, _) => Told::Nothing,
        (Rule::Caller | Rule::Scope(_), None) => Told::BadToken,
        (Rule::Caller, Some(_)) => Told::Nothing,
        (Rule::Scope(scope), Some(scopes)) if scopes.contains(&scope) => Told::Nothing,
        (Rule::Scope(_), Some(_)) => Told::OtherScope,
    }
}

/// What an answer says of the token, by the convention of its service. A fault
/// of the host is none of the answers to an empty message.
fn told(path: &str, answer: &RawAnswer) -> Told {
    if !path.starts_with(IN_BAND) {
        assert_ne!(answer.code, Some(tonic::Code::Internal as u32), "{path}: {answer:?}");
        return match answer.code {
            Some(code) if code == tonic::Code::Unauthenticated as u32 => Told::BadToken,
            Some(code) if code == tonic::Code::PermissionDenied as u32 => Told::OtherScope,
            Some(_) | None => Told::Nothing,
        };
    }
    let message = answer.message.as_deref().unwrap_or_else(|| panic!("{path}: {answer:?}"));
    let status = Response::decode(message).unwrap().status.unwrap_or_else(|| panic!("{path}"));
    match status.code() {
        StatusCode::ConnKeyInvalid => Told::BadToken,
        StatusCode::ConnInsufficientScopes => Told::OtherScope,
        code => {
            assert_ne!(code, StatusCode::InternalServerIssue, "{path}: {status:?}");
            Told::Nothing
        }
    }
}

/// CLI-17, CLI-24.
#[test]
fn every_rpc_tells_every_kind_of_token_what_the_policy_says() {
    let host = Host::start(HostOptions::default());
    let kinds = kinds(&host);
    let paths = rpcs();
    assert!(paths.len() > 30, "{paths:?}");
    let ask = async |path: &str, kind: &Kind| {
        let headers: Vec<_> = kind
            .authorization
            .iter()
            .map(|authorization| ("authorization", authorization.as_str()))
            .collect();
        // Bad tokens are slowed down when there are many of them.
        let empty = api::GetUserRequest::default();
        let asked = raw_answer(host.base(), path, &headers, &empty);
        let answer = tokio::time::timeout(Duration::from_secs(120), asked).await;
        let answer = answer.unwrap_or_else(|_| panic!("{path} with {}: no answer", kind.name));
        let told = told(path, &answer);
        assert_eq!(told, expected(path, kind), "{path} with {}: {answer:?}", kind.name);
    };
    block_on(async {
        for kind in &kinds {
            join_all(paths.iter().map(|path| ask(path, kind))).await;
        }
    });
}
