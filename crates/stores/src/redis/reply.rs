//! Conversion of Redis replies into port types. Texts of entries are moved out of the reply, never copied.

use redis::Value;
use tidewheel_core::catalog::TargetId;
use tidewheel_core::ports::{Delivery, EntryId};

use super::wire::{RawFields, Record};

/// A reply of another shape than the command returns: the server is not Redis 7, or a proxy garbles it. Holds the
/// expected shape.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unexpected(pub(super) &'static str);

type Reply<T> = Result<T, Unexpected>;

pub(super) fn array(value: Value) -> Reply<Vec<Value>> {
    match value {
        Value::Array(values) => Ok(values),
        Value::Nil => Ok(Vec::new()),
        _ => Err(Unexpected("a list")),
    }
}

pub(super) fn bytes(value: Value) -> Reply<Vec<u8>> {
    match value {
        Value::BulkString(bytes) => Ok(bytes),
        Value::SimpleString(text) => Ok(text.into_bytes()),
        Value::Okay => Ok(b"OK".to_vec()),
        _ => Err(Unexpected("a string")),
    }
}

pub(super) fn text(value: Value) -> Reply<String> {
    String::from_utf8(bytes(value)?).map_err(|_| Unexpected("a UTF-8 string"))
}

pub(super) fn optional_text(value: Value) -> Reply<Option<String>> {
    if value == Value::Nil { Ok(None) } else { text(value).map(Some) }
}

pub(super) fn integer(value: &Value) -> Reply<i64> {
    match value {
        Value::Int(number) => Ok(*number),
        _ => Err(Unexpected("an integer")),
    }
}

/// A count, which is never negative.
pub(super) fn count(value: &Value) -> Reply<u64> {
    u64::try_from(integer(value)?).map_err(|_| Unexpected("a count"))
}

/// Two counts.
pub(super) fn counts(value: Value) -> Reply<(u64, u64)> {
    let [first, second] = pair(value)?;
    Ok((count(&first)?, count(&second)?))
}

pub(super) fn entry_id(value: Value) -> Reply<EntryId> {
    text(value).map(EntryId)
}

/// The entries in `[id, [name, value, …]], …`.
pub(super) fn deliveries<T: Record>(value: Value) -> Reply<Vec<Delivery<T>>> {
    array(value)?
        .into_iter()
        .map(|value| {
            let (id, fields) = entry(value)?;
            Ok(Delivery { id, record: T::decode(fields) })
        })
        .collect()
}

/// A raw entry, `[id, [name, value, …]]`.
pub(super) fn entry(value: Value) -> Reply<(EntryId, RawFields)> {
    let [id, fields] = pair(value)?;
    Ok((entry_id(id)?, raw_fields(fields)?))
}

/// The entries in a reply of XREADGROUP on one stream; none if it timed out.
pub(super) fn first_stream<T: Record>(value: Value) -> Reply<Vec<Delivery<T>>> {
    match array(value)?.into_iter().next() {
        None => Ok(Vec::new()),
        Some(stream) => {
            let [_, entries] = pair(stream)?;
            deliveries(entries)
        }
    }
}

pub(super) fn pair(value: Value) -> Reply<[Value; 2]> {
    array(value)?.try_into().map_err(|_| Unexpected("a pair"))
}

/// Alternating targets and texts, sorted. Fields that name no target are not tidewheel's and are ignored.
pub(super) fn losses(mut values: impl Iterator<Item = Value>) -> Reply<Vec<(TargetId, String)>> {
    let mut lost = Vec::new();
    while let (Some(target), Some(what)) = (values.next(), values.next()) {
        if let Ok(target) = text(target)?.parse() {
            lost.push((target, text(what)?));
        }
    }
    lost.sort();
    Ok(lost)
}

pub(super) fn raw_fields(value: Value) -> Reply<RawFields> {
    let values = array(value)?;
    let mut fields = RawFields::with_capacity(values.len() / 2);
    let mut values = values.into_iter();
    while let (Some(name), Some(value)) = (values.next(), values.next()) {
        fields.push((bytes(name)?, bytes(value)?));
    }
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use tidewheel_core::change::Change;

    use super::*;

    fn parse(wire: &str) -> Value {
        redis::parse_redis_value(wire.as_bytes()).unwrap()
    }

    #[test]
    fn timed_out_read_returns_no_entries() {
        assert!(first_stream::<Change>(parse("*-1\r\n")).unwrap().is_empty());
    }

    #[test]
    fn entry_keeps_field_order() {
        let value = parse("*4\r\n$1\r\na\r\n$1\r\n1\r\n$1\r\nb\r\n$0\r\n\r\n");
        let expected = vec![(b"a".to_vec(), b"1".to_vec()), (b"b".to_vec(), Vec::new())];
        assert_eq!(raw_fields(value), Ok(expected));
    }

    #[test]
    fn losses_are_sorted_by_target() {
        let values = ["b.g2", "skipped at 1.0", "x", "not a target", "a.g1", "missing at 2.0"];
        let lost = losses(values.into_iter().map(|value| Value::BulkString(value.into()))).unwrap();
        let shown: Vec<String> = lost.iter().map(|(target, what)| format!("{target}: {what}")).collect();
        assert_eq!(shown, ["a.g1: missing at 2.0", "b.g2: skipped at 1.0"]);
    }

    #[test]
    fn undecodable_record_is_delivered_as_error() {
        let value = parse("*1\r\n*2\r\n$1\r\ns\r\n*1\r\n*2\r\n$3\r\n1-0\r\n*2\r\n$1\r\na\r\n$1\r\nb\r\n");
        let entries = first_stream::<Change>(value).unwrap();
        assert_eq!(entries[0].id, EntryId("1-0".into()));
        assert!(entries[0].record.is_err());
    }

    #[test]
    fn unexpected_reply_shapes_are_rejected() {
        for wire in [":1\r\n", "*1\r\n:1\r\n", "*1\r\n*1\r\n$1\r\ns\r\n"] {
            assert!(first_stream::<Change>(parse(wire)).is_err(), "{wire:?}");
        }
    }
}
