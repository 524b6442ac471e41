//! Arguments to a request.
//!
//! Owns which kind of input a file is and how parameters are read. Sends
//! nothing.

use super::client::ModelRef;
use super::{BenchArgs, CallArgs, Usage};
use crate::proto::clarifai::api::{
    Audio, Data, Image, Input, Model, ModelVersion, OutputInfo, PostModelOutputsRequest, Text,
    Video,
};
use crate::proto::json;
use anyhow::Context;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Kinds of plain input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Image,
    Audio,
    Video,
}

const KINDS: [(&str, Kind); 4] =
    [("text", Kind::Text), ("image", Kind::Image), ("audio", Kind::Audio), ("video", Kind::Video)];

/// Bytes of a `data:` URL's head that an error shows.
const HEAD_BYTES_SHOWN: usize = 100;

/// The request of `predict` and `generate`: one input with all that was given.
pub(super) fn of_call(args: &CallArgs) -> anyhow::Result<PostModelOutputsRequest> {
    let mut data = of_files(args.text.as_deref(), &args.file)?;
    for url in &args.url {
        let (kind, url) = kind_of_url(url)?;
        put(&mut data, kind, Content::Url(url.to_owned()))?;
    }
    if data == Data::default() {
        return Err(Usage("there is no input; give --text, --file or --url".to_owned()).into());
    }
    let request = of_data(&args.model, data, &args.params.param);
    Ok(PostModelOutputsRequest { runner_selector: args.place.selector(), ..request })
}

/// The request of each call that is measured.
pub(super) fn of_bench(
    args: &BenchArgs,
    model: &ModelRef,
) -> anyhow::Result<PostModelOutputsRequest> {
    let data = of_files(args.text.as_deref(), &args.file)?;
    if data == Data::default() {
        return Err(Usage("there is no input; give --text or --file".to_owned()).into());
    }
    let request = of_data(model, data, &args.params.param);
    Ok(PostModelOutputsRequest { runner_selector: args.place.selector(), ..request })
}

/// The content of a text and of files, each of the kind that it is.
pub(super) fn of_files(text: Option<&str>, files: &[PathBuf]) -> anyhow::Result<Data> {
    let mut data = Data::default();
    if let Some(text) = text {
        put(&mut data, Kind::Text, Content::Bytes(text.as_bytes().to_vec()))?;
    }
    for path in files {
        let bytes = std::fs::read(path)
            .map_err(|error| Usage(format!("cannot read {}: {error}", path.display())))?;
        let kind = kind_of(path, &bytes);
        put(&mut data, kind, Content::Bytes(bytes))
            .with_context(|| format!("cannot send {}", path.display()))?;
    }
    Ok(data)
}

/// The request of one line of `stream`.
pub(super) fn of_text(
    model: &ModelRef,
    text: String,
    params: &[(String, Value)],
) -> PostModelOutputsRequest {
    let data = Data { text: Some(Text { raw: text, ..Text::default() }), ..Data::default() };
    of_data(model, data, params)
}

pub(super) fn of_data(
    model: &ModelRef,
    data: Data,
    params: &[(String, Value)],
) -> PostModelOutputsRequest {
    let params = (!params.is_empty()).then(|| Model {
        model_version: Some(ModelVersion {
            output_info: Some(OutputInfo {
                params: Some(json::to_struct(params.iter().cloned().collect())),
                ..OutputInfo::default()
            }),
            ..ModelVersion::default()
        }),
        ..Model::default()
    });
    PostModelOutputsRequest {
        user_app_id: Some(model.user_app_id()),
        model_id: model.name.id().to_owned(),
        version_id: model.version.clone(),
        inputs: vec![Input { data: Some(data), ..Input::default() }],
        model: params,
        ..PostModelOutputsRequest::default()
    }
}

/// `KEY=VALUE`; a value that is no JSON is a text, so that quotes are not needed.
pub(super) fn parse_param(text: &str) -> Result<(String, Value), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => {
            Ok((key.to_owned(), serde_json::from_str(value).unwrap_or_else(|_| value.into())))
        }
        _ => Err("write KEY=VALUE".to_owned()),
    }
}

enum Content {
    Bytes(Vec<u8>),
    Url(String),
}

fn put(data: &mut Data, kind: Kind, content: Content) -> Result<(), Usage> {
    let (bytes, url) = match content {
        Content::Bytes(bytes) => (bytes, String::new()),
        Content::Url(url) => (Vec::new(), url),
    };
    let taken = match kind {
        Kind::Text => {
            let raw = String::from_utf8(bytes).map_err(|_| {
                Usage(
                    "it is neither an image, audio nor a video that is known, nor UTF-8 text"
                        .to_owned(),
                )
            })?;
            data.text.replace(Text { raw, url }).is_some()
        }
        Kind::Image => data.image.replace(Image { base64: bytes.into(), url }).is_some(),
        Kind::Audio => data.audio.replace(Audio { base64: bytes.into(), url }).is_some(),
        Kind::Video => data.video.replace(Video { base64: bytes.into(), url }).is_some(),
    };
    if taken {
        let name = KINDS.iter().find(|(_, other)| *other == kind).map_or("", |(name, _)| name);
        return Err(Usage(format!("an input has one {name}, not two; call once for each")));
    }
    Ok(())
}

/// By the first bytes, else by the name; what is neither is text.
fn kind_of(path: &Path, bytes: &[u8]) -> Kind {
    kind_of_bytes(bytes)
        .or_else(|| kind_of_extension(path.extension()?.to_str()?))
        .unwrap_or(Kind::Text)
}

fn kind_of_bytes(bytes: &[u8]) -> Option<Kind> {
    let is = |offset: usize, magic: &[u8]| {
        bytes.get(offset..).is_some_and(|rest| rest.starts_with(magic))
    };
    if is(0, b"\x89PNG\r\n\x1a\n")
        || is(0, b"\xff\xd8\xff")
        || is(0, b"GIF8")
        || (is(0, b"RIFF") && is(8, b"WEBP"))
    {
        Some(Kind::Image)
    } else if (is(0, b"RIFF") && is(8, b"WAVE"))
        || is(0, b"ID3")
        || is(0, b"fLaC")
        || is(0, b"OggS")
    {
        Some(Kind::Audio)
    } else if is(4, b"ftyp") || is(0, b"\x1a\x45\xdf\xa3") {
        Some(Kind::Video)
    } else {
        None
    }
}

fn kind_of_extension(extension: &str) -> Option<Kind> {
    match extension.to_ascii_lowercase().as_str() {
        "png" | "jpg" | "jpeg" | "gif" | "webp" | "bmp" => Some(Kind::Image),
        "wav" | "mp3" | "flac" | "ogg" | "opus" => Some(Kind::Audio),
        "mp4" | "webm" | "mkv" | "mov" => Some(Kind::Video),
        "txt" | "md" | "json" | "csv" => Some(Kind::Text),
        _ => None,
    }
}

/// What stands before the content of a `data:` URL: its media type and more.
fn head_of_data_url(url: &str) -> Option<&str> {
    let (scheme, rest) = url.split_once(':')?;
    let head = rest.split(',').next().unwrap_or_default();
    // The content has no place in an error.
    let head = head.get(..HEAD_BYTES_SHOWN).unwrap_or(head);
    scheme.eq_ignore_ascii_case("data").then_some(head)
}

/// By RFC 2397 a `data:` URL without a media type is text.
fn kind_of_media_type(head: &str) -> Option<Kind> {
    let media_type = head.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if matches!(media_type.as_str(), "" | "application/json") {
        return Some(Kind::Text);
    }
    let (family, _) = media_type.split_once('/')?;
    KINDS.iter().find(|(name, _)| *name == family).map(|(_, kind)| *kind)
}

fn kind_of_url(argument: &str) -> Result<(Kind, &str), Usage> {
    for (name, kind) in KINDS {
        if let Some(url) = argument.strip_prefix(name).and_then(|rest| rest.strip_prefix('=')) {
            return Ok((kind, url));
        }
    }
    if let Some(head) = head_of_data_url(argument) {
        return match kind_of_media_type(head) {
            Some(kind) => Ok((kind, argument)),
            None => Err(Usage(format!(
                "what a data: URL of {head:?} is cannot be told; write --url image=data:…, or \
                 audio, video, text"
            ))),
        };
    }
    let path = argument.split(['?', '#']).next().unwrap_or_default();
    match path.rsplit_once('.').and_then(|(_, extension)| kind_of_extension(extension)) {
        Some(kind) => Ok((kind, argument)),
        None => Err(Usage(format!(
            "what {argument} is cannot be told; write --url image={argument}, or audio, video, text"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::ParamArgs;
    use crate::cli::compute::PlaceArgs;

    fn args(text: Option<&str>, file: Vec<std::path::PathBuf>, url: &[&str]) -> CallArgs {
        CallArgs {
            model: "alice/lab/m@v1".parse().unwrap(),
            text: text.map(str::to_owned),
            file,
            url: url.iter().map(|url| (*url).to_owned()).collect(),
            params: ParamArgs { param: vec![parse_param("k=[1,true]").unwrap()] },
            place: PlaceArgs::default(),
        }
    }

    #[test]
    fn several_kinds_go_into_one_input() {
        let dir = tempfile::TempDir::new().unwrap();
        let image = dir.path().join("no-extension");
        std::fs::write(&image, b"\x89PNG\r\n\x1a\nrest").unwrap();
        let audio = dir.path().join("a.wav");
        std::fs::write(&audio, b"not really").unwrap();
        let request =
            of_call(&args(Some("hi"), vec![image.clone(), audio], &["https://h/v.MP4?x=y.png"]))
                .unwrap();
        assert_eq!((request.model_id.as_str(), request.version_id.as_str()), ("m", "v1"));
        let data = request.inputs[0].data.clone().unwrap();
        assert_eq!(data.text.unwrap().raw, "hi");
        assert_eq!(&data.image.unwrap().base64[..], b"\x89PNG\r\n\x1a\nrest");
        assert_eq!(data.audio.unwrap().base64, &b"not really"[..]);
        assert_eq!(data.video.unwrap().url, "https://h/v.MP4?x=y.png");
        let params =
            request.model.unwrap().model_version.unwrap().output_info.unwrap().params.unwrap();
        assert!(params.fields.contains_key("k"));

        let error = of_call(&args(None, vec![image.clone(), image], &[])).unwrap_err();
        assert!(error.root_cause().to_string().contains("one image, not two"));
    }

    #[test]
    fn what_cannot_be_sent_is_wrong_usage() {
        let dir = tempfile::TempDir::new().unwrap();
        let binary = dir.path().join("x.bin");
        std::fs::write(&binary, b"\xff\xfe\x00").unwrap();
        for (text, file, url) in [
            (None, vec![], vec![]),
            (None, vec![binary], vec![]),
            (None, vec![dir.path().join("nowhere")], vec![]),
            (None, vec![], vec!["https://h/x"]),
            (Some("a"), vec![], vec!["text=https://h/x"]),
        ] {
            let error = of_call(&args(text, file, &url)).unwrap_err();
            assert!(error.chain().any(|cause| cause.is::<Usage>()), "{error}");
        }
    }

    #[test]
    fn a_data_url_says_itself_what_it_is() {
        for (url, kind) in [
            ("data:image/png;base64,AAAA", Kind::Image),
            ("DATA:Audio/wav,x.mp4", Kind::Audio),
            ("data:video/mp4,", Kind::Video),
            ("data:text/plain;charset=utf-8,a", Kind::Text),
            ("data:,a%20b.png", Kind::Text),
            ("data:application/json,{}", Kind::Text),
        ] {
            assert_eq!(kind_of_url(url).unwrap(), (kind, url));
        }
        let long = format!("data:application/x-secret,{}", "A".repeat(1 << 20));
        let error = kind_of_url(&long).unwrap_err().to_string();
        assert!(error.contains("application/x-secret") && error.len() < 300, "{error}");
        assert_eq!(kind_of_url("image=data:application/x,").unwrap().0, Kind::Image);
    }

    #[test]
    fn parameters_are_json_where_they_can_be() {
        for (text, value) in [
            ("k=3", serde_json::json!(3)),
            ("k=a=b", "a=b".into()),
            ("k=", "".into()),
            ("k=\"3\"", "3".into()),
            ("k={\"a\":null}", serde_json::json!({"a": null})),
        ] {
            assert_eq!(parse_param(text).unwrap(), ("k".to_owned(), value));
        }
        assert!(parse_param("k").is_err() && parse_param("=v").is_err());
    }
}
