//! What the host and a worker process say to each other: frames of a head and a
//! body.
//!
//! Owns their form and their bounds. The host takes a worker for hostile: what a body
//! may become in memory is bounded by what its head has declared, and that is charged
//! before the body is read.

use crate::call::{Function, Holder, Output, Part, Receipt, Request, Value, Verdict};
use crate::devices::Device;
use crate::package::{AssetFile, Sheet};
use crate::sandbox::{Copied, Snapshot};
use crate::telemetry::Level;
use bytes::{Bytes, BytesMut};
use postcard::de_flavors::Flavor;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Of the form of frames; both sides are the same program, unless something is very
/// wrong.
pub(super) const VERSION: u16 = 4;

/// Bytes of a head: the length of the body, the call, a value and the kind.
pub(super) const HEAD_BYTES: usize = 17;

/// Bytes of a body whose content nobody pays for.
pub(super) const SMALL_BYTES_MAX: u64 = 1 << 20;

/// Bytes of the body that a replica starts from: names of thousands of files.
pub(super) const START_BYTES_MAX: u64 = 16 << 20;

/// What each byte that is read by itself counts as: each begins a number, a text or a
/// list, which takes more in memory than in the frame.
const FIELD_BYTES: u64 = 16;

/// Values of parts of so many bytes are beside the body.
pub(super) const BESIDE_BYTES: usize = 64 << 10;

/// Bytes of an output that takes one place of those that the host has for a call.
/// A text of a few words holds five KiB: what the wire makes of it is charged, too.
const PLACE_BYTES: u64 = 8 << 10;

/// Outputs that there is room for, however large they are.
const LARGE_OUTPUTS: usize = 8;

/// What a body may become beside what its head has declared.
const BODY_BYTES: u64 = 8 << 10;

/// What the host says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    /// All that a replica needs; files follow as descriptors.
    Start,
    /// A call begins.
    Call,
    /// One of its messages.
    Message,
    /// There are no more.
    NoMore,
    /// Nobody wants its outputs any more.
    Cancel,
    /// So many of its outputs were taken: as many more may come.
    Taken,
    /// So many bytes of outputs have left.
    Released,
}

/// What a worker says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tell {
    /// It takes calls.
    Ready,
    /// It never will.
    Refused,
    /// An output; its value is what it makes the version hold.
    Output,
    /// An input of a batch has failed alone.
    InputFailed,
    /// How the guest has ended.
    End,
    /// Nothing runs for the call any more.
    Over,
    /// The guest has taken a message: one more may come.
    Taken,
    /// What the call has taken so far.
    Spent,
    /// A line that a guest wrote.
    Line,
    /// What the replica holds and has had.
    Figures,
    /// The component with the state in it that `load-model` leaves: the body as it is; the
    /// value is the bytes of its memories.
    Snapshot,
}

/// One of the kinds of a side.
pub(super) trait Kind: Copy + PartialEq + 'static {
    const ALL: &'static [Self];

    fn byte(self) -> u8 {
        let place = Self::ALL.iter().position(|kind| *kind == self);
        place.and_then(|place| u8::try_from(place).ok()).unwrap_or(u8::MAX)
    }

    fn of(byte: u8) -> Option<Self> {
        Self::ALL.get(usize::from(byte)).copied()
    }
}

impl Kind for Ask {
    const ALL: &'static [Self] = &[
        Self::Start,
        Self::Call,
        Self::Message,
        Self::NoMore,
        Self::Cancel,
        Self::Taken,
        Self::Released,
    ];
}

impl Kind for Tell {
    const ALL: &'static [Self] = &[
        Self::Ready,
        Self::Refused,
        Self::Output,
        Self::InputFailed,
        Self::End,
        Self::Over,
        Self::Taken,
        Self::Spent,
        Self::Line,
        Self::Figures,
        Self::Snapshot,
    ];
}

/// What stands before a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head<K> {
    pub(super) kind: K,
    /// Which call, where it is of one.
    pub(super) call: u32,
    /// A number whose meaning is the kind's.
    pub(super) value: u64,
    /// Bytes of the body.
    pub(super) length: u32,
}

impl<K: Kind> Head<K> {
    pub(super) fn parse(bytes: &[u8; HEAD_BYTES]) -> io::Result<Self> {
        let [l0, l1, l2, l3, c0, c1, c2, c3, value @ .., kind] = *bytes;
        Ok(Self {
            kind: K::of(kind).ok_or_else(|| invalid("a frame is of no known kind"))?,
            call: u32::from_le_bytes([c0, c1, c2, c3]),
            value: u64::from_le_bytes(value),
            length: u32::from_le_bytes([l0, l1, l2, l3]),
        })
    }

    fn bytes(self) -> [u8; HEAD_BYTES] {
        let mut bytes = [0; HEAD_BYTES];
        let parts = [
            &self.length.to_le_bytes()[..],
            &self.call.to_le_bytes(),
            &self.value.to_le_bytes(),
            &[self.kind.byte()],
        ];
        for (to, from) in bytes.iter_mut().zip(parts.into_iter().flatten()) {
            *to = *from;
        }
        bytes
    }
}

/// A frame as it is written: its head with the body, and the bytes beside that.
#[derive(Debug)]
pub(super) struct Whole {
    pub(super) frame: Vec<u8>,
    pub(super) beside: Vec<Bytes>,
}

#[cfg(test)]
impl Whole {
    /// All that is written.
    pub(super) fn concat(self) -> Vec<u8> {
        [self.frame, self.beside.concat()].concat()
    }
}

impl From<Vec<u8>> for Whole {
    fn from(frame: Vec<u8>) -> Self {
        Self { frame, beside: Vec::new() }
    }
}

/// What has values in it whose bytes may be many.
pub(super) trait Carries {
    /// The bytes of each of them.
    fn bytes(&mut self) -> impl Iterator<Item = &mut Bytes>;
}

impl Carries for Request {
    fn bytes(&mut self) -> impl Iterator<Item = &mut Bytes> {
        self.inputs.iter_mut().flat_map(|input| &mut input.parts).filter_map(bytes_in)
    }
}

impl Carries for Output {
    fn bytes(&mut self) -> impl Iterator<Item = &mut Bytes> {
        self.parts.iter_mut().filter_map(bytes_in)
    }
}

fn bytes_in(part: &mut Part) -> Option<&mut Bytes> {
    match &mut part.value {
        Value::Image(bytes) | Value::Audio(bytes) | Value::Video(bytes) | Value::Bytes(bytes) => {
            Some(bytes)
        }
        Value::NdArray(array) => Some(&mut array.data),
        Value::Text(_)
        | Value::Integer(_)
        | Value::Float(_)
        | Value::Boolean(_)
        | Value::Json(_)
        | Value::Concepts(_)
        | Value::Regions(_)
        | Value::Frames(_)
        | Value::Embedding(_) => None,
    }
}

/// The bytes that are beside a body, in the order of their values there: which of these it
/// is, and how many.
type Beside = Vec<(u32, u32)>;

/// A frame with values. What is large of them is not copied into it.
pub(super) fn carrying<K: Kind, T: Carries + Serialize>(
    kind: K,
    call: u32,
    value: u64,
    mut body: T,
) -> io::Result<Whole> {
    let (mut lengths, mut beside) = (Beside::new(), Vec::new());
    for (place, bytes) in body.bytes().enumerate() {
        if bytes.len() >= BESIDE_BYTES {
            let place = u32::try_from(place).map_err(io::Error::other)?;
            lengths.push((place, u32::try_from(bytes.len()).map_err(io::Error::other)?));
            beside.push(std::mem::take(bytes));
        }
    }
    let more = beside.iter().map(Bytes::len).sum();
    Ok(Whole { frame: framed(kind, call, value, &(lengths, body), more)?, beside })
}

/// What [`carrying`] has made of it. The large values are the body's own bytes, and keep it,
/// where they are at least half of it; so what they are charged with is half of what they
/// keep, or more.
pub(super) fn carried<T: Carries + DeserializeOwned>(
    body: BytesMut,
    declared: u64,
) -> io::Result<T> {
    let body = body.freeze();
    let ((lengths, mut read), rest) = read_some::<(Beside, T)>(&body, declared)?;
    let mut rest = body.slice_ref(rest);
    let wrong = || invalid("what is beside a body is not what it says");
    // What is kept of a body keeps all of it.
    let is_mostly_beside = rest.len() >= body.len() / 2;
    let mut lengths = lengths.into_iter().peekable();
    for (place, bytes) in read.bytes().enumerate() {
        let Some((_, length)) = lengths.next_if(|(at, _)| *at as usize == place) else { continue };
        let length = length as usize;
        if length < BESIDE_BYTES || rest.len() < length || !bytes.is_empty() {
            return Err(wrong());
        }
        let beside = rest.split_to(length);
        *bytes = match is_mostly_beside {
            true => beside,
            false => Bytes::copy_from_slice(&beside),
        };
    }
    match lengths.next().is_none() && rest.is_empty() {
        true => Ok(read),
        false => Err(wrong()),
    }
}

/// A frame without a body.
pub(super) fn bare<K: Kind>(kind: K, call: u32, value: u64) -> Vec<u8> {
    Head { kind, call, value, length: 0 }.bytes().to_vec()
}

/// A frame whose body is these very bytes.
pub(super) fn whole<K: Kind>(kind: K, call: u32, value: u64, body: Bytes) -> io::Result<Whole> {
    let length = u32::try_from(body.len()).map_err(io::Error::other)?;
    let frame = Head { kind, call, value, length }.bytes().to_vec();
    Ok(Whole { frame, beside: vec![body] })
}

/// A frame with one. Only a body of four gigabytes cannot be sent.
pub(super) fn frame<K: Kind>(
    kind: K,
    call: u32,
    value: u64,
    body: &impl Serialize,
) -> io::Result<Vec<u8>> {
    framed(kind, call, value, body, 0)
}

/// The same, which so many bytes follow that are part of its body.
fn framed<K: Kind>(
    kind: K,
    call: u32,
    value: u64,
    body: &impl Serialize,
    more: usize,
) -> io::Result<Vec<u8>> {
    let mut bytes = postcard::to_extend(body, vec![0; HEAD_BYTES]).map_err(io::Error::other)?;
    let length = u32::try_from(bytes.len() - HEAD_BYTES + more).map_err(io::Error::other)?;
    let head = Head { kind, call, value, length }.bytes();
    bytes.iter_mut().zip(head).for_each(|(to, from)| *to = from);
    Ok(bytes)
}

/// How many of so many places for outputs one takes that holds so many bytes: large ones
/// are not waited for in such numbers as small ones.
pub(super) fn places_of(held_bytes: u64, places: usize) -> usize {
    let wanted = usize::try_from(held_bytes.div_ceil(PLACE_BYTES)).unwrap_or(usize::MAX);
    wanted.clamp(1, (places / LARGE_OUTPUTS).max(1))
}

/// What a body says, if in memory it takes no more than some times `declared` bytes.
pub(super) fn read<T: DeserializeOwned>(body: &[u8], declared: u64) -> io::Result<T> {
    match read_some(body, declared)? {
        (read, []) => Ok(read),
        _ => Err(invalid("a frame is longer than what it says")),
    }
}

/// The same of its beginning, and the rest.
fn read_some<T: DeserializeOwned>(body: &[u8], declared: u64) -> io::Result<(T, &[u8])> {
    // A number may have five times the bytes that it is charged with.
    let left = declared.saturating_mul(4).saturating_add(BODY_BYTES);
    let mut reader = postcard::Deserializer::from_flavor(Bounded { body, left });
    let read = T::deserialize(&mut reader).map_err(|_| invalid("a frame makes no sense"))?;
    let rest = reader.finalize().map_err(|_| invalid("a frame makes no sense"))?;
    Ok((read, rest))
}

pub(super) fn invalid(problem: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem)
}

/// A body that is read no further once it would become too much.
struct Bounded<'de> {
    body: &'de [u8],
    left: u64,
}

impl<'de> Bounded<'de> {
    fn take(&mut self, count: usize, bytes: u64) -> postcard::Result<&'de [u8]> {
        let (taken, rest) =
            self.body.split_at_checked(count).ok_or(postcard::Error::DeserializeUnexpectedEnd)?;
        self.left = self.left.checked_sub(bytes).ok_or(postcard::Error::DeserializeBadEncoding)?;
        self.body = rest;
        Ok(taken)
    }
}

impl<'de> Flavor<'de> for Bounded<'de> {
    type Remainder = &'de [u8];
    type Source = &'de [u8];

    fn pop(&mut self) -> postcard::Result<u8> {
        let taken = self.take(1, FIELD_BYTES)?;
        taken.first().copied().ok_or(postcard::Error::DeserializeUnexpectedEnd)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.body.len())
    }

    fn try_take_n(&mut self, count: usize) -> postcard::Result<&'de [u8]> {
        self.take(count, count as u64)
    }

    fn finalize(self) -> postcard::Result<Self::Remainder> {
        Ok(self.body)
    }
}

/// What a replica starts from. Its machine code, the component that is to be written, if
/// one is, and its graphs follow as open files.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Start {
    pub(super) version: u16,
    pub(super) sheet: Sheet,
    pub(super) fuel_per_cpu_second: u64,
    pub(super) begins: Begins,
    /// Name, and the folder that it is in.
    pub(super) graphs: Vec<(String, String)>,
    pub(super) assets: Vec<AssetFile>,
    /// Where they are, for a process whose root directory is that of the host.
    pub(super) assets_path: PathBuf,
    /// What its graphs are computed on beside CPUs.
    pub(super) devices: Vec<Device>,
    /// Why there are no kernels for those, where somebody would need them.
    pub(super) no_kernels: Option<String>,
    /// The limit that is taken away, in tests.
    pub(super) lifted: String,
}

/// What a replica's sandboxes begin with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum Begins {
    /// `load-model`.
    Load,
    /// The same; what it leaves is to be written into the component, which follows the
    /// machine code as an open file.
    Write,
    /// A copy.
    Copy(Copied),
}

/// What a replica has shown when it takes calls.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Started {
    /// The typed methods, as the guest declares them, or why they are not known.
    pub(super) methods: Result<String, Unknown>,
    /// What `load-model` took, or how it ended.
    pub(super) loaded: Result<Loaded, Verdict>,
    /// What was to be written, which comes before this in a frame of its own.
    #[serde(skip)]
    pub(super) snapshot: Option<Snapshot>,
    /// Why there is none, where there was to be one.
    pub(super) unfit: Option<String>,
}

/// Why the typed methods of a model are not known.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Unknown {
    /// The host's words.
    pub why: String,
    /// How the guest ended that was asked, where something stopped it.
    pub ended: Option<Box<Verdict>>,
}

/// What the first sandbox took to load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loaded {
    /// What `load-model` took.
    pub receipt: Receipt,
    /// How long it was.
    pub wall: Duration,
}

/// A call that begins.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Begin {
    pub(super) function: Function,
    /// Who calls: sandboxes may be kept for one caller.
    pub(super) user: String,
    /// Until its deadline.
    pub(super) left: Duration,
}

/// A line that a guest wrote.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Line {
    pub(super) level: Level,
    pub(super) text: String,
}

/// What a replica holds now, and has had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figures {
    /// Bytes held, by what holds them.
    pub memory_bytes: [(Holder, u64); Holder::ALL.len()],
    /// Sandboxes made.
    pub sandboxes_made: u64,
    /// CPU time that was charged to its `cpu_limit`.
    pub cpu: Duration,
    /// Lines of guests that the host did not take fast enough.
    pub lines_lost: u64,
}

impl Default for Figures {
    fn default() -> Self {
        Self {
            memory_bytes: Holder::ALL.map(|holder| (holder, 0)),
            sandboxes_made: 0,
            cpu: Duration::ZERO,
            lines_lost: 0,
        }
    }
}

impl Figures {
    /// With no number so large that sums of them overflow.
    pub(super) fn bounded(mut self, max: u64) -> Self {
        for (_, bytes) in &mut self.memory_bytes {
            *bytes = (*bytes).min(max);
        }
        self.sandboxes_made = self.sandboxes_made.min(max);
        self.cpu = self.cpu.min(Duration::from_secs(max >> 16));
        self.lines_lost = self.lines_lost.min(max);
        self
    }

    /// The sum of both.
    pub fn plus(mut self, other: &Self) -> Self {
        for ((_, sum), (_, bytes)) in self.memory_bytes.iter_mut().zip(other.memory_bytes) {
            *sum = sum.saturating_add(bytes);
        }
        self.sandboxes_made = self.sandboxes_made.saturating_add(other.sandboxes_made);
        self.cpu = self.cpu.saturating_add(other.cpu);
        self.lines_lost = self.lines_lost.saturating_add(other.lines_lost);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::{End, GuestError, GuestErrorCode, Input, Phase};

    #[test]
    fn large_outputs_take_the_places_of_several() {
        let of_64 = [0, 1, 8 << 10, 9 << 10, 32 << 10, 1 << 40].map(|held| places_of(held, 64));
        assert_eq!(of_64, [1, 1, 1, 2, 4, 8]);
        assert_eq!([1, 1 << 40].map(|held| places_of(held, 2)), [1, 1], "there is always room");
    }

    fn head_of<K: Kind>(frame: &[u8]) -> io::Result<Head<K>> {
        Head::parse(frame[..HEAD_BYTES].try_into().unwrap())
    }

    fn output() -> Output {
        let part = |value| Part { name: "x".into(), value };
        let parts = vec![
            part(Value::Text("text".into())),
            part(Value::Image(vec![0, 255].into())),
            part(Value::Embedding(vec![1.0, f32::NEG_INFINITY])),
        ];
        Output { parts, usage: None, info: String::new() }
    }

    #[test]
    fn frames_are_read_as_they_were_written() {
        for kind in Ask::ALL {
            assert_eq!(
                head_of(&bare(*kind, 7, 9)).unwrap(),
                Head { kind: *kind, call: 7, value: 9, length: 0 }
            );
        }
        let sent = carrying(Tell::Output, u32::MAX, u64::MAX, output()).unwrap().concat();
        let head = head_of::<Tell>(&sent).unwrap();
        assert_eq!((head.kind, head.call, head.value), (Tell::Output, u32::MAX, u64::MAX));
        assert_eq!(head.length as usize, sent.len() - HEAD_BYTES);
        assert_eq!(carried::<Output>(sent[HEAD_BYTES..].into(), 1 << 10).unwrap(), output());
    }

    /// The host reads what a worker sends, which may be anything.
    #[test]
    fn what_is_no_frame_is_an_error() {
        let mut unknown = bare(Tell::Figures, 0, 0);
        *unknown.last_mut().unwrap() = 200;
        assert!(head_of::<Tell>(&unknown).is_err());
        let sent = carrying(Tell::Output, 1, 1, output()).unwrap().concat();
        let body = &sent[HEAD_BYTES..];
        for length in 0..body.len() {
            assert!(carried::<Output>(body[..length].into(), 1 << 10).is_err(), "{length}");
        }
        assert!(carried::<Output>([body, &[0]].concat()[..].into(), 1 << 10).is_err());
    }

    fn with_bytes(lengths: &[usize]) -> Request {
        let bytes = |length: &usize| Part {
            name: String::new(),
            value: Value::Bytes(vec![7; *length].into()),
        };
        let text = Part { name: String::new(), value: Value::Text("x".repeat(BESIDE_BYTES)) };
        let parts = lengths.iter().map(bytes).chain([text]).collect();
        let inputs = vec![Input { id: String::new(), parts }];
        Request { method: String::new(), inputs, params: String::new() }
    }

    /// From the one who has received it to where it crosses into a sandbox.
    #[test]
    fn large_bytes_are_not_copied() {
        let lengths = [BESIDE_BYTES, 3, 0, 2 * BESIDE_BYTES];
        let place = |bytes: &Bytes| bytes.as_ptr();
        let mut request = with_bytes(&lengths);
        let large = |request: &mut Request| -> Vec<*const u8> {
            request.bytes().filter(|bytes| bytes.len() >= BESIDE_BYTES).map(|b| place(b)).collect()
        };
        let before = large(&mut request);
        let sent = carrying(Ask::Message, 1, 0, request).unwrap();
        assert_eq!(sent.beside.iter().map(place).collect::<Vec<_>>(), before);
        let body = BytesMut::from(&sent.concat()[HEAD_BYTES..]);
        let within = body.as_ptr_range();
        let mut read = carried::<Request>(body, 1 << 30).unwrap();
        assert_eq!(read, with_bytes(&lengths));
        assert_eq!(large(&mut read).len(), 2);
        assert!(large(&mut read).iter().all(|place| within.contains(place)));
    }

    #[test]
    fn bytes_beside_a_body_are_those_that_it_names() {
        let body = |lengths: Beside, values: &[usize], beside: usize| {
            let mut body = postcard::to_allocvec(&(lengths, with_bytes(values))).unwrap();
            body.resize(body.len() + beside, 7);
            carried::<Request>(body[..].into(), 1 << 30)
        };
        const MORE: u32 = BESIDE_BYTES as u32 + 5;
        const LEAST: u32 = BESIDE_BYTES as u32;
        const BOTH: usize = (MORE + LEAST) as usize;
        assert!(body(vec![(0, MORE), (2, LEAST)], &[0, 4, 0], BOTH).is_ok());
        for (lengths, values, beside) in [
            (vec![(0, MORE)], &[0][..], MORE as usize - 1),
            (vec![(0, MORE)], &[0], MORE as usize + 1),
            (vec![(0, u32::MAX)], &[0], MORE as usize),
            (vec![(0, LEAST - 1)], &[0], BESIDE_BYTES - 1),
            (vec![(0, 0)], &[0], 0),
            (vec![(1, MORE)], &[0], MORE as usize),
            (vec![(0, MORE)], &[3], MORE as usize),
            (vec![(1, LEAST), (0, MORE)], &[0, 0], BOTH),
            (vec![(0, LEAST), (0, MORE)], &[0, 0], BOTH),
        ] {
            assert!(body(lengths.clone(), values, beside).is_err(), "{lengths:?} {values:?}");
        }
    }

    /// A text that goes, and bytes that stay.
    #[test]
    fn what_is_less_than_half_of_a_body_does_not_keep_it() {
        let mut request = with_bytes(&[BESIDE_BYTES]);
        let text = Value::Text("x".repeat(2 * BESIDE_BYTES));
        request.inputs[0].parts.push(Part { name: String::new(), value: text });
        let sent = carrying(Ask::Message, 1, 0, request.clone()).unwrap().concat();
        let body = BytesMut::from(&sent[HEAD_BYTES..]);
        let within = body.as_ptr_range();
        let mut read = carried::<Request>(body, 1 << 30).unwrap();
        assert_eq!(read, request);
        assert!(read.bytes().all(|bytes| !within.contains(&bytes.as_ptr())));
    }

    /// Four million empty parts are 12 MB as a frame, and 300 MB in memory.
    #[test]
    fn a_body_becomes_no_more_than_its_head_has_declared() {
        const PARTS: usize = 4 << 20;
        let mut body = postcard::to_allocvec(&(Beside::new(), PARTS)).unwrap();
        body.resize(body.len() + 3 * PARTS, 0);
        body.extend([0, 0]);
        assert!(carried::<Output>(body[..].into(), body.len() as u64).is_err());
        assert!(carried::<Output>(body[..].into(), 4 * body.len() as u64).is_ok());
    }

    /// What is charged for the largest output of each kind is enough to read it.
    #[test]
    fn an_honest_output_is_never_too_large_for_its_charge() {
        use crate::call::Concept;
        use crate::call::NdArray;
        use crate::sandbox::held_by;
        let long = Value::NdArray(NdArray {
            dtype: "|u1".into(),
            shape: vec![u32::MAX; 5000],
            data: Bytes::new(),
        });
        let many = |value: Value| Output {
            parts: vec![Part { name: String::new(), value }; 5000],
            usage: None,
            info: String::new(),
        };
        for output in [
            output(),
            many(Value::Boolean(true)),
            many(Value::Integer(i64::MIN)),
            many(Value::Embedding(vec![0.5])),
            many(Value::Text(String::new())),
            many(Value::Concepts(vec![Concept {
                id: "x".repeat(200),
                name: "y".repeat(200),
                value: 0.5,
            }])),
            Output {
                parts: vec![Part { name: String::new(), value: long }],
                usage: None,
                info: String::new(),
            },
        ] {
            let sent = carrying(Tell::Output, 0, 0, output.clone()).unwrap().concat();
            let read = carried::<Output>(sent[HEAD_BYTES..].into(), held_by(&output));
            assert_eq!(read.unwrap(), output);
        }
    }

    #[test]
    fn a_verdict_comes_without_its_trace() {
        let end = End::GuestError(GuestError {
            code: GuestErrorCode::Failed,
            message: "no".into(),
            info: String::new(),
        });
        let verdict = Verdict::early(end, Phase::Call);
        let sent = frame(Tell::End, 0, 0, &verdict).unwrap();
        assert_eq!(read::<Verdict>(&sent[HEAD_BYTES..], 0).unwrap(), verdict);
        let receipt = Receipt { fuel: 7, ..Receipt::default() };
        let sent = frame(Tell::Over, 0, 0, &receipt).unwrap();
        assert_eq!(read::<Receipt>(&sent[HEAD_BYTES..], 0).unwrap(), receipt);
        let request = Request { method: String::new(), inputs: vec![], params: "{}".into() };
        let sent = carrying(Ask::Message, 0, 0, request.clone()).unwrap().concat();
        assert_eq!(carried::<Request>(sent[HEAD_BYTES..].into(), 0).unwrap(), request);
    }
}
