//! Files that lie about what is in them. The host decodes none of them: a picture
//! is decoded by the guest, within its own limits, and weights are bytes.

use super::digits::single;
use crate::author::text;
use flate2::write::ZlibEncoder;
use flate2::{Compression, Crc};
use ringfence::proto::clarifai::api::status::StatusCode;
use ringfence_tests::{
    Client, Host, HostOptions, Variant, block_on, guests, image_input, request, text_input,
};
use std::io::Write;

/// What `digits` may make the host hold, by its `config.yaml`, and what else a
/// call takes at most.
const BYTES_MORE_MAX: u64 = (256 << 20) + (64 << 20);
/// What may be left of such calls.
const BYTES_LEFT_MAX: u64 = 96 << 20;

/// Bytes that inflate to as many as any of these files may have.
const BOMB_BYTES: usize = 256 << 20;

fn chunk(kind: &[u8; 4], content: &[u8]) -> Vec<u8> {
    let named = [kind.as_slice(), content].concat();
    let mut crc = Crc::new();
    crc.update(&named);
    let length = u32::try_from(content.len()).unwrap().to_be_bytes();
    [&length, named.as_slice(), &crc.sum().to_be_bytes()].concat()
}

/// PNG, 8 bits of red, green, blue and opacity: its head and these chunks.
fn png(width: u32, height: u32, interlaced: u8, chunks: &[Vec<u8>]) -> Vec<u8> {
    let head = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[8, 6, 0, 0, interlaced]];
    let start = [b"\x89PNG\r\n\x1a\n".to_vec(), chunk(b"IHDR", &head.concat())].concat();
    [start, chunks.concat(), chunk(b"IEND", b"")].concat()
}

fn zeros(count: usize) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    let piece = vec![0; 1 << 20];
    for _ in 0..count.div_ceil(piece.len()) {
        encoder.write_all(&piece).unwrap();
    }
    encoder.finish().unwrap()
}

fn lying_pictures() -> Vec<(&'static str, Vec<u8>)> {
    let bomb = zeros(BOMB_BYTES);
    let data = || chunk(b"IDAT", &bomb);
    let jpeg = [
        // Start of image; 65,500 lines of as many samples of one component.
        &b"\xff\xd8\xff\xc0\x00\x0b\x08\xff\xdc\xff\xdc\x01\x01\x11\x00"[..],
        // Start of scan.
        b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00",
        &[0; 1024],
    ];
    vec![
        ("a head of 10^9 pixels", png(31_623, 31_623, 0, &[data()])),
        ("the widest row", png(i32::MAX as u32, 1, 0, &[data()])),
        ("no pixels", png(0, 0, 0, &[data()])),
        ("a few pixels that inflate to many", png(8, 8, 0, &[data()])),
        ("as many pixels as are taken", png(4096, 4096, 0, &[data()])),
        ("the same, all at once", png(4096, 4096, 1, &[data()])),
        ("a text that inflates", png(8, 8, 0, &[chunk(b"zTXt", &[b"a\0\0", &bomb[..]].concat())])),
        ("colours that inflate", png(8, 8, 0, &[chunk(b"iCCP", &[b"a\0\0", &bomb[..]].concat())])),
        ("a JPEG of 4 * 10^9 pixels", jpeg.concat()),
        ("no picture", b"NaN".to_vec()),
    ]
}

/// CLI-22.
#[test]
fn a_picture_that_lies_costs_its_model_and_not_the_host() {
    let patient =
        Variant::of(guests::DIGITS, &[("model:", "ringfence:\n  call_timeout: 10m\nmodel:")]);
    let host = Host::serve(&[patient.path(), guests::ECHO]);
    let seven = single("seven.png");
    let before = block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        let recognised = async |after: &str| {
            let answer = client.predict("digits", vec![image_input(seven.clone())]).await;
            assert_eq!(answer.concepts()[0].id, "7", "{after}: {answer:?}");
        };
        recognised("the start").await;
        let before = host.resident_bytes();
        for (what, file) in lying_pictures() {
            let answer = client.predict("digits", vec![image_input(file)]).await;
            println!("{what}: {} {}", answer.reason(), answer.status.details);
            let told = (answer.reason(), answer.code());
            let clean = [
                ("GUEST_ERROR", StatusCode::InputInvalidArgument),
                ("GUEST_ERROR", StatusCode::InputOverLimit),
                ("GUEST_ERROR", StatusCode::InputUnsupportedFormat),
                ("MEMORY_LIMIT", StatusCode::InternalResourceExhausted),
            ];
            assert!(clean.contains(&told), "{what}: {answer:?}");
            let more = host.resident_bytes_peak().saturating_sub(before);
            assert!(more < BYTES_MORE_MAX, "{what}: {more} bytes more");
            recognised(what).await;
        }
        // A word that some parsers take for a number is a text.
        let nan = client.predict_request(request("echo", vec![text_input("NaN")])).await;
        assert_eq!(nan.text(), "NaN");
        before
    });
    host.wait_until("what was held is given back", |host| {
        host.resident_bytes() < before + BYTES_LEFT_MAX
    });
}

/// PKG-23: headers of weights that would be refused by a reader. The host has
/// none, so they are assets, and cost what their bytes do.
#[test]
fn weights_that_lie_are_bytes_like_others() {
    let header = |length: u64, text: &str| [&length.to_le_bytes(), text.as_bytes()].concat();
    let told = |text: &str| header(text.len() as u64, text);
    let files = [
        ("long", header(100 << 20, "{")),
        ("endless", header(u64::MAX, "")),
        (
            "overlapping",
            told(
                r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},
                    "b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#,
            ),
        ),
        (
            "outside",
            told(r#"{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,18446744073709551615]}}"#),
        ),
        (
            "twice",
            told(
                r#"{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},
                    "a":{"dtype":"F64","shape":[1],"data_offsets":[0,8]}}"#,
            ),
        ),
    ];
    let variant = Variant::of(guests::ECHO, &[]);
    for (name, bytes) in files {
        std::fs::write(variant.folder().join(format!("1/{name}.safetensors")), bytes).unwrap();
    }
    let host = Host::start(HostOptions::default());
    let before = host.resident_bytes_peak();
    let output = host.ringfence(&["upload", variant.path()]);
    assert!(output.status.success(), "{}", text(&output));
    let output = host.ringfence(&["predict", "echo", "--text", "x"]);
    assert!(output.status.success(), "{}", text(&output));
    let more = host.resident_bytes_peak().saturating_sub(before);
    assert!(more < BYTES_LEFT_MAX, "{more} bytes more");
}
