//! The values that travel between a caller and a model.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::fmt;
use wasmtime::component::{ComponentType, Lift, Lower};

/// A label with a score.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ComponentType, Lift, Lower)]
#[component(record)]
pub struct Concept {
    /// Stable identifier, unique in its model.
    pub id: String,
    /// What people read.
    pub name: String,
    /// Usually a probability, 0 to 1.
    pub value: f32,
}

/// Edges as fractions of the image's height and width, 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ComponentType, Lift, Lower)]
#[component(record)]
pub struct BoundingBox {
    /// Upper edge.
    pub top: f32,
    /// Left edge.
    pub left: f32,
    /// Lower edge.
    pub bottom: f32,
    /// Right edge.
    pub right: f32,
}

/// A place in an image: column `x`, row `y`, as fractions, 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ComponentType, Lift, Lower)]
#[component(record)]
pub struct Point {
    /// Column.
    pub x: f32,
    /// Row.
    pub y: f32,
}

/// A part of an image and what is seen there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ComponentType, Lift, Lower)]
#[component(record)]
pub struct Region {
    /// Identifier within its output; may be empty.
    pub id: String,
    /// Where it is.
    pub bounds: Option<BoundingBox>,
    /// Corners of a polygon, or keypoints.
    pub points: Vec<Point>,
    /// A PNG of one channel, as large as the image.
    pub mask: Option<Bytes>,
    /// What it shows.
    pub concepts: Vec<Concept>,
    /// What is written there.
    pub text: Option<String>,
    /// The same for one object through all frames of a video.
    #[component(name = "track-id")]
    pub track_id: String,
    /// How sure the model is, 0 to 1.
    pub value: f32,
}

/// One moment of a video.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ComponentType, Lift, Lower)]
#[component(record)]
pub struct Frame {
    /// Number of the frame, from 0.
    pub index: u32,
    /// Milliseconds from the video's start.
    #[component(name = "time-ms")]
    pub time_ms: u64,
    /// What it shows as a whole.
    pub concepts: Vec<Concept>,
    /// What it shows in places.
    pub regions: Vec<Region>,
}

/// A dense array, row-major, little-endian.
#[derive(Clone, PartialEq, Serialize, Deserialize, ComponentType, Lift, Lower)]
#[component(record)]
pub struct NdArray {
    /// NumPy's name of the element type.
    pub dtype: String,
    /// Length of each axis.
    pub shape: Vec<u32>,
    /// The elements.
    pub data: Bytes,
}

impl fmt::Debug for NdArray {
    /// Shape and type only: the elements are the caller's.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:?}", self.dtype, self.shape)
    }
}

/// Everything a part can be. Images, audio and video are whole encoded files.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ComponentType, Lift, Lower)]
#[component(variant)]
pub enum Value {
    /// Plain text.
    #[component(name = "text")]
    Text(String),
    /// An image file.
    #[component(name = "image")]
    Image(Bytes),
    /// An audio file.
    #[component(name = "audio")]
    Audio(Bytes),
    /// A video file.
    #[component(name = "video")]
    Video(Bytes),
    /// Bytes of no declared kind.
    #[component(name = "bytes")]
    Bytes(Bytes),
    /// A whole number.
    #[component(name = "integer")]
    Integer(i64),
    /// A number.
    #[component(name = "float")]
    Float(f64),
    /// True or false.
    #[component(name = "boolean")]
    Boolean(bool),
    /// A JSON text.
    #[component(name = "json")]
    Json(String),
    /// Scored labels.
    #[component(name = "concepts")]
    Concepts(Vec<Concept>),
    /// Parts of an image.
    #[component(name = "regions")]
    Regions(Vec<Region>),
    /// Moments of a video.
    #[component(name = "frames")]
    Frames(Vec<Frame>),
    /// A vector.
    #[component(name = "embedding")]
    Embedding(Vec<f32>),
    /// An array.
    #[component(name = "ndarray")]
    NdArray(NdArray),
}
