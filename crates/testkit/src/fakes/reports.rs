//! The reports of processes, in memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tidewheel_core::ports::{PortResult, PublishedReport, ReportReader};
use tokio::time::Instant;

use super::faults::Faults;

/// The latest report of each process, as text. Clones share the state.
#[derive(Clone, Debug, Default)]
pub struct FakeReports {
    texts: Arc<Mutex<BTreeMap<String, (String, Instant)>>>,
    faults: Faults,
}

impl FakeReports {
    /// The faults of its calls, named like the port's methods.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// Replaces the report of a process; an empty text removes it.
    ///
    /// # Panics
    /// If another thread panicked within a call.
    pub fn publish(&self, process: &str, text: &str) {
        let mut texts = self.texts.lock().expect("no holder panics");
        if text.is_empty() {
            texts.remove(process);
        } else {
            texts.insert(process.to_owned(), (text.to_owned(), Instant::now()));
        }
    }
}

#[async_trait]
impl ReportReader for FakeReports {
    async fn reports(&self) -> PortResult<Vec<PublishedReport>> {
        let reports = || {
            let texts = self.texts.lock().expect("no holder panics");
            let decoded = |(process, (text, at)): (&String, &(String, Instant))| {
                let age_ms = u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX);
                let report = serde_json::from_str(text).ok()?;
                Some(PublishedReport { process: process.clone(), age_ms, report })
            };
            Ok(texts.iter().filter_map(decoded).collect())
        };
        self.faults.around("reports", reports).await
    }
}
