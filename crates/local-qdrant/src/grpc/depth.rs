//! Limits the nesting of messages before a request is decoded.
//!
//! The decoder recurses once for each nested message, and once for each group that it skips. Its own limit is off,
//! because payloads nest deeper than it allows. A request with millions of levels would overflow the stack and crash
//! the process, so it is rejected here, by a pass without recursion.
//!
//! The bytes alone do not distinguish a message from a string. On the path to payloads, which contain the texts of
//! documents, the schema decides. Elsewhere (filters, names, vectors) any field that parses as a message counts as one;
//! the limits are far above what a string can accidentally parse as.

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use tonic::Status;

use super::super::MAX_MESSAGE;
use super::super::nesting::MAX_NESTING;

/// Each level of a payload is at most three messages (a value, its fields, an entry of them), plus some around it.
const MAX_MESSAGES: usize = 3 * (MAX_NESTING + 8);

/// Groups are an old encoding that no client of Qdrant sends; unknown ones are skipped.
const MAX_GROUPS: usize = 2_000;

/// Bytes before each message of a call: compression flag and length.
const FRAME: usize = 5;

/// Rejects requests whose decoding would recurse too deep.
pub(super) async fn limit(request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(bytes) = to_bytes(body, FRAME + MAX_MESSAGE).await else {
        return error(Status::out_of_range(format!("message truncated or larger than {MAX_MESSAGE} bytes")));
    };
    let schema = Schema::of_call(parts.uri.path());
    if messages(&bytes).any(|message| is_too_deep(message, schema)) {
        return error(Status::invalid_argument("messages nest too deep"));
    }
    next.run(Request::from_parts(parts, Body::from(bytes))).await
}

/// Returns the messages of a body; the decoder handles truncated ones.
fn messages(mut body: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        // A compressed message is rejected later: this server does not decompress.
        let ([_, length @ ..], rest) = body.split_first_chunk::<FRAME>()?;
        let (message, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        body = rest;
        Some(message)
    })
}

fn error(status: Status) -> Response {
    let (parts, body) = status.into_http::<tonic::body::Body>().into_parts();
    Response::from_parts(parts, Body::new(body))
}

/// The type of a message, as far as it matters on the path to the texts of documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Schema {
    Upsert,
    UpdateBatch,
    Operation,
    /// A list of points as the first field.
    PointList,
    Point,
    /// A payload as the first field.
    Payload,
    /// A request with a payload as field 3.
    SetPayload,
    Entry,
    Value,
    Fields,
    List,
    /// Anything else.
    Other,
    /// A deprecated protobuf group, which is skipped.
    Group,
}

impl Schema {
    fn of_call(path: &str) -> Self {
        match path.rsplit('/').next() {
            Some("Upsert") => Self::Upsert,
            Some("UpdateBatch") => Self::UpdateBatch,
            Some("SetPayload" | "OverwritePayload") => Self::SetPayload,
            _ => Self::Other,
        }
    }

    /// Returns the type of a field of this message. `None`: string or bytes.
    fn field(self, number: u64) -> Option<Self> {
        Some(match (self, number) {
            (Self::Upsert, 3) | (Self::PointList, 1) => Self::Point,
            (Self::UpdateBatch, 3) => Self::Operation,
            (Self::Operation, 1) => Self::PointList,
            (Self::Operation, 3 | 4) => Self::Payload,
            (Self::Point | Self::SetPayload, 3) | (Self::Payload | Self::Fields, 1) => Self::Entry,
            (Self::Entry, 2) | (Self::List, 1) => Self::Value,
            (Self::Value, 6) => Self::Fields,
            (Self::Value, 7) => Self::List,
            (Self::Entry | Self::Value | Self::Fields | Self::List | Self::Group, _) => return None,
            _ => Self::Other,
        })
    }
}

/// A message that is being read.
#[derive(Clone, Copy)]
struct Open {
    schema: Schema,
    end: usize,
}

fn is_too_deep(bytes: &[u8], schema: Schema) -> bool {
    let mut reader = Reader { bytes, at: 0 };
    let mut open = vec![Open { schema, end: bytes.len() }];
    let mut groups = 0;
    while let Some(&Open { schema, end }) = open.last() {
        if reader.at == end {
            groups -= usize::from(schema == Schema::Group);
            open.pop();
            continue;
        }
        match reader.field(end) {
            Some(Field::Scalar) => {}
            Some(Field::Delimited { number, length }) => match schema.field(number) {
                Some(inner) => open.push(Open { schema: inner, end: reader.at + length }),
                None => reader.at += length,
            },
            Some(Field::GroupStart) => {
                groups += 1;
                open.push(Open { schema: Schema::Group, end });
            }
            Some(Field::GroupEnd) if schema == Schema::Group => {
                groups -= 1;
                open.pop();
            }
            // Not a message: a string, or bytes that the decoder rejects.
            Some(Field::GroupEnd) | None => {
                while let Some(Open { schema: Schema::Group, .. }) = open.last() {
                    groups -= 1;
                    open.pop();
                }
                open.pop();
                reader.at = end;
            }
        }
        if open.len() - groups > MAX_MESSAGES || groups > MAX_GROUPS {
            return true;
        }
    }
    false
}

enum Field {
    Scalar,
    Delimited { number: u64, length: usize },
    GroupStart,
    GroupEnd,
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    /// Reads the next field of a message that ends at `end`; of a delimited field only the header.
    fn field(&mut self, end: usize) -> Option<Field> {
        let key = self.varint(end)?;
        let number = key >> 3;
        if number == 0 {
            return None;
        }
        match key & 7 {
            0 => self.varint(end).map(|_| Field::Scalar),
            1 => self.skip(8, end),
            2 => {
                let length = usize::try_from(self.varint(end)?).ok()?;
                (length <= end - self.at).then_some(Field::Delimited { number, length })
            }
            3 => Some(Field::GroupStart),
            4 => Some(Field::GroupEnd),
            5 => self.skip(4, end),
            _ => None,
        }
    }

    fn skip(&mut self, bytes: usize, end: usize) -> Option<Field> {
        (bytes <= end - self.at).then(|| self.at += bytes)?;
        Some(Field::Scalar)
    }

    fn varint(&mut self, end: usize) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = *self.bytes[..end].get(self.at)?;
            self.at += 1;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use qdrant_client::qdrant::{self as proto, condition::ConditionOneOf, value::Kind};

    use super::*;

    fn upsert(value: proto::Value) -> Vec<u8> {
        let point = proto::PointStruct { payload: [("a".to_owned(), value)].into(), ..Default::default() };
        proto::UpsertPoints { points: vec![point], ..Default::default() }.encode_to_vec()
    }

    fn value(kind: Kind) -> proto::Value {
        proto::Value { kind: Some(kind) }
    }

    fn nested(levels: usize, object: impl Fn(usize) -> bool) -> proto::Value {
        (0..levels).fold(value(Kind::BoolValue(true)), |inner, level| {
            value(if object(level) {
                Kind::StructValue(proto::Struct { fields: [("a".to_owned(), inner)].into() })
            } else {
                Kind::ListValue(proto::ListValue { values: vec![inner] })
            })
        })
    }

    #[test]
    fn payload_at_nesting_limit_passes_and_deeper_one_is_rejected() {
        for object in [(|_| true) as fn(usize) -> bool, |_| false, |level| level.is_multiple_of(2)] {
            let allowed = upsert(nested(MAX_NESTING, object));
            assert!(!is_too_deep(&allowed, Schema::Upsert));
            proto::UpsertPoints::decode(&*allowed).unwrap();
            assert!(is_too_deep(&upsert(nested(2 * MAX_NESTING, object)), Schema::Upsert));
        }
    }

    #[test]
    fn document_texts_do_not_count_as_messages() {
        for text in ["#".repeat(10_000), "\u{b}".repeat(10_000), "\n\u{7e}".repeat(10_000)] {
            assert!(!is_too_deep(&upsert(value(Kind::StringValue(text))), Schema::Upsert));
        }
    }

    #[test]
    fn nested_groups_and_filters_are_rejected_in_every_call() {
        for call in ["/qdrant.Points/Upsert", "/qdrant.Points/Count", "/qdrant.Collections/Create"] {
            assert!(is_too_deep(&vec![0x0b; MAX_MESSAGE], Schema::of_call(call)), "{call}");
        }
        let mut filter = proto::Filter::default();
        for _ in 0..MAX_MESSAGES {
            let condition = proto::Condition { condition_one_of: Some(ConditionOneOf::Filter(filter)) };
            filter = proto::Filter { must: vec![condition], ..Default::default() };
        }
        let count = proto::CountPoints { filter: Some(filter), ..Default::default() };
        assert!(is_too_deep(&count.encode_to_vec(), Schema::of_call("/qdrant.Points/Count")));
    }

    #[test]
    fn messages_returns_every_message_of_a_body() {
        let frame = |message: &[u8]| [&[0], &(message.len() as u32).to_be_bytes()[..], message].concat();
        let body = [frame(b"one"), frame(b""), frame(b"three"), vec![0, 0, 0, 0, 9, 1]].concat();
        assert_eq!(messages(&body).collect::<Vec<_>>(), [&b"one"[..], b"", b"three"]);
    }

    #[test]
    fn malformed_bytes_are_left_to_the_decoder() {
        for bytes in [&[0xff; 20][..], &[0x0a, 0x05, 1], &[0x0c], &[0x00], &[0x0b, 0x0a, 0x01, 0x00, 0x0c, 0x08, 1]] {
            assert!(!is_too_deep(bytes, Schema::Other));
        }
    }
}
