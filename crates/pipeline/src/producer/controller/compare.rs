//! Compares a new generation with the source before the alias moves to it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tidewheel_core::catalog::{Compared, TargetId};
use tidewheel_core::error::PortError;
use tidewheel_core::identity::Namespace;
use tidewheel_core::ports::{FoundEntry, PortResult};
use tidewheel_core::stage::Stage;
use tidewheel_core::time::now_ms;
use tracing::info;

use super::steps::Outcome;
use super::tools::Tools;
use crate::audit::{AuditOptions, AuditPorts, Difference, Found, audit};

/// The pause after each page of a thousand, for the requests of other clients.
const PAUSE: Duration = Duration::from_millis(10);

/// Documents looked for in the dead letters at once.
const AT_ONCE: usize = 100;

/// Compares all documents of a target with the source, from where an interrupted comparison has stopped.
pub(super) async fn compare(tools: &Tools, target: &TargetId) -> PortResult<Outcome> {
    let applied = tools.targets.reload().await?;
    let Some(target) = applied.target(Some(target)) else {
        return Err(PortError::transient(format!("nothing is routed to {target}")));
    };
    let ports = AuditPorts::of(target, tools.source.clone(), tools.journal.clone());
    let options = AuditOptions { pause: PAUSE, resumes: true, ..AuditOptions::of(target, applied.revision())? };
    let found = audit(&ports, &options, &(Arc::new(|_| {}) as _)).await?;
    let (index, generation) = (&target.id.index, target.id.generation);
    if !found.settled {
        // Changes in flight would count as drift.
        info!(%index, generation, "comparison inconclusive: the pipeline is lagging");
        return Ok(Outcome::Inconclusive);
    }
    let compared = Compared {
        documents: found.documents,
        drift: found.drift(),
        unexplained: unexplained(tools, &target.id, &found).await?,
        at_ms: now_ms(),
        revision: tools.catalog.store.revision().await?,
    };
    let Compared { documents, drift, unexplained, .. } = compared;
    info!(%index, generation, documents, drift, unexplained, "compared the generation with the source");
    Ok(Outcome::Compared(compared))
}

/// The number of documents that differ and have no dead letter. Those that are not named have none.
async fn unexplained(tools: &Tools, target: &TargetId, found: &Found) -> PortResult<u64> {
    let named: BTreeSet<(Namespace, String)> = found.differences.iter().filter_map(document).collect();
    let named: Vec<(Namespace, String)> = named.into_iter().collect();
    let mut explained = BTreeSet::new();
    for documents in named.chunks(AT_ONCE) {
        for stage in Stage::ALL {
            let letters = tools.control.letters.letters_of(stage, documents, u64::MAX).await?;
            let of_target = letters.entries.into_iter().filter(|letter| concerns(letter, target));
            explained.extend(of_target.map(|letter| (letter.namespace, letter.key)));
        }
    }
    let is_explained =
        |(namespace, key): &&(Namespace, String)| explained.contains(&(namespace.as_str().to_owned(), key.clone()));
    let explained = named.iter().filter(is_explained).count();
    Ok(found.drift().saturating_sub(explained as u64))
}

fn document(difference: &Difference) -> Option<(Namespace, String)> {
    Some((Namespace::parse(&difference.namespace)?, difference.key.clone()))
}

/// Whether the change of a dead letter is missing in this target.
fn concerns(letter: &FoundEntry, target: &TargetId) -> bool {
    match &letter.change {
        // What cannot be decoded is missing everywhere.
        Err(_) => true,
        Ok(change) => change
            .route
            .stamp()
            .is_some_and(|stamp| stamp.targets.iter().chain(&stamp.leaves).any(|concerned| concerned == target)),
    }
}
