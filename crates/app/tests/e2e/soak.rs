//! One minute of the chaos soak with a fixed seed, and half a minute of it with declared indexes. `tidewheel-soak` runs both
//! for any duration.
#![allow(clippy::print_stdout, reason = "the report is useful even if the test passes")]

use std::sync::Arc;
use std::time::Duration;

use tidewheel_engine::hash::HashEngine;
use tidewheel_engine::{Engine as _, Text};
use tidewheel_testkit::soak::{self, SoakOptions, SoakReport};

use super::world::BINARY;

#[tokio::test(flavor = "multi_thread")]
async fn pipeline_converges_after_a_minute_of_chaos() {
    let report = converged(|options| SoakOptions { duration: Duration::from_secs(60), ..options }).await;
    assert!(report.faults_in_all() >= 20, "only {} faults", report.faults_in_all());
    assert!(report.operations_in_all() >= 500, "only {} writes", report.operations_in_all());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes; runs every night"]
async fn declared_indexes_converge_after_half_a_minute_of_chaos_and_changes() {
    let report = converged(|options| SoakOptions {
        duration: Duration::from_secs(30),
        patience: SoakOptions::PATIENCE_WITH_INDEXES,
        indexes: true,
        ..options
    });
    let report = report.await;
    assert!(report.faults_in_all() >= 10, "only {} faults", report.faults_in_all());
    assert!(report.operations_in_all() >= 250, "only {} writes", report.operations_in_all());
    assert!(report.changes_in_all() >= 1, "no change of a declaration was confirmed");
}

/// Runs the soak with a fixed seed, and fails unless it converges.
async fn converged(change: impl FnOnce(SoakOptions) -> SoakOptions) -> SoakReport {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let options = change(SoakOptions {
        embed: Some(Arc::new(|dimension, text| {
            let engine = HashEngine::new(dimension);
            let mut vector = vec![0.0; dimension];
            engine.embed_one(Text::plain(&engine.tokenize(text).ids), &mut vector);
            vector
        })),
        progress: Arc::new(|line| println!("{line}")),
        ..SoakOptions::new(1, BINARY, dir.path())
    });
    let report = soak::run(options).await.expect("the soak can be run");
    println!("{report}");
    if !report.converged {
        panic!("the soak failed; its logs are kept in {}", dir.keep().display());
    }
    report
}
