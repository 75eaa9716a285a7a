//! The servers' log files.

use std::{
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    path::Path,
};

/// A log that has grown beyond this is put aside when its server is started the next time. Two are kept at most.
const MOST_BYTES: u64 = 16 * 1024 * 1024;

/// How much of a log's end is read for an error message.
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
    let complaints: Vec<String> = lines.iter().filter_map(|line| complaint(line)).collect();
    if !complaints.is_empty() {
        return complaints[complaints.len().saturating_sub(TAIL_LINES)..].join(" / ");
    }
    lines[lines.len().saturating_sub(TAIL_LINES)..].join(" / ")
}

/// What a line of MongoDB's log says, if it is an error: such lines are JSON with a severity `s`, a message `msg` and
/// attributes, of which `error` matters most.
fn complaint(line: &str) -> Option<String> {
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
    fn of_mongodbs_log_only_the_complaints_are_told() {
        let info = r#"{"t":{"$date":"2024-01-01"},"s":"I","c":"CONTROL","msg":"Shutting down"}"#;
        assert_eq!(complaint(info), None);
        let error = r#"{"s":"E","c":"CONTROL","id":20557,"msg":"DBException in initAndListen","attr":{"error":"Location28596: no dbpath"}}"#;
        assert_eq!(complaint(error).as_deref(), Some("DBException in initAndListen: Location28596: no dbpath"));
        let fatal = r#"{"s":"F","msg":"Fatal assertion","attr":{"msgid":28595,"file":"wt.cpp"}}"#;
        assert_eq!(complaint(fatal).as_deref(), Some(r#"Fatal assertion: {"msgid":28595,"file":"wt.cpp"}"#));
        assert_eq!(complaint("# Fatal error, can't open config file"), None);
    }

    #[test]
    fn a_missing_log_is_no_error() {
        assert_eq!(tail(Path::new("/nonexistent/server.log")), "its log is empty");
    }
}
