//! What all messages have in common: reading, writing, and the headers in front of them.
//!
//! Owns the [`Message`] and [`Request`] traits and the choice of header versions. It must never know what is
//! in a particular message.

use std::ops::RangeInclusive;

use bytes::Bytes;
use thiserror::Error;

use super::api_key::ApiKey;
use super::header::{RequestHeader, ResponseHeader};
use crate::frame::FrameError;
use crate::primitives::{DecodeError, Element, EncodeError, Form, Reader, Str, Writer};

/// A struct of Kafka's schemas: a request, a response, a header, or a part of one.
///
/// The version must be one of the message's: [`Request::VERSIONS`] says which. Other versions are read and
/// written as if the nearest rule applied to them; nothing panics, but the bytes mean nothing.
pub trait Message: Sized {
    /// Reads the message from the front of `r`. Bytes that follow stay unread.
    fn decode(r: &mut Reader, version: i16) -> Result<Self, DecodeError>;

    /// Writes the message.
    ///
    /// A field that the version does not carry is dropped if the schema calls it ignorable, and otherwise
    /// must have its default value.
    fn encode(&self, w: &mut Writer, version: i16) -> Result<(), EncodeError>;
}

/// A request, and with it all that belongs to one API.
pub trait Request: Message {
    const KEY: ApiKey;
    /// The stable versions.
    const VERSIONS: RangeInclusive<i16>;
    type Response: Message;
}

impl<M: Message> Element for M {
    fn read(r: &mut Reader, _: &'static str, _: Form, version: i16) -> Result<Self, DecodeError> {
        M::decode(r, version)
    }

    fn write(&self, w: &mut Writer, _: &'static str, _: Form, version: i16) -> Result<(), EncodeError> {
        self.encode(w, version)
    }
}

/// The version of the header in front of a request.
pub fn request_header_version(key: ApiKey, version: i16) -> i16 {
    if key.is_flexible(version) { 2 } else { 1 }
}

/// The version of the header in front of a response.
///
/// ApiVersions answers always begin with header 0: a client that asks does not know yet what the broker
/// speaks (KIP-511).
pub fn response_header_version(key: ApiKey, version: i16) -> i16 {
    if key != ApiKey::ApiVersions && key.is_flexible(version) {
        1
    } else {
        0
    }
}

/// The front of a request, read without knowing the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestPeek {
    pub key: i16,
    pub version: i16,
    pub correlation_id: i32,
}

impl RequestPeek {
    /// Looks at the eight bytes that every request begins with, and leaves `r` where it is.
    pub fn new(r: &Reader) -> Result<Self, DecodeError> {
        let mut r = r.clone();
        Ok(Self {
            key: r.i16("request_api_key")?,
            version: r.i16("request_api_version")?,
            correlation_id: r.i32("correlation_id")?,
        })
    }
}

/// Reads the header of a request to `key` in `version`, both known from [`RequestPeek`].
pub fn decode_request_header(
    r: &mut Reader,
    key: ApiKey,
    version: i16,
) -> Result<RequestHeader, DecodeError> {
    RequestHeader::decode(r, request_header_version(key, version))
}

/// A message could not be turned into a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum EncodeFrameError {
    #[error(transparent)]
    Encode(#[from] EncodeError),
    #[error(transparent)]
    Frame(#[from] FrameError),
}

/// A whole request frame: length, header, body.
pub fn encode_request<R: Request>(
    request: &R,
    version: i16,
    correlation_id: i32,
    client_id: Option<&Str>,
) -> Result<Vec<Bytes>, EncodeFrameError> {
    let header = RequestHeader {
        request_api_key: R::KEY as i16,
        request_api_version: version,
        correlation_id,
        client_id: client_id.cloned(),
        ..RequestHeader::default()
    };
    let mut w = Writer::new();
    header.encode(&mut w, request_header_version(R::KEY, version))?;
    request.encode(&mut w, version)?;
    Ok(w.finish_frame()?)
}

/// A whole response frame: length, header, body.
///
/// The API is an argument, not a type: a server answers an ApiVersions request of an unknown version by the
/// body of version 0.
pub fn encode_response<M: Message>(
    response: &M,
    key: ApiKey,
    version: i16,
    correlation_id: i32,
) -> Result<Vec<Bytes>, EncodeFrameError> {
    let header = ResponseHeader {
        correlation_id,
        ..ResponseHeader::default()
    };
    let mut w = Writer::new();
    header.encode(&mut w, response_header_version(key, version))?;
    response.encode(&mut w, version)?;
    Ok(w.finish_frame()?)
}

/// Reads a response header and body from a frame, and nothing more may follow.
pub fn decode_response<R: Request>(frame: Bytes, version: i16) -> Result<(i32, R::Response), DecodeError> {
    let mut r = Reader::new(frame);
    let header = ResponseHeader::decode(&mut r, response_header_version(R::KEY, version))?;
    let response = R::Response::decode(&mut r, version)?;
    r.finish("response")?;
    Ok((header.correlation_id, response))
}
