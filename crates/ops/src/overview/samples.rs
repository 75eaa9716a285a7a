//! Sample overviews for tests.

use std::time::Duration;

use tidewheel_core::catalog::{IndexName, State};
use tidewheel_core::ports::{ConsumerStatus, StageStatus};
use tidewheel_core::stage::Stage;

use super::{
    Audit, Collection, Declared, Embedder, GenerationOverview, IndexOverview, Latency, Operation, Overview, Probe,
    Redis, Service, ServingOverview, Snapshot, Source, StageOverview, SyncState, SyncVerdict, Thresholds, Tokens,
};
use crate::indexes::Step;

/// The default thresholds.
pub fn thresholds() -> Thresholds {
    Thresholds {
        stage_1: 1_000,
        stage_2: 500,
        no_progress: Duration::from_secs(60),
        latency: Duration::from_secs(30),
        oplog_time_left: Duration::from_secs(7_200),
        redis_memory_percent: 80,
        dead_letters: 0,
    }
}

impl Overview {
    /// Modifies stage 1 or 2.
    pub fn with_stage(mut self, number: usize, change: impl FnOnce(&mut StageOverview)) -> Self {
        if let Probe::Known(stage) = &mut self.stages[number - 1] {
            change(stage);
        }
        self
    }
}

fn stage(of: Stage) -> StageOverview {
    let group = match of {
        Stage::Raw => "embedding_processors",
        Stage::Embedded => "qdrant_upserters",
    };
    StageOverview {
        status: StageStatus {
            stream: of.name().into(),
            group: group.into(),
            length: 10_000,
            appended: 1_234_567,
            lag: Some(0),
            pending: 0,
            oldest_age_ms: None,
            dead_letters: 0,
            consumers: vec![ConsumerStatus { name: "one".into(), pending: 0, idle_ms: 20 }],
        },
        backlog: 0,
        in_per_second: Some(12.0),
        out_per_second: Some(12.0),
        eta_seconds: Some(0.0),
        stalled_seconds: 0.0,
        alive: 1,
    }
}

/// All services running, no backlog.
pub fn healthy() -> Overview {
    let service = |name: &str| Service {
        service: name.into(),
        process: "host-42-abcdef12".into(),
        operations: Some("127.0.0.1:9090".into()),
        up_seconds: 3_600.0,
        silent_seconds: 1.0,
        ready: true,
        reasons: Vec::new(),
        foreign_version: None,
    };
    let overview = Overview {
        at_ms: 1_700_000_000_000,
        verdict: SyncVerdict {
            state: SyncState::Unknown,
            summary: String::new(),
            action: None,
            stage: None,
            eta_seconds: None,
        },
        problems: Vec::new(),
        stages: [Probe::Known(stage(Stage::Raw)), Probe::Known(stage(Stage::Embedded))],
        source: Probe::Known(Source {
            database: Some("shop".into()),
            error: None,
            oplog_window_seconds: Some(172_800),
            oplog_time_to_loss_seconds: Some(172_800),
            read_until: Some(1_700_000_000),
            searchable_until: Some(1_700_000_000),
            checkpoint_age_seconds: Some(1.4),
            snapshot: Some(Snapshot {
                state: "done",
                rows: 84_210,
                of: None,
                rows_per_second: None,
                eta_seconds: None,
                scope: Vec::new(),
            }),
            damage: None,
            passed_over: Vec::new(),
        }),
        redis: Probe::Known(Redis {
            address: "127.0.0.1:6379".into(),
            version: "7.0.15".into(),
            memory_bytes: 64 << 20,
            memory_limit_bytes: Some(512 << 20),
        }),
        collection: Probe::Known(Collection {
            url: "http://127.0.0.1:6334".into(),
            name: "documents".into(),
            version: "1.16.0".into(),
            exists: true,
            status: Some("green".into()),
            points: Some(91_337),
            indexed_vectors: Some(91_337),
            dimension: Some(384),
        }),
        embedder: Probe::Known(Embedder {
            url: "http://127.0.0.1:8080".into(),
            model: "all-MiniLM-L6-v2".into(),
            dimension: 384,
            max_tokens: 254,
            tokens_per_second: Some(1_830.0),
            queued_tokens: Some(0),
            tokens: Some(9_876_543),
        }),
        latency: Some(Latency { changes: 720, p50_seconds: 0.08, p95_seconds: 0.21, p99_seconds: 0.4 }),
        audit: Some(Audit { seconds_ago: 7_200.0, missing: 0, stale: 0, extra: 0, surplus: 0 }),
        tokens: Some(Tokens { embedded: 9_876_543, saved: 123_456 }),
        services: ["embedder", "processor", "producer", "upserter"].map(service).into(),
        indexes: vec![index("documents", &[generation(1, State::Serving, "documents", 91_337)])],
    };
    overview.judged(&thresholds())
}

/// An index whose serving generation is among these.
pub fn index(name: &str, generations: &[GenerationOverview]) -> IndexOverview {
    let serving = generations.iter().find(|generation| generation.state == State::Serving);
    IndexOverview {
        name: IndexName::of_collection(name),
        state: SyncState::InSync,
        serving: serving
            .map(|serving| ServingOverview { generation: serving.number, collection: serving.collection.clone() }),
        generations: generations.to_vec(),
        operation: None,
        declared: Declared::Applied,
        points: serving.and_then(|serving| serving.points),
        drift: Some(Audit { seconds_ago: 7_200.0, missing: 0, stale: 0, extra: 0, surplus: 0 }),
        dead_letters: Some(0),
        latency: Some(Latency { changes: 720, p50_seconds: 0.08, p95_seconds: 0.21, p99_seconds: 0.4 }),
        alias_moved: None,
        embedding_missing: None,
    }
}

/// A generation that is filled.
pub fn generation(number: u32, state: State, collection: &str, points: u64) -> GenerationOverview {
    GenerationOverview {
        number,
        state,
        collection: collection.to_owned(),
        status: Some("green".into()),
        points: Some(points),
        documents: None,
        filled: true,
        problem: None,
        lost: None,
        until_ms: None,
    }
}

/// Three declared indexes: one is being moved to a new generation, another one is new.
pub fn declared() -> Overview {
    let mut overview = healthy();
    let mut tickets = index(
        "tickets",
        &[
            generation(2, State::Kept, "tickets.g2", 1_200_000),
            generation(3, State::Serving, "tickets.g3", 1_204_311),
            GenerationOverview { filled: false, ..generation(4, State::Filling, "tickets.g4", 412_000) },
        ],
    );
    tickets.generations[0].until_ms = Some(1_700_000_000_000 + 3_600_000);
    tickets.operation = Some(Operation {
        generation: 4,
        step: Step::Filling,
        rows: Some(412_000),
        of: Some(1_204_311),
        rows_per_second: Some(3_100.0),
        eta_seconds: Some(255.0),
        stalled_seconds: 0.0,
        problem: None,
    });
    let mut users =
        index("users", &[GenerationOverview { filled: false, ..generation(1, State::Serving, "users.g1", 0) }]);
    users.operation = Some(Operation {
        generation: 1,
        step: Step::Queued,
        rows: None,
        of: None,
        rows_per_second: None,
        eta_seconds: None,
        stalled_seconds: 30.0,
        problem: None,
    });
    (users.drift, users.latency) = (None, None);
    let articles = index("articles", &[generation(1, State::Serving, "articles.g1", 8_120)]);
    if let Probe::Known(collection) = &mut overview.collection {
        (collection.name, collection.points) = ("articles".into(), Some(8_120));
    }
    if let Probe::Known(source) = &mut overview.source {
        source.snapshot = Some(Snapshot {
            state: "running",
            rows: 412_000,
            of: Some(1_204_311),
            rows_per_second: Some(3_100.0),
            eta_seconds: Some(255.0),
            scope: vec![IndexName::of_collection("tickets").target(4)],
        });
    }
    overview.indexes = vec![articles, tickets, users];
    overview.judged(&thresholds())
}

/// Stage 1 has a shrinking backlog.
pub fn syncing() -> Overview {
    let behind = healthy().with_stage(1, |stage| {
        stage.backlog = 12_345;
        stage.status.lag = Some(11_833);
        stage.status.pending = 512;
        stage.status.length = 20_000;
        stage.status.oldest_age_ms = Some(173_000);
        stage.in_per_second = Some(10.0);
        stage.out_per_second = Some(81.0);
        stage.eta_seconds = Some(173.9);
    });
    behind.with_stage(2, |stage| stage.out_per_second = Some(81.0)).judged(&thresholds())
}

/// Qdrant is unreachable: stage 2 grows, and its upserters report why.
pub fn outage() -> Overview {
    let mut outage = healthy().with_stage(2, |stage| {
        stage.backlog = 3_210;
        stage.status.lag = Some(2_186);
        stage.status.pending = 1_024;
        stage.status.oldest_age_ms = Some(95_000);
        stage.out_per_second = Some(0.0);
        stage.in_per_second = Some(34.0);
        stage.eta_seconds = None;
        stage.stalled_seconds = 95.0;
        stage.status.dead_letters = 2;
    });
    outage.collection = Probe::Unknown("could not reach Qdrant at http://127.0.0.1:6334: connection refused".into());
    for service in outage.services.iter_mut().filter(|service| service.service == "upserter") {
        service.ready = false;
        service.reasons = vec!["failing to write to Qdrant for 95 s: connection refused".into()];
    }
    outage.judged(&thresholds())
}

/// Redis is running, no service was ever started.
pub fn empty() -> Overview {
    let mut empty = healthy();
    for number in [1, 2] {
        empty = empty.with_stage(number, |stage| {
            (stage.status.length, stage.status.appended, stage.alive) = (0, 0, 0);
            stage.status.consumers.clear();
            (stage.in_per_second, stage.out_per_second) = (None, None);
        });
    }
    if let Probe::Known(source) = &mut empty.source {
        (source.read_until, source.searchable_until, source.snapshot) = (None, None, None);
        (source.checkpoint_age_seconds, source.oplog_time_to_loss_seconds) = (None, None);
    }
    if let Probe::Known(collection) = &mut empty.collection {
        (collection.exists, collection.status, collection.points, collection.dimension) = (false, None, None, None);
    }
    (empty.latency, empty.audit, empty.tokens) = (None, None, None);
    empty.services.clear();
    for index in &mut empty.indexes {
        (index.points, index.drift, index.latency) = (Some(0), None, None);
    }
    empty.judged(&thresholds())
}
