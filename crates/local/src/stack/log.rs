//! The servers' log files.

use std::{
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    path::Path,
};

/// A log that has grown beyond this is put aside when its server is started the next time. Two are kept at most.
const MOST_BYTES: u64 = 16 * 1024 * 1024;

/// How much of a log's end is read for an error message.
const TAIL_BYTES: u64 = 4096;
const TAIL_LINES: usize = 5;

/// Opens a log for appending.
pub(super) fn open(path: &Path) -> io::Result<File> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    if fs::metadata(path).is_ok_and(|meta| meta.len() > MOST_BYTES) {
        let mut old = path.as_os_str().to_owned();
        old.push(".1");
        fs::rename(path, old)?;
    }
    File::options().create(true).append(true).open(path)
}

/// The last lines of a log, as one line.
pub(super) fn tail(path: &Path) -> String {
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    if lines.is_empty() {
        return "its log is empty".into();
    }
    lines[lines.len().saturating_sub(TAIL_LINES)..].join(" / ")
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_long_log_is_put_aside_and_a_short_one_grows() -> io::Result<()> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("logs/server.log");
        writeln!(open(&path)?, "one")?;
        writeln!(open(&path)?, "two")?;
        assert_eq!(tail(&path), "one / two");
        File::options().write(true).open(&path)?.set_len(MOST_BYTES + 1)?;
        writeln!(open(&path)?, "three")?;
        assert_eq!(tail(&path), "three");
        assert_eq!(fs::metadata(dir.path().join("logs/server.log.1"))?.len(), MOST_BYTES + 1);
        Ok(())
    }

    #[test]
    fn a_missing_log_is_no_error() {
        assert_eq!(tail(Path::new("/nonexistent/server.log")), "its log is empty");
    }
}
