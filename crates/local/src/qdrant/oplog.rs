//! The operation log of one collection: what makes a confirmed write survive.
//!
//! The engine keeps part of every change in memory until `flush()`, which syncs dozens of files and takes longer the
//! more segments there are. So a write is confirmed when it stands in this file, which is one append and one
//! `fdatasync` for a whole group of writers; the engine is flushed now and then, and the log emptied after that.
//! On start the log is applied again on top of whatever the engine had on disk. That is right from any such
//! state, because the log holds *resolved* operations (ids and whole values, never a filter): applied in order
//! they lead to the same points wherever they start.
//!
//! Format: `length: u32 | crc32c: u32 | record`, little-endian, one after the other. A record that was cut short by a
//! kill was never confirmed; it and everything after it is dropped on start.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::Path;

/// Length and checksum before each record.
const FRAME: usize = 8;

/// No record comes near: requests are limited to 64 MiB. A larger length is a damaged file.
const MAX_RECORD: u32 = 512 << 20;

/// An open log, positioned at its end.
#[derive(Debug)]
pub(crate) struct OpLog {
    file: File,
    /// Bytes in the file; what `append` has buffered but not written is not counted.
    len: u64,
    pending: Vec<u8>,
    unsynced: bool,
}

impl OpLog {
    /// Opens the log and hands every whole record to `replay`, in order. A torn tail is cut off.
    pub(crate) fn open(path: &Path, mut replay: impl FnMut(&[u8])) -> io::Result<Self> {
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let mut reader = BufReader::with_capacity(1 << 20, &mut file);
        let mut len = 0;
        let mut record = Vec::new();
        while read_record(&mut reader, &mut record)? {
            replay(&record);
            len += (FRAME + record.len()) as u64;
        }
        drop(reader);
        file.set_len(len)?;
        file.seek(SeekFrom::Start(len))?;
        Ok(Self { file, len, pending: Vec::new(), unsynced: false })
    }

    /// Adds a record to what the next [`OpLog::commit`] writes.
    pub(crate) fn append(&mut self, record: &[u8]) {
        let length = u32::try_from(record.len()).expect("a record is bounded by the request limit");
        self.pending.extend_from_slice(&length.to_le_bytes());
        self.pending.extend_from_slice(&crc32c::crc32c(record).to_le_bytes());
        self.pending.extend_from_slice(record);
    }

    /// Writes what was appended; with `sync` it is on the disk when this returns.
    pub(crate) fn commit(&mut self, sync: bool) -> io::Result<()> {
        if !self.pending.is_empty() {
            let written = self.file.write_all(&self.pending);
            if let Err(error) = written {
                // Half a record in the middle would hide everything after it from the next start.
                self.file.set_len(self.len)?;
                self.file.seek(SeekFrom::Start(self.len))?;
                self.pending.clear();
                return Err(error);
            }
            self.len += self.pending.len() as u64;
            self.pending.clear();
            self.pending.shrink_to(1 << 20);
            self.unsynced = true;
        }
        if sync && self.unsynced {
            self.file.sync_data()?;
            self.unsynced = false;
        }
        Ok(())
    }

    /// Forgets everything: to be called only after the engine was flushed.
    pub(crate) fn clear(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.seek(SeekFrom::Start(0))?;
        self.file.sync_data()?;
        self.len = 0;
        self.unsynced = false;
        Ok(())
    }

    /// Bytes that a start would have to apply again.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }
}

/// Reads one record; `false` at the end and at a torn or damaged record.
fn read_record(reader: &mut impl Read, record: &mut Vec<u8>) -> io::Result<bool> {
    let mut frame = [0; FRAME];
    if !read_full(reader, &mut frame)? {
        return Ok(false);
    }
    let [l0, l1, l2, l3, c0, c1, c2, c3] = frame;
    let length = u32::from_le_bytes([l0, l1, l2, l3]);
    // Zero is what a file system leaves behind when it grew a file but lost its content.
    if length == 0 || length > MAX_RECORD {
        return Ok(false);
    }
    record.resize(length as usize, 0);
    Ok(read_full(reader, record)? && crc32c::crc32c(record) == u32::from_le_bytes([c0, c1, c2, c3]))
}

/// `read_exact` that reports a short file as `false` instead of an error.
fn read_full(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match reader.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(path: &Path) -> Vec<Vec<u8>> {
        let mut seen = Vec::new();
        OpLog::open(path, |record| seen.push(record.to_vec())).unwrap();
        seen
    }

    #[test]
    fn what_was_committed_is_read_back_in_order_and_a_torn_tail_is_cut() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("oplog");
        let mut log = OpLog::open(&path, |_| panic!("a new log is empty")).unwrap();
        log.append(b"one");
        log.append(b"two");
        log.commit(true).unwrap();
        log.append(b"three");
        log.commit(false).unwrap();
        let whole = log.len();
        drop(log);

        for torn in 1..FRAME as u64 + 4 {
            let mut file = OpenOptions::new().append(true).open(&path).unwrap();
            file.write_all(&[4, 0, 0, 0, 9, 9, 9, 9, 1, 2, 3, 4][..torn as usize]).unwrap();
            drop(file);
            assert_eq!(records(&path), [&b"one"[..], b"two", b"three"], "after {torn} stray bytes");
            assert_eq!(std::fs::metadata(&path).unwrap().len(), whole);
        }
    }

    #[test]
    fn clearing_leaves_an_empty_log_that_takes_records_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("oplog");
        let mut log = OpLog::open(&path, |_| ()).unwrap();
        log.append(b"old");
        log.commit(true).unwrap();
        log.clear().unwrap();
        assert_eq!(log.len(), 0);
        log.append(b"new");
        log.commit(true).unwrap();
        drop(log);
        assert_eq!(records(&path), [b"new"]);
    }
}
