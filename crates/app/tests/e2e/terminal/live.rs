//! `status --watch` in a real terminal.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use super::super::world::{SERVICES, World, signal, ticket};
use super::redact;
use super::tmux::Terminal;

/// What is seen, without what differs between two runs: rates as little towers, too, and empty lines before the last one.
fn seen(picture: &str) -> String {
    let flat = |line: &str| match line.starts_with('│') && !line.contains("waiting") {
        true => line.replace(['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'], " "),
        false => line.to_owned(),
    };
    // The headroom of a young oplog depends on how much was written, and is shown only once it is known.
    let picture = redact::text(picture).replace(", oplog headroom N s", "");
    let mut lines: Vec<String> = picture.split('\n').map(flat).collect();
    lines.dedup_by(|line, before| line.is_empty() && before.is_empty());
    lines.join("\n")
}

/// Services that say after two seconds that nothing moves.
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
async fn the_live_view_shows_an_outage_begin_and_end_at_any_size() {
    let mut world = world().await;
    let usual = Terminal::run(&world, (80, 24), "", "status --watch").await;
    let wide = Terminal::run(&world, (140, 40), "", "status --watch").await;
    let tiny = Terminal::run(&world, (40, 10), "", "status --watch").await;
    let all = [(&usual, "80x24"), (&wide, "140x40"), (&tiny, "40x10")];
    for (terminal, size) in all {
        terminal.until(|picture| picture.contains("✔  In sync"), "the verdict").await;
        // The services report every few seconds; the tiny one has no room for them.
        let parts = ["/s out", "✔ embedder  ✔ processor  ✔ producer  ✔ upserter", "tokens/s", "checkpoint"];
        let needed = if size == "40x10" { 1 } else { parts.len() };
        let reported = |picture: &str| parts[..needed].iter().all(|part| picture.contains(part));
        let picture = terminal.until(reported, "the services").await;
        assert_eq!(terminal.modes(), (true, false), "it has the screen to itself:\n{picture}");
        insta::assert_snapshot!(format!("right_{size}"), seen(&picture));
    }
    assert!(usual.painted().contains("\x1b[38;5;2m ✔  In sync"), "what is right is green: {}", usual.painted());

    world.terminate("upserter");
    world.collection("tickets").insert_many((1000..1020).map(ticket)).await.unwrap();
    for (terminal, size) in all {
        let parts = match size {
            "40x10" => ["stage 1  0 waiting", "stage 2  20 waiting"].as_slice(),
            _ => [" 0 waiting", " 20 waiting", "not shrinking", "done", "Problems"].as_slice(),
        };
        let told =
            |picture: &str| picture.contains("✖  Sync stalled") && parts.iter().all(|part| picture.contains(part));
        let picture = terminal.until(told, "the outage").await;
        insta::assert_snapshot!(format!("outage_{size}"), seen(&picture));
    }

    // While it runs, and back.
    for (width, height) in [(40, 10), (20, 5), (200, 60), (80, 24)] {
        usual.resize(width, height);
        usual.until(|picture| picture.contains("stalled"), "the verdict at another size").await;
    }

    world.start("upserter");
    for (terminal, _) in all {
        terminal.until(|picture| picture.contains("✔  In sync") && !picture.contains("Problems"), "the end").await;
    }
    world.equal().await;

    // Without Redis nobody can tell, and keys are heard all the same.
    let redis = world.stack.redis.clone();
    redis.kill().await;
    for (terminal, _) in all {
        terminal
            .until(
                |picture| picture.contains("✖  Sync state unknown") && picture.contains("start Redis"),
                "that it is away",
            )
            .await;
    }
    assert!(usual.picture().contains("q to quit"), "the last line is cut off:\n{usual}");
    redis.start().await.unwrap();
    for (terminal, _) in all {
        terminal.until(|picture| picture.contains("✔  In sync"), "that it is back").await;
    }

    // However it is ended, the terminal is as it was.
    usual.press("q");
    usual.ended(0).await;
    wide.press("C-c");
    wide.ended(0).await;
    signal(tiny.process(), "TERM");
    tiny.ended(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_live_view_has_no_colours_with_no_color_and_hears_keys_whatever_stdin_is() {
    let world = world().await;
    let plain = Terminal::run(&world, (80, 24), "NO_COLOR=1", "status --watch").await;
    plain.until(|picture| picture.contains("✔  In sync"), "the verdict").await;
    let painted = plain.painted();
    let usual = |code: &&str| code.starts_with("39m") || code.starts_with("49m");
    let colours = painted.split("\x1b[").skip(1).filter(|code| code.starts_with(['3', '4', '9']) && !usual(code));
    let colours: Vec<&str> = colours.collect();
    assert!(colours.is_empty(), "it is painted: {colours:?}");
    plain.press("Escape");
    plain.ended(0).await;
    // Keys come from the terminal, whatever stdin is.
    let deaf = Terminal::run(&world, (80, 24), "", "status --watch </dev/null").await;
    deaf.until(|picture| picture.contains("✔  In sync"), "the verdict").await;
    deaf.press("q");
    deaf.ended(0).await;
    // A terminal that is not used as one.
    let piped = Terminal::run(&world, (80, 60), "", "status --watch | head -n 1").await;
    let picture = piped.until(|picture| picture.contains("\nicanon"), "a line").await;
    assert!(picture.starts_with("✔ In sync"), "{picture}");
}

#[tokio::test(flavor = "multi_thread")]
async fn watched_by_a_program_it_is_a_document_in_each_line() {
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
