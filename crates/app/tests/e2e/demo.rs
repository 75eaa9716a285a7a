//! What a new user sees first: one command, the real model, a document found by its meaning.

use std::process::{Command, Stdio};

use super::world::{BINARY, free_port};

#[test]
fn up_demo_finds_a_document_by_its_meaning_and_survives_a_second_run() {
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
    for run in 0..2 {
        let out = up();
        assert!(out.contains("all-MiniLM-L6-v2") || run > 0, "{out}");
        assert!(out.contains("Order still missing after two weeks  T-1001"), "it finds the document: {out}");
        assert!(out.contains("tidewheel search"), "it says what to type next: {out}");
    }
}
