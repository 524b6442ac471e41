//! Messages that are made once and sent many times.
//!
//! Owns that nothing is encoded while it is measured: a request goes as the bytes that it
//! is. What comes back is read as far as it has to be: its status, and how many outputs
//! there are.

use bytes::{Buf, BufMut, Bytes};
use prost::Message;
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// The part of an answer that is looked at; `clarifai.api.MultiOutputResponse` has more.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Answer {
    #[prost(message, optional, tag = "1")]
    pub(super) status: Option<AnswerStatus>,
    #[prost(message, repeated, tag = "2")]
    pub(super) outputs: Vec<AnswerOutput>,
}

/// The part of `clarifai.api.status.Status`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct AnswerStatus {
    #[prost(int32, tag = "1")]
    pub(super) code: i32,
    #[prost(string, tag = "2")]
    pub(super) description: String,
    #[prost(string, tag = "3")]
    pub(super) details: String,
}

/// Of an output, that it is one.
#[derive(Clone, PartialEq, Message)]
pub(super) struct AnswerOutput {}

/// Sends bytes, and reads answers.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Whole;

impl Codec for Whole {
    type Encode = Bytes;
    type Decode = Answer;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Whole {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(message);
        Ok(())
    }
}

impl Decoder for Whole {
    type Item = Answer;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Answer>, Status> {
        let answer = Answer::decode(&mut *buffer);
        // What it does not end with is no answer either.
        buffer.advance(buffer.remaining());
        answer.map(Some).map_err(|error| Status::internal(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::clarifai::api::status;
    use crate::proto::clarifai::api::{MultiOutputResponse, Output};

    #[test]
    fn an_answer_is_read_as_far_as_it_is_looked_at() {
        let answer = MultiOutputResponse {
            status: Some(status::Status {
                code: 10000,
                description: "Ok".into(),
                details: "d".into(),
                req_id: "r".into(),
                ..status::Status::default()
            }),
            outputs: vec![Output { id: "o".into(), ..Output::default() }; 2],
        };
        let read = Answer::decode(answer.encode_to_vec().as_slice()).unwrap();
        let status = read.status.unwrap();
        assert_eq!((status.code, &*status.description, &*status.details), (10000, "Ok", "d"));
        assert_eq!(read.outputs.len(), 2);
    }
}
