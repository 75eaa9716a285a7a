//! One minute of the chaos soak with a fixed seed. `tidewheel-soak` runs it for any duration.
#![allow(clippy::print_stdout, reason = "the report is useful even if the test passes")]

use std::sync::Arc;
use std::time::Duration;

use tidewheel_engine::hash::HashEngine;
use tidewheel_engine::{Engine as _, Text};
use tidewheel_testkit::soak::{self, SoakOptions};

use super::world::BINARY;

#[tokio::test(flavor = "multi_thread")]
async fn pipeline_converges_after_a_minute_of_chaos() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let engine = HashEngine::new(SoakOptions::DIMENSION);
    let options = SoakOptions {
        duration: Duration::from_secs(60),
        embed: Some(Arc::new(move |text| {
            let mut vector = vec![0.0; SoakOptions::DIMENSION];
            engine.embed_one(Text::plain(&engine.tokenize(text).ids), &mut vector);
            vector
        })),
        progress: Arc::new(|line| println!("{line}")),
        ..SoakOptions::new(1, BINARY, dir.path())
    };
    let report = soak::run(options).await.expect("the soak can be run");
    println!("{report}");
    if !report.converged {
        panic!("the soak failed; its logs are kept in {}", dir.keep().display());
    }
    assert!(report.faults_in_all() >= 20, "only {} faults", report.faults_in_all());
    assert!(report.operations_in_all() >= 500, "only {} writes", report.operations_in_all());
}
