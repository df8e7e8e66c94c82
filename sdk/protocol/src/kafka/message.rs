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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::PREFIX_BYTES;
    use crate::kafka::api_versions::{ApiVersionsRequest, ApiVersionsResponse};
    use crate::kafka::heartbeat::{HeartbeatRequest, HeartbeatResponse};
    use crate::kafka::{ErrorCode, UnknownApiKey};
    use crate::primitives::DecodeErrorKind;

    fn body(frame: Vec<Bytes>) -> Bytes {
        Bytes::from(frame.concat()).slice(PREFIX_BYTES..)
    }

    #[test]
    fn headers_follow_the_form_of_the_message_and_api_versions_answers_the_old_way() {
        let check = |key, version, request, response| {
            let versions = (
                request_header_version(key, version),
                response_header_version(key, version),
            );
            assert_eq!(versions, (request, response), "{key:?} {version}");
        };
        check(ApiKey::Produce, 8, 1, 0);
        check(ApiKey::Produce, 9, 2, 1);
        check(ApiKey::SaslHandshake, 1, 1, 0);
        check(ApiKey::ApiVersions, 2, 1, 0);
        check(ApiKey::ApiVersions, 3, 2, 0);
        check(ApiKey::ApiVersions, 99, 2, 0);
    }

    #[test]
    fn a_request_frame_reads_back_header_first() {
        for version in HeartbeatRequest::VERSIONS {
            let request = HeartbeatRequest {
                group_id: "g".into(),
                generation_id: 3,
                ..Default::default()
            };
            let client = Str::from("me");
            let mut r = Reader::new(body(encode_request(&request, version, 7, Some(&client)).unwrap()));
            let peek = RequestPeek::new(&r).unwrap();
            assert_eq!(
                peek,
                RequestPeek {
                    key: 12,
                    version,
                    correlation_id: 7
                }
            );
            let key = ApiKey::try_from(peek.key).unwrap();
            let header = decode_request_header(&mut r, key, version).unwrap();
            assert_eq!((header.correlation_id, header.client_id), (7, Some(client)));
            assert_eq!(HeartbeatRequest::decode(&mut r, version), Ok(request));
            assert_eq!(r.finish("request"), Ok(()));
        }
    }

    #[test]
    fn a_response_frame_reads_back_and_nothing_may_follow() {
        let response = HeartbeatResponse {
            error_code: 27,
            ..Default::default()
        };
        for version in HeartbeatRequest::VERSIONS {
            let frame = body(encode_response(&response, ApiKey::Heartbeat, version, -5).unwrap());
            assert_eq!(
                decode_response::<HeartbeatRequest>(frame.clone(), version),
                Ok((-5, response.clone()))
            );
            let longer = Bytes::from([&frame[..], &[0]].concat());
            let error = decode_response::<HeartbeatRequest>(longer, version).unwrap_err();
            assert_eq!(error.kind, DecodeErrorKind::Trailing(1));
        }
        let versions = ApiVersionsResponse {
            error_code: 35,
            ..Default::default()
        };
        let frame = body(encode_response(&versions, ApiKey::ApiVersions, 0, 1).unwrap());
        assert_eq!(frame, [0, 0, 0, 1, 0, 35, 0, 0, 0, 0][..]);
        assert_eq!(decode_response::<ApiVersionsRequest>(frame, 0), Ok((1, versions)));
    }

    #[test]
    fn a_field_that_the_version_lacks_is_refused_unless_it_may_be_dropped() {
        let request = HeartbeatRequest {
            group_instance_id: Some("i".into()),
            ..Default::default()
        };
        let error = encode_request(&request, 2, 1, None).unwrap_err();
        assert_eq!(
            error.to_string(),
            "group_instance_id is set but version 2 does not carry it"
        );
        // The throttle time is ignorable.
        let response = HeartbeatResponse {
            throttle_time_ms: 9,
            ..Default::default()
        };
        assert!(encode_response(&response, ApiKey::Heartbeat, 0, 1).is_ok());
    }

    #[test]
    fn keys_and_error_codes_know_their_names_and_keep_what_they_do_not_know() {
        assert_eq!(ApiKey::try_from(2).map(ApiKey::name), Ok("ListOffsets"));
        assert_eq!(ApiKey::try_from(4), Err(UnknownApiKey(4)));
        assert_eq!(ApiKey::InitProducerId.versions(), 0..=5);
        assert!(ApiKey::all().is_sorted());

        assert_eq!(ErrorCode::from(6), ErrorCode::NOT_LEADER_OR_FOLLOWER);
        assert_eq!(ErrorCode(6).to_string(), "NOT_LEADER_OR_FOLLOWER (6)");
        assert!(ErrorCode(6).is_retriable() && !ErrorCode::INVALID_REQUEST.is_retriable());
        assert_eq!(ErrorCode(-1).name(), Some("UNKNOWN_SERVER_ERROR"));
        for unknown in [i16::MIN, -2, 10_000, i16::MAX] {
            let code = ErrorCode(unknown);
            assert_eq!(
                (code.name(), code.is_retriable(), i16::from(code)),
                (None, false, unknown)
            );
        }
    }
}
