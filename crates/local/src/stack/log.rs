//! The servers' log files.

use std::{
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    path::Path,
};

/// A log larger than this is rotated at the server's next start. At most two are kept.
const MOST_BYTES: u64 = 16 * 1024 * 1024;

/// The part of a log's end that is read for an error message.
const TAIL_BYTES: u64 = 16 * 1024;
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

/// Returns the last lines of a log as one line.
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
        return "the log is empty".into();
    }
    let errors: Vec<String> = lines.iter().filter_map(|line| mongod_error(line)).collect();
    if !errors.is_empty() {
        return errors[errors.len().saturating_sub(TAIL_LINES)..].join(" / ");
    }
    lines[lines.len().saturating_sub(TAIL_LINES)..].join(" / ")
}

/// Returns the message of a line of MongoDB's log, if it is an error: such lines are JSON with a severity `s`, a
/// message `msg` and attributes, of which `error` matters most.
fn mongod_error(line: &str) -> Option<String> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    if !matches!(line.get("s")?.as_str()?, "E" | "F") {
        return None;
    }
    let message = line.get("msg")?.as_str()?;
    let cause = line.get("attr").map(|attributes| attributes.get("error").unwrap_or(attributes));
    Some(match cause {
        Some(serde_json::Value::String(cause)) => format!("{message}: {cause}"),
        Some(cause) => format!("{message}: {cause}"),
        None => message.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn open_rotates_a_large_log_and_appends_to_a_small_one() -> io::Result<()> {
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
    fn mongod_error_ignores_other_lines() {
        let info = r#"{"t":{"$date":"2024-01-01"},"s":"I","c":"CONTROL","msg":"Shutting down"}"#;
        assert_eq!(mongod_error(info), None);
        let error = r#"{"s":"E","c":"CONTROL","id":20557,"msg":"DBException in initAndListen","attr":{"error":"Location28596: no dbpath"}}"#;
        assert_eq!(mongod_error(error).as_deref(), Some("DBException in initAndListen: Location28596: no dbpath"));
        let fatal = r#"{"s":"F","msg":"Fatal assertion","attr":{"msgid":28595,"file":"wt.cpp"}}"#;
        assert_eq!(mongod_error(fatal).as_deref(), Some(r#"Fatal assertion: {"msgid":28595,"file":"wt.cpp"}"#));
        assert_eq!(mongod_error("# Fatal error, can't open config file"), None);
    }

    #[test]
    fn tail_of_a_missing_log_is_not_an_error() {
        assert_eq!(tail(Path::new("/nonexistent/server.log")), "the log is empty");
    }
}
