//! The first steps of a new user: one command, the real model, a semantic search.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::world::{BINARY, free_port};

/// Returns the files in this directory that others may read or write.
fn open_to_others(path: &Path) -> Vec<PathBuf> {
    let mode = std::fs::symlink_metadata(path).unwrap().permissions().mode();
    let mut found = if mode & 0o077 == 0 { Vec::new() } else { vec![path.to_owned()] };
    if path.is_dir() {
        found.extend(std::fs::read_dir(path).unwrap().flat_map(|entry| open_to_others(&entry.unwrap().path())));
    }
    found
}

#[test]
fn up_demo_finds_document_by_meaning_and_can_run_again() {
    let dir = tempfile::tempdir().unwrap();
    let ports: Vec<String> = (0..7).map(|_| free_port().to_string()).collect();
    let up = || {
        let output = Command::new(BINARY)
            .args(["up", "--demo", "--exit", "--data"])
            .arg(dir.path().join("data"))
            .args(["--mongodb-port", &ports[0], "--redis-port", &ports[1]])
            .args(["--qdrant-http-port", &ports[2], "--qdrant-grpc-port", &ports[3]])
            .args(["--embedder-port", &ports[4], "--http-port", &ports[5], "--console-port", &ports[6]])
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{}\n{out}\n{err}", output.status);
        out.into_owned()
    };
    // Modes as older releases left them.
    let data = dir.path().join("data");
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("old"), "").unwrap();
    for (path, mode) in [(data.clone(), 0o755), (data.join("old"), 0o644)] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    for run in 0..2 {
        let out = up();
        assert_eq!(open_to_others(&data), Vec::<PathBuf>::new());
        assert!(out.contains("all-MiniLM-L6-v2") || run > 0, "{out}");
        assert!(out.contains("Order still missing after two weeks  T-1001"), "search result: {out}");
        assert!(out.contains("tidewheel search"), "suggested next command: {out}");
    }
}

#[test]
fn up_prints_reachable_addresses_when_console_port_is_in_use() {
    // Fails if another process already has the console's default port, which serves the same purpose.
    let _holder = TcpListener::bind("127.0.0.1:9091");
    let dir = tempfile::tempdir().unwrap();
    let ports: Vec<String> = (0..6).map(|_| free_port().to_string()).collect();
    let mut up = Command::new(BINARY)
        .args(["up", "--model", "hash:64", "--data"])
        .arg(dir.path().join("data"))
        .args(["--mongodb-port", &ports[0], "--redis-port", &ports[1]])
        .args(["--qdrant-http-port", &ports[2], "--qdrant-grpc-port", &ports[3]])
        .args(["--embedder-port", &ports[4], "--http-port", &ports[5]])
        .current_dir(dir.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(up.stdout.take().unwrap()).lines().map_while(Result::ok);
    let printed: Vec<String> = lines.take_while(|line| !line.starts_with("Next steps")).collect();
    let address = |line: &str| {
        let (_, rest) = line.split_once("127.0.0.1:")?;
        rest.split(|letter: char| !letter.is_ascii_digit()).next()?.parse::<u16>().ok()
    };
    let answers = |port: u16| TcpStream::connect(("127.0.0.1", port)).is_ok();
    let silent: Vec<&String> = printed.iter().filter(|line| address(line).is_some_and(|port| !answers(port))).collect();
    let console = printed.iter().find(|line| line.trim_start().starts_with("Console")).and_then(|line| address(line));
    let page = console.map(|port| {
        let mut connection = TcpStream::connect(("127.0.0.1", port)).unwrap();
        connection.write_all(b"GET / HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n").unwrap();
        let mut page = String::new();
        connection.read_to_string(&mut page).unwrap();
        page
    });
    super::world::signal(up.id(), "TERM");
    assert!(up.wait().unwrap().success());
    assert!(silent.is_empty() && printed.iter().filter_map(|line| address(line)).count() >= 7, "{printed:#?}");
    assert!(console.is_some_and(|port| port != 9091), "{printed:#?}");
    assert!(page.unwrap().contains("<title>"), "the console's page");
}
