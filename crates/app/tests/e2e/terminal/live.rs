//! `status --watch` in a real terminal.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use super::super::world::{SERVICES, World, signal, ticket};
use super::redact;
use super::tmux::Terminal;

/// Redacts what differs between two runs, including sparklines, and collapses empty lines.
fn redacted(picture: &str) -> String {
    let flat = |line: &str| match line.starts_with('│') && !line.contains("waiting") {
        true => line.replace(['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'], " "),
        false => line.to_owned(),
    };
    // The window of a young oplog depends on the writes so far, and is only shown once it is known.
    let picture = redact::text(picture).replace(", oplog headroom N s", "");
    // A longer age pushes the last letter out of a narrow box.
    let picture = picture.replace("0 consumers  │", "0 consumer   │");
    let mut lines: Vec<String> = picture.split('\n').map(flat).collect();
    lines.dedup_by(|line, before| line.is_empty() && before.is_empty());
    lines.join("\n")
}

/// Starts services that report no progress after two seconds.
async fn world() -> World {
    let mut world = World::new().await;
    world.write_settings("monitor.no_progress = \"2s\"\nmonitor.stage_2_entries = 10\nmonitor.latency = \"1h\"");
    for service in SERVICES {
        world.start(service);
    }
    super::settled(&mut world).await;
    world.collection("tickets").insert_many((0..100).map(ticket)).await.unwrap();
    world.equal().await;
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn live_view_shows_outage_and_recovery_at_any_size() {
    let mut world = world().await;
    let usual = Terminal::run(&world, (80, 24), "", "status --watch").await;
    let wide = Terminal::run(&world, (140, 40), "", "status --watch").await;
    let tiny = Terminal::run(&world, (40, 10), "", "status --watch").await;
    let all = [(&usual, "80x24"), (&wide, "140x40"), (&tiny, "40x10")];
    for (terminal, size) in all {
        terminal.until(|picture| picture.contains("✔  In sync"), "the verdict").await;
        // The services report every few seconds; the tiny terminal has no space for them.
        let parts = ["/s out", "✔ embedder  ✔ processor  ✔ producer  ✔ upserter", "tokens/s", "checkpoint"];
        let needed = if size == "40x10" { 1 } else { parts.len() };
        let reported = |picture: &str| parts[..needed].iter().all(|part| picture.contains(part));
        let picture = terminal.until(reported, "the services").await;
        assert_eq!(terminal.modes(), (true, false), "alternate screen without cursor:\n{picture}");
        insta::assert_snapshot!(format!("in_sync_{size}"), redacted(&picture));
    }
    assert!(usual.painted().contains("\x1b[38;5;2m ✔ "), "green when in sync: {}", usual.painted());

    world.terminate("upserter");
    world.collection("tickets").insert_many((1000..1020).map(ticket)).await.unwrap();
    for (terminal, size) in all {
        let parts = match size {
            "40x10" => ["stage 1  0 waiting", "stage 2  20 waiting"].as_slice(),
            _ => [" 0 waiting", " 20 waiting", "not shrinking", "done", "Problems"].as_slice(),
        };
        let shown =
            |picture: &str| picture.contains("✖  Sync stalled") && parts.iter().all(|part| picture.contains(part));
        let picture = terminal.until(shown, "the outage").await;
        insta::assert_snapshot!(format!("outage_{size}"), redacted(&picture));
    }

    // Resized while running.
    for (width, height) in [(40, 10), (20, 5), (200, 60), (80, 24)] {
        usual.resize(width, height);
        usual.until(|picture| picture.contains("stalled"), "the verdict at another size").await;
    }

    world.start("upserter");
    for (terminal, _) in all {
        terminal.until(|picture| picture.contains("✔  In sync") && !picture.contains("Problems"), "the recovery").await;
    }
    world.equal().await;

    // Without Redis the state is unknown, and keys still work.
    let redis = world.stack.redis.clone();
    redis.kill().await;
    for (terminal, _) in all {
        terminal
            .until(
                |picture| picture.contains("✖  Sync state unknown") && picture.contains("start Redis"),
                "the Redis outage",
            )
            .await;
    }
    assert!(usual.picture().contains("q to quit"), "the last line is truncated:\n{usual}");
    redis.start().await.unwrap();
    for (terminal, _) in all {
        terminal.until(|picture| picture.contains("✔  In sync"), "the recovery of Redis").await;
    }

    // Every way to quit restores the terminal.
    usual.press("q");
    usual.ended(0).await;
    wide.press("C-c");
    wide.ended(0).await;
    signal(tiny.process(), "TERM");
    tiny.ended(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn live_view_honours_no_color_and_reads_keys_without_stdin() {
    let world = world().await;
    let plain = Terminal::run(&world, (80, 24), "NO_COLOR=1", "status --watch").await;
    plain.until(|picture| picture.contains("✔  In sync"), "the verdict").await;
    let painted = plain.painted();
    let usual = |code: &&str| code.starts_with("39m") || code.starts_with("49m");
    let colours = painted.split("\x1b[").skip(1).filter(|code| code.starts_with(['3', '4', '9']) && !usual(code));
    let colours: Vec<&str> = colours.collect();
    assert!(colours.is_empty(), "colours: {colours:?}");
    plain.press("Escape");
    plain.ended(0).await;
    // Keys are read from the terminal, not from stdin.
    let no_stdin = Terminal::run(&world, (80, 24), "", "status --watch </dev/null").await;
    no_stdin.until(|picture| picture.contains("✔  In sync"), "the verdict").await;
    no_stdin.press("q");
    no_stdin.ended(0).await;
    // Output to a pipe.
    let piped = Terminal::run(&world, (80, 60), "", "status --watch | head -n 1").await;
    let picture = piped.until(|picture| picture.contains("\nicanon"), "a line").await;
    assert!(picture.starts_with("✔ In sync"), "{picture}");
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_with_json_output_prints_one_document_per_line() {
    let world = world().await;
    let mut command = world.command(&["status", "--watch", "--output", "json"]);
    let mut watch = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    for _ in 0..2 {
        let overview: serde_json::Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        assert!(overview["verdict"]["summary"].is_string() && overview["stages"][1]["length"] == 100, "{overview}");
    }
    signal(watch.id(), "TERM");
    let output = watch.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), b"".as_slice()));
}
