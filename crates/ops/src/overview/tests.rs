use super::samples::{healthy, outage, syncing, thresholds};
use super::*;

fn codes(overview: &Overview) -> Vec<&'static str> {
    overview.problems.iter().map(|problem| problem.code).collect()
}

#[test]
fn problem_is_raised_above_its_threshold() {
    assert_eq!(codes(&healthy()), [""; 0]);
    assert_eq!(codes(&syncing()), ["stage-1-behind"]);
    let with = |change: &dyn Fn(&mut Overview)| {
        let mut overview = healthy();
        change(&mut overview);
        codes(&overview.judged(&thresholds()))
    };
    let stage = |number: usize, change: &dyn Fn(&mut StageOverview)| {
        codes(&healthy().with_stage(number, change).judged(&thresholds()))
    };
    for (number, limit, code) in [(1, 1_000, "stage-1-behind"), (2, 500, "stage-2-behind")] {
        assert!(stage(number, &|stage| stage.backlog = limit).is_empty());
        assert_eq!(stage(number, &|stage| stage.backlog = limit + 1), [code]);
    }
    let stuck = |seconds: f64| stage(1, &|stage| (stage.backlog, stage.stalled_seconds) = (7, seconds));
    assert_eq!(stuck(60.0), ["no-progress"]);
    assert!(stuck(59.0).is_empty());
    assert_eq!(stage(2, &|stage| (stage.backlog, stage.alive) = (1, 0)), ["no-consumer"]);
    assert_eq!(stage(1, &|stage| stage.status.dead_letters = 1), ["dead-letters"]);
    let source = |change: &dyn Fn(&mut Source)| {
        with(&|overview| {
            if let Probe::Known(source) = &mut overview.source {
                change(source);
            }
        })
    };
    assert_eq!(source(&|source| source.oplog_time_to_loss_seconds = Some(7_199)), ["oplog-window"]);
    assert!(source(&|source| source.oplog_time_to_loss_seconds = Some(7_200)).is_empty());
    assert!(source(&|source| source.oplog_time_to_loss_seconds = None).is_empty());
    assert_eq!(source(&|source| source.passed_over = vec!["orders".into()]), ["nothing-selected"]);
    assert_eq!(source(&|source| source.damage = Some("the stream is gone".into())), ["history-damaged"]);
    assert_eq!(source(&|source| source.error = Some("refused".into())), ["mongodb-unreachable"]);
    let memory = |percent: u64| {
        with(&|overview| {
            if let Probe::Known(redis) = &mut overview.redis {
                (redis.memory_bytes, redis.memory_limit_bytes) = (percent, Some(100));
            }
        })
    };
    assert_eq!(memory(80), ["redis-memory"]);
    assert!(memory(79).is_empty());
    let latency = |p95: f64| {
        with(&|overview| {
            overview.latency = Some(Latency { changes: 9, p50_seconds: 1.0, p95_seconds: p95, p99_seconds: p95 });
        })
    };
    assert_eq!(latency(30.5), ["latency"]);
    assert!(latency(30.0).is_empty());
    let audit = |stale| Some(Audit { seconds_ago: 60.0, missing: 0, stale, extra: 0, surplus: 0 });
    assert_eq!(with(&|overview| overview.audit = audit(1)), ["drift"]);
    assert!(with(&|overview| overview.audit = audit(0)).is_empty());
    assert_eq!(with(&|overview| overview.embedder = Probe::Unknown("refused".into())), ["embedder-unreachable"]);
    assert_eq!(with(&|overview| overview.redis = Probe::Unknown("refused".into())), ["redis-unreachable"]);
    assert_eq!(with(&|overview| overview.services.retain(|service| service.service != "producer")), [""; 0]);
    let without_producer = with(&|overview| {
        overview.services.retain(|service| service.service != "producer");
        if let Probe::Known(source) = &mut overview.source {
            source.checkpoint_age_seconds = None;
        }
    });
    assert_eq!(without_producer, ["no-producer"]);
    let red = with(&|overview| {
        if let Probe::Known(collection) = &mut overview.collection {
            collection.status = Some("red".into());
        }
    });
    assert_eq!(red, ["collection-unhealthy"]);
}

#[test]
fn worst_problem_comes_first_and_sets_the_verdict() {
    let outage = outage();
    assert_eq!(outage.verdict.state, SyncState::Stalled);
    assert_eq!((outage.verdict.stage, outage.problems[0].severity), (Some(2), Severity::Critical));
    assert!(outage.problems.is_sorted_by_key(|problem| problem.severity));
    let mut blind = healthy();
    blind.redis = Probe::Unknown("refused".into());
    blind.stages = [Probe::Unknown("refused".into()), Probe::Unknown("refused".into())];
    assert_eq!(blind.judged(&thresholds()).verdict.state, SyncState::Unknown);
}

#[test]
fn keys_of_a_newer_release_make_the_state_unknown_and_are_named() {
    let unsupported = "unsupported layout 2 of the keys in Redis";
    let mut newer = healthy();
    newer.stages = [Probe::Unknown(unsupported.into()), Probe::Unknown(unsupported.into())];
    newer.source = Probe::Unknown(unsupported.into());
    let newer = newer.judged(&thresholds());
    assert_eq!(newer.verdict.state, SyncState::Unknown);
    assert_eq!(newer.verdict.summary, format!("Sync state unknown: {unsupported}"));
    assert!(!newer.complete());
}

#[test]
fn audit_drift_makes_the_verdict_drifted() {
    let mut drifted = healthy();
    drifted.audit = Some(Audit { seconds_ago: 90.0, missing: 1_200, stale: 0, extra: 34, surplus: 0 });
    let drifted = drifted.judged(&thresholds());
    assert_eq!(drifted.verdict.state, SyncState::Drifted);
    assert_eq!(
        drifted.verdict.summary,
        "Drifted: the index differs from MongoDB in 1,234 documents, although all changes read are searchable"
    );
    assert!(drifted.problems[0].message.ends_with("found by the audit 2 min ago: 1,200 missing, 34 extra"));
    assert!(drifted.verdict.action.unwrap().contains("verify --repair"));
}

#[test]
fn parked_changes_explain_missing_and_stale_documents() {
    let with = |missing, extra| {
        let mut overview = healthy();
        if let Probe::Known(stage) = &mut overview.stages[0] {
            stage.status.dead_letters = 2;
        }
        overview.audit = Some(Audit { seconds_ago: 90.0, missing, stale: 1, extra, surplus: 0 });
        let overview = overview.judged(&thresholds());
        let drift = overview.problems.iter().find(|problem| problem.code == "drift").unwrap();
        (overview.verdict.state, overview.verdict.summary, drift.action.contains("dead letters first"))
    };
    let except = ", except 2 changes in the dead-letter queue";
    assert_eq!(with(1, 0), (SyncState::InSync, format!("In sync{except}"), true));
    let drifted = |documents| {
        format!(
            "Drifted: the index differs from MongoDB in {documents}, although all changes read are searchable{except}"
        )
    };
    assert_eq!(with(2, 0), (SyncState::Drifted, drifted("1 document"), false));
    assert_eq!(with(1, 5), (SyncState::Drifted, drifted("5 documents"), false));
}

#[test]
fn unreachable_server_is_an_error_in_json() {
    let json = serde_json::to_value(outage()).unwrap();
    assert_eq!(json["verdict"]["state"], "stalled");
    assert_eq!(json["stages"][1]["stream"], "embedded_documents");
    assert_eq!(json["stages"][1]["pending"], 1_024);
    assert!(json["collection"]["error"].as_str().unwrap().contains("connection refused"));
    assert_eq!(json["problems"][0]["severity"], "critical");
}

#[test]
fn backlog_of_unknown_rate_is_not_reported_as_growing() {
    let first = syncing().with_stage(1, |stage| (stage.in_per_second, stage.eta_seconds) = (None, None));
    let first = first.with_stage(2, |stage| stage.out_per_second = None).judged(&thresholds());
    assert_eq!(first.verdict.state, SyncState::Syncing);
    assert!(!first.verdict.summary.contains("shrinking"), "{}", first.verdict.summary);
}

#[test]
fn missed_changes_are_not_reported_as_safe() {
    let mut outage = outage();
    if let Probe::Known(source) = &mut outage.source {
        source.damage = Some("entries of raw_document_changes were deleted".into());
    }
    assert!(!outage.judged(&thresholds()).verdict.summary.contains("No data lost"));
}
