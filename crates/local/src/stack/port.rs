//! Ports on the loopback address: finds a free one, and the process that holds a used one.

use std::{
    fs, io,
    net::{Ipv4Addr, TcpListener},
    time::{Duration, Instant},
};

use super::error::StackError;
use crate::ServerKind;

/// A port whose holder was just killed becomes free within this time.
const RELEASE_TIMEOUT: Duration = Duration::from_millis(1500);

/// Returns a port that is currently free.
pub(super) fn free() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// Whether the port is in use.
pub(super) fn is_taken(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse)
}

/// Fails when the port is in use, after a grace period for a holder that is about to exit.
pub(super) async fn expect_free(server: ServerKind, port: u16) -> Result<(), StackError> {
    let begun = Instant::now();
    while is_taken(port) {
        if begun.elapsed() > RELEASE_TIMEOUT {
            return Err(StackError::PortTaken { server, port, holder: holder(port) });
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    Ok(())
}

/// Returns the process that listens on the port, as `name (pid N)`, if the system exposes it.
///
/// Linux lists sockets in `/proc/net/tcp` with an inode, and each process's open inodes in `/proc/PID/fd`, except those
/// of other users' processes.
fn holder(port: u16) -> Option<String> {
    let inodes: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|file| fs::read_to_string(file).ok())
        .flat_map(|table| listening_inodes(&table, port))
        .collect();
    let sockets: Vec<String> = inodes.iter().map(|inode| format!("socket:[{inode}]")).collect();
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let Ok(files) = fs::read_dir(process.path().join("fd")) else { continue };
        let holds = files.flatten().any(|file| {
            fs::read_link(file.path())
                .is_ok_and(|link| sockets.iter().any(|socket| link.as_os_str() == socket.as_str()))
        });
        if holds {
            let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some(format!("{} (pid {pid})", name.trim()));
        }
    }
    None
}

/// Returns the inodes of listening sockets on a port, from a table in the format of `/proc/net/tcp`: the second column
/// is `address:port` in hexadecimal, the fourth the state (`0A` is listening), the tenth the inode.
fn listening_inodes(table: &str, port: u16) -> Vec<String> {
    let suffix = format!(":{port:04X}");
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let columns: Vec<&str> = line.split_whitespace().collect();
            let listens = columns.get(1)?.ends_with(&suffix) && *columns.get(3)? == "0A";
            listens.then(|| columns.get(9).map(ToString::to_string))?
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holder_returns_process_that_listens_on_port() -> io::Result<()> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        assert!(is_taken(port));
        let holder = holder(port).expect("this process");
        assert!(holder.ends_with(&format!("(pid {})", std::process::id())), "{holder}");
        drop(listener);
        assert!(!is_taken(port));
        Ok(())
    }

    #[test]
    fn listening_inodes_ignores_established_connections() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            0: 0100007F:18EB 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4242 1\n\
            1: 0100007F:18EB 0100007F:8F00 01 00000000:00000000 00:00000000 00000000     0        0 4343 1\n";
        assert_eq!(listening_inodes(table, 6379), ["4242"]);
        assert!(listening_inodes(table, 6380).is_empty());
    }
}
