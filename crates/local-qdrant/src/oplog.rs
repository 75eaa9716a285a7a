//! The operation log of one collection, which makes confirmed writes durable.
//!
//! The engine keeps part of every change in memory until `flush()`, which syncs dozens of files and takes longer the
//! more segments there are. So a write is confirmed when it is in this log, which takes one append and one
//! `fdatasync` for a whole group of writers; the engine is flushed periodically, and the log truncated after that. On
//! start the log is replayed on top of the engine's files. That is correct from any such state, because the log
//! contains *resolved* operations (ids and whole values, never a filter): replayed in order they lead to the same
//! points from any starting state.
//!
//! No write is confirmed after a failed commit: the engine has applied operations that the log lacks, and a write
//! that finds its change applied, and so has nothing to log, must not be confirmed. The failed bytes stay in memory,
//! and the next commit writes them first. After a failed sync the kernel may have dropped the written pages and report
//! success for the next sync: everything since the last successful sync is written again.
//!
//! Format: a sequence of `length: u32 | crc32c: u32 | record`, little-endian. A record that a kill truncated was never
//! confirmed; it and everything after it is dropped on start.

use std::fmt::Debug;
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::Path;

/// Bytes of length and checksum before each record.
const FRAME: usize = 8;

/// Far above any record: requests are limited to 64 MiB. A larger length means a corrupted file.
const MAX_RECORD: u32 = 512 << 20;

/// A log's file; tests inject failures.
pub(crate) trait LogFile: Debug + Send {
    /// Writes all bytes at this offset.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Truncates or extends the file.
    fn set_len(&mut self, length: u64) -> io::Result<()>;
    /// Returns when all written bytes are on disk.
    fn sync(&mut self) -> io::Result<()>;
}

impl LogFile for File {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.seek(SeekFrom::Start(offset))?;
        self.write_all(bytes)
    }

    fn set_len(&mut self, length: u64) -> io::Result<()> {
        Self::set_len(self, length)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}

/// An open log.
#[derive(Debug)]
pub(crate) struct OpLog {
    file: Box<dyn LogFile>,
    /// Bytes on disk.
    synced: u64,
    /// Bytes after those.
    pending: Vec<u8>,
    /// How many of `pending` are in the file.
    written: usize,
    /// Whether the last commit failed.
    failed: bool,
}

impl OpLog {
    /// Opens the log and passes every complete record to `replay`, in order. Truncates a torn tail.
    pub(crate) fn open(path: &Path, mut replay: impl FnMut(&[u8])) -> io::Result<Self> {
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let mut reader = BufReader::with_capacity(1 << 20, &mut file);
        let mut length = 0;
        let mut record = Vec::new();
        while read_record(&mut reader, &mut record)? {
            replay(&record);
            length += (FRAME + record.len()) as u64;
        }
        drop(reader);
        file.set_len(length)?;
        Ok(Self::on(Box::new(file), length))
    }

    /// Creates a log on a file of this length.
    fn on(file: Box<dyn LogFile>, length: u64) -> Self {
        Self { file, synced: length, pending: Vec::new(), written: 0, failed: false }
    }

    /// Adds a record to the next [`OpLog::commit`].
    pub(crate) fn append(&mut self, record: &[u8]) {
        let length = u32::try_from(record.len()).expect("records are bounded by the request limit");
        self.pending.extend_from_slice(&length.to_le_bytes());
        self.pending.extend_from_slice(&crc32c::crc32c(record).to_le_bytes());
        self.pending.extend_from_slice(record);
    }

    /// Writes appended records, including those of an earlier failed commit. With `sync`, returns when they are on
    /// disk.
    ///
    /// # Errors
    /// No appended record, nor any later one, may be confirmed until a commit succeeds.
    pub(crate) fn commit(&mut self, sync: bool) -> io::Result<()> {
        let result = self.try_commit(sync || self.failed);
        self.failed = result.is_err();
        if self.failed {
            self.written = 0;
        }
        result
    }

    fn try_commit(&mut self, sync: bool) -> io::Result<()> {
        if self.failed {
            // A partial record in the middle would hide everything after it from the next start.
            self.file.set_len(self.synced)?;
        }
        if self.written < self.pending.len() {
            self.file.write_at(self.synced + self.written as u64, &self.pending[self.written..])?;
            self.written = self.pending.len();
        }
        if sync && self.written > 0 {
            self.file.sync()?;
            self.synced += self.written as u64;
            self.written = 0;
            self.pending.clear();
            self.pending.shrink_to(1 << 20);
        }
        Ok(())
    }

    /// Whether the last commit failed.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed
    }

    /// Truncates the log. Call only after the engine was flushed.
    pub(crate) fn clear(&mut self) -> io::Result<()> {
        // If this fails, the next start replays the records again, with the same result.
        self.file.set_len(0)?;
        self.synced = 0;
        self.written = 0;
        self.pending.clear();
        self.failed = false;
        self.file.sync()
    }

    /// Returns the bytes that a start would replay.
    pub(crate) fn len(&self) -> u64 {
        self.synced + self.written as u64
    }
}

/// Reads one record. `false`: end of the log, or a torn or corrupted record.
fn read_record(reader: &mut impl Read, record: &mut Vec<u8>) -> io::Result<bool> {
    let mut frame = [0; FRAME];
    if !read_full(reader, &mut frame)? {
        return Ok(false);
    }
    let [l0, l1, l2, l3, c0, c1, c2, c3] = frame;
    let length = u32::from_le_bytes([l0, l1, l2, l3]);
    // Zero length: the file system extended the file but lost its content.
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
    use std::sync::{Arc, Mutex};

    use super::*;

    fn records(path: &Path) -> Vec<Vec<u8>> {
        let mut seen = Vec::new();
        OpLog::open(path, |record| seen.push(record.to_vec())).unwrap();
        seen
    }

    #[test]
    fn open_replays_committed_records_in_order_and_truncates_torn_tail() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("oplog");
        let mut log = OpLog::open(&path, |_| panic!("a new log is empty")).unwrap();
        log.append(b"one");
        log.append(b"two");
        log.commit(true).unwrap();
        log.append(b"three");
        log.commit(false).unwrap();
        let whole = log.len();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), whole);
        drop(log);

        for torn in 1..FRAME as u64 + 4 {
            let mut file = OpenOptions::new().append(true).open(&path).unwrap();
            file.write_all(&[4, 0, 0, 0, 9, 9, 9, 9, 1, 2, 3, 4][..torn as usize]).unwrap();
            drop(file);
            assert_eq!(records(&path), [&b"one"[..], b"two", b"three"], "after {torn} stray bytes");
            assert_eq!(std::fs::metadata(&path).unwrap().len(), whole);
        }
    }

    /// A file with injected failures; a failing write writes half.
    #[derive(Clone, Debug, Default)]
    struct Failing(Arc<Mutex<Disk>>);

    #[derive(Debug, Default)]
    struct Disk {
        /// The state after a crash: everything up to the last sync, nothing else.
        durable: Vec<u8>,
        content: Vec<u8>,
        fail_writes: u32,
        fail_cuts: u32,
        fail_syncs: u32,
    }

    fn fails(left: &mut u32) -> io::Result<()> {
        match left.checked_sub(1) {
            Some(less) => {
                *left = less;
                Err(io::Error::from_raw_os_error(28))
            }
            None => Ok(()),
        }
    }

    impl LogFile for Failing {
        fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
            let mut disk = self.0.lock().unwrap();
            let failed = fails(&mut disk.fail_writes);
            let bytes = if failed.is_err() { &bytes[..bytes.len() / 2] } else { bytes };
            let offset = offset as usize;
            let end = disk.content.len().max(offset + bytes.len());
            disk.content.resize(end, 0);
            disk.content[offset..offset + bytes.len()].copy_from_slice(bytes);
            failed
        }

        fn set_len(&mut self, length: u64) -> io::Result<()> {
            let mut disk = self.0.lock().unwrap();
            fails(&mut disk.fail_cuts)?;
            disk.content.resize(length as usize, 0);
            Ok(())
        }

        fn sync(&mut self) -> io::Result<()> {
            let mut disk = self.0.lock().unwrap();
            if let Err(error) = fails(&mut disk.fail_syncs) {
                // As on Linux: pages that could not be written back are marked clean and lost.
                disk.content = disk.durable.clone();
                return Err(error);
            }
            disk.durable = disk.content.clone();
            Ok(())
        }
    }

    fn after_a_crash(disk: &Failing) -> Vec<Vec<u8>> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("oplog");
        std::fs::write(&path, &disk.0.lock().unwrap().durable).unwrap();
        records(&path)
    }

    #[test]
    fn commit_after_failure_first_writes_records_of_failed_commit() {
        type Break = fn(&mut Disk);
        let breaks: [Break; 5] = [
            |disk| disk.fail_writes = 1,
            |disk| disk.fail_syncs = 1,
            |disk| (disk.fail_writes, disk.fail_cuts) = (1, 1),
            |disk| (disk.fail_writes, disk.fail_syncs) = (1, 2),
            |disk| (disk.fail_syncs, disk.fail_cuts) = (2, 2),
        ];
        for (number, fault) in breaks.into_iter().enumerate() {
            let disk = Failing::default();
            let mut log = OpLog::on(Box::new(disk.clone()), 0);
            log.append(b"one");
            log.commit(true).unwrap();
            log.append(b"no reply");
            log.commit(false).unwrap();
            fault(&mut disk.0.lock().unwrap());
            log.append(b"two");
            let mut failed = 0;
            while log.commit(true).is_err() {
                failed += 1;
                assert!(log.has_failed() && failed < 9);
                assert_eq!(after_a_crash(&disk)[0], b"one");
            }
            assert!(failed > 0 && !log.has_failed(), "fault {number}");
            log.append(b"three");
            log.commit(true).unwrap();
            let expected: [&[u8]; 4] = [b"one", b"no reply", b"two", b"three"];
            assert_eq!(after_a_crash(&disk), expected, "fault {number}");
            assert_eq!(log.len(), disk.0.lock().unwrap().durable.len() as u64);
        }
    }

    #[test]
    fn cleared_log_is_empty_and_accepts_records() {
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
