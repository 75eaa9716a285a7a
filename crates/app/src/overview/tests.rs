use ratatui::Terminal;
use ratatui::backend::TestBackend;
use tidewheel_core::catalog::IndexName;
use tidewheel_ops::Probe;
use tidewheel_ops::overview::Overview;
use tidewheel_ops::overview::samples::{self, declared, empty, healthy, outage, syncing};

use super::*;
use crate::settings;

fn plain(overview: &Overview) -> String {
    anstream::adapter::strip_str(&text(overview, 100)).to_string()
}

/// The live view at this size.
fn drawn(overview: &Overview, width: u16, height: u16) -> String {
    let mut history = History::default();
    for _ in 0..30 {
        history.look(overview);
    }
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, overview, &history, Paint(true))).unwrap();
    terminal.backend().to_string()
}

#[test]
fn status_text_leads_with_verdict_and_action() {
    insta::assert_snapshot!("text_healthy", plain(&healthy()));
    insta::assert_snapshot!("text_syncing", plain(&syncing()));
    insta::assert_snapshot!("text_outage", plain(&outage()));
    insta::assert_snapshot!("text_empty", plain(&empty()));
    let narrow = anstream::adapter::strip_str(&text(&outage(), 80)).to_string();
    let table = narrow.lines().filter(|line| line.starts_with("stream ") || line.contains("_documents "));
    assert!(table.clone().count() > 1 && table.clone().all(|line| line.chars().count() <= 80), "{narrow}");
}

#[test]
fn several_indexes_are_listed_with_their_operations() {
    let lines = [
        "✔ articles  in sync  generation 1 · 8,120 points",
        "✔ tickets   in sync  generation 3 · 1,204,311 points · generation 4: filling 412,000 of 1,204,311 documents, \
         3.1k docs/s, ETA 4 min",
        "○ users     empty    generation 1 · 0 points · generation 1: waiting for another snapshot",
    ];
    let text = plain(&declared());
    for line in lines {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    assert!(!text.lines().any(|line| line.starts_with("collection")), "{text}");
    let drawn = drawn(&declared(), 200, 30);
    for line in lines {
        assert!(drawn.contains(line), "{line}\n{drawn}");
    }
    assert!(!plain(&healthy()).contains("generation"), "a single index is described by the overview");
}

#[test]
fn page_of_an_index_shows_its_generations() {
    let overview = declared().restricted(&IndexName::of_collection("tickets"));
    let text = anstream::adapter::strip_str(&page(&overview, &overview.indexes[0])).to_string();
    assert!(text.starts_with("✔ tickets: in sync\n"), "{text}");
    for part in [
        "operation       generation 4: filling 412,000 of 1,204,311 documents",
        "declared        as applied",
        "drift           none, audited 2.0 h ago",
        "latency         p50 80 ms · p95 210 ms from commit to searchable",
        "generation 2    kept until 2023-11-14T23:13:20",
        "generation 3    serving, 1,204,311 points, green  tickets.g3",
        "generation 4    filling, not filled, 412,000 points, green  tickets.g4",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
}

#[test]
fn live_view_renders_at_any_size() {
    for (name, overview) in [("healthy", healthy()), ("syncing", syncing()), ("outage", outage()), ("empty", empty())] {
        insta::assert_snapshot!(format!("view_{name}"), drawn(&overview, 100, 26));
    }
    insta::assert_snapshot!("view_outage_narrow", drawn(&outage(), 60, 30));
    // Tiny terminals must not panic.
    for (width, height) in [(1, 1), (10, 3), (40, 8), (300, 100)] {
        drawn(&outage(), width, height);
    }
}

#[test]
fn live_view_escapes_control_characters_of_servers_and_services() {
    // Clear the screen, write to the clipboard, set the title, a C1 sequence, line breaks, a bidirectional override.
    for hostile in ["\x1b[2J", "\x1b]52;c;ZXZpbA==\x07", "\x1b]0;x\x1b\\", "\u{9b}31m", "a\r\nb\x08", "\u{202e}lla"] {
        let unknown = |overview: &mut Overview| {
            overview.redis = Probe::Unknown(hostile.into());
            overview.embedder = Probe::Unknown(hostile.into());
            overview.source = Probe::Unknown(hostile.into());
        };
        let known = |overview: &mut Overview| {
            if let Probe::Known(source) = &mut overview.source {
                (source.database, source.error) = (Some(hostile.into()), Some(hostile.into()));
                (source.damage, source.passed_over) = (Some(hostile.into()), vec![hostile.into()]);
            }
            if let Probe::Known(collection) = &mut overview.collection {
                (collection.name, collection.status) = (hostile.into(), Some(hostile.into()));
            }
            if let Probe::Known(embedder) = &mut overview.embedder {
                embedder.model = hostile.into();
            }
        };
        for change in [&unknown as &dyn Fn(&mut Overview), &known] {
            let mut overview = healthy();
            change(&mut overview);
            for service in &mut overview.services {
                (service.service, service.ready) = (format!("{} {hostile}", service.service), false);
                service.reasons = vec![hostile.into()];
            }
            let overview = overview.judged(&samples::thresholds());
            for (width, height) in [(140, 50), (60, 30), (40, 10)] {
                let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
                terminal.draw(|frame| draw(frame, &overview, &History::default(), Paint(true))).unwrap();
                let unsafe_cell = terminal.backend().buffer().content().iter().find(|cell| {
                    cell.symbol().chars().any(|character| character.is_control() || character == '\u{202e}')
                });
                assert_eq!(unsafe_cell, None, "{hostile:?} at {width}x{height}");
            }
            assert!(drawn(&overview, 140, 50).contains("\\u{"), "{hostile:?}: {}", drawn(&overview, 140, 50));
        }
    }
}

#[test]
fn samples_use_the_default_thresholds() {
    let loaded = settings::load(&settings::Given::default()).expect("the defaults are valid");
    assert_eq!(loaded.settings.monitor.thresholds, samples::thresholds());
}

#[test]
fn action_is_shown_below_a_wrapped_verdict() {
    let error = "failed to inspect the server (Redis at 127.0.0.1:36171): Connection refused (os error 111)";
    let mut outage = healthy();
    outage.redis = Probe::Unknown(error.into());
    outage.stages = [Probe::Unknown(error.into()), Probe::Unknown(error.into())];
    let outage = outage.judged(&samples::thresholds());
    for width in 40..120 {
        let picture = drawn(&outage, width, 24);
        assert!(picture.contains("start Redis"), "{width}:\n{picture}");
    }
}
