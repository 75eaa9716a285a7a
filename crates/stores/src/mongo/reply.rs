//! Zero-copy view of a cursor command's reply.

use mongodb::raw_batch_cursor::RawBatch;

use super::extjson::{self, Elements, Form, Malformed};

/// A batch of a cursor.
pub(super) struct Reply<'a> {
    /// The batch's documents.
    pub(super) documents: Elements<'a>,
    /// The resume token after the whole batch, in a change stream.
    pub(super) token: Option<String>,
}

impl<'a> Reply<'a> {
    pub(super) fn read(batch: &'a RawBatch) -> Result<Self, Malformed> {
        let root = Elements::new(batch.as_raw_document().as_bytes())?;
        let cursor =
            root.find("cursor")?.and_then(|cursor| cursor.document()).ok_or(Malformed("reply without a cursor"))?;
        let (mut documents, mut token) = (None, None);
        let mut elements = Elements::new(cursor)?;
        while let Some(element) = elements.next()? {
            match element.name {
                b"firstBatch" | b"nextBatch" => documents = element.document(),
                b"postBatchResumeToken" => token = Some(extjson::value(&element, Form::Canonical)?),
                _ => {}
            }
        }
        let documents = documents.ok_or(Malformed("reply without documents"))?;
        Ok(Self { documents: Elements::new(documents)?, token })
    }

    /// The next document.
    pub(super) fn next(&mut self) -> Result<Option<&'a [u8]>, Malformed> {
        match self.documents.next()? {
            None => Ok(None),
            Some(element) => element.document().map(Some).ok_or(Malformed("reply with a non-document in its batch")),
        }
    }
}
