//! The paths that an update changed.
//!
//! A stage of the pipeline collects their names, because the description of an update itself may be as large as the
//! document. Its expressions cannot fail: a change stream ends at an expression that does, at every attempt.

use bson::{Document, doc};
use tidewheel_core::ports::Touched;

use super::extjson::{Elements, Malformed};

/// The field of an event that holds the names.
pub(super) const TOUCHED: &[u8] = b"tidewheel_touched";

/// Maximum bytes of the names of one event. With more of them everything counts as changed.
const MAX_BYTES: usize = 64 * 1024;

/// The stage that collects the names. It precedes the one that removes the description.
pub(super) fn stage() -> Document {
    let names = doc! { "$concatArrays": [
        {
            "$map": {
                "input": { "$objectToArray": { "$ifNull": ["$updateDescription.updatedFields", {}] } },
                "in": "$$this.k",
            },
        },
        { "$ifNull": ["$updateDescription.removedFields", []] },
        { "$map": { "input": { "$ifNull": ["$updateDescription.truncatedArrays", []] }, "in": "$$this.field" } },
    ] };
    doc! { "$set": {
        "tidewheel_touched": { "$cond": [{ "$eq": ["$operationType", "update"] }, names, "$$REMOVE"] },
    } }
}

/// Reads the names of an event.
pub(super) fn paths(names: &[u8]) -> Touched {
    // Without a readable list, anything may have changed.
    read(names).ok().flatten().map_or(Touched::All, Touched::Paths)
}

/// The names; `None` if they are too many, or not text.
fn read(names: &[u8]) -> Result<Option<Vec<String>>, Malformed> {
    let mut elements = Elements::new(names)?;
    let (mut paths, mut bytes) = (Vec::new(), 0);
    while let Some(element) = elements.next()? {
        let Some(path) = element.text() else { return Ok(None) };
        bytes += path.len();
        if bytes > MAX_BYTES {
            return Ok(None);
        }
        paths.push(path.to_owned());
    }
    Ok(Some(paths))
}

#[cfg(test)]
mod tests {
    use bson::Bson;

    use super::*;

    fn of(names: Vec<Bson>) -> Touched {
        let bytes = doc! {"names": names}.to_vec().unwrap();
        let element = Elements::new(&bytes).unwrap().find("names").unwrap().unwrap();
        paths(element.document().unwrap())
    }

    #[test]
    fn names_become_paths() {
        assert_eq!(of(vec!["status".into(), "a.0.b".into()]), Touched::Paths(vec!["status".into(), "a.0.b".into()]));
        assert_eq!(of(Vec::new()), Touched::Paths(Vec::new()));
    }

    #[test]
    fn unreadable_and_oversized_lists_count_as_everything() {
        assert_eq!(of(vec!["a".into(), Bson::Int32(1)]), Touched::All);
        assert_eq!(paths(b"no list"), Touched::All);
        let name = Bson::String("x".repeat(1_024));
        assert!(matches!(of(vec![name.clone(); 64]), Touched::Paths(paths) if paths.len() == 64));
        assert_eq!(of(vec![name; 65]), Touched::All);
        let mut bytes = doc! {"0": "a?"}.to_vec().unwrap();
        let at = bytes.iter().position(|byte| *byte == b'?').unwrap();
        bytes[at] = 0xFF;
        assert_eq!(paths(&bytes), Touched::All, "a name that is not UTF-8");
    }
}
