//! The duration of an audit, against a raw scan of source and index.
//!
//! ```text
//! target/release/tidewheel-bench verify
//! ```
//!
//! The pipeline fills the index. Then each round reads source and index as the audit does, documents in `_id` order and
//! points in id order, without a comparison; audits by digest only; and audits every field. The raw scan reads both
//! concurrently, as the audit does. Medians are printed.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use clap::Args;
use tidewheel_core::catalog::Selector;
use tidewheel_core::payload::STAMP;
use tidewheel_core::ports::{Covered, IndexReader};
use tidewheel_core::secret::Secret;
use tidewheel_pipeline::audit::{AuditOptions, AuditPorts, audit};
use tidewheel_pipeline::upserter::PayloadOptions;
use tidewheel_stores::mongo::{MongoOptions, MongoSource};
use tidewheel_stores::qdrant::{QdrantIndex, QdrantOptions};
use tidewheel_stores::redis::{RedisOptions, RedisStore};

use crate::load::{throughput, warm_up};
use crate::report::median;
use crate::servers::{DATABASE, INDEX, Servers};
use crate::side::Side;

/// Points per page, as in the audit.
const PAGE: usize = 1_000;

/// Measures `tidewheel verify`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Documents to compare
    #[arg(long, default_value_t = 100_000)]
    documents: usize,
    /// Vector dimension
    #[arg(long, default_value_t = 384)]
    pub dimension: usize,
    /// Rounds
    #[arg(long, default_value_t = 3)]
    rounds: usize,
}

/// Fills the index and measures.
pub async fn run(servers: &Servers, pipeline: &Side, dir: &Path, arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    servers.clear().await?;
    let services = pipeline.start(dir, |_| true)?;
    warm_up(servers, pipeline).await?;
    throughput(servers, arguments.documents).await?;
    let options = MongoOptions::of_database(Secret::new(&servers.mongodb_uri), DATABASE, &[]);
    let selector = Selector::of_database::<&str>(DATABASE, &[]);
    let ports = AuditPorts {
        source: Covered::by(Arc::new(MongoSource::connect(options).await?), selector),
        index: Arc::new(QdrantIndex::connect(QdrantOptions::new(&servers.qdrant_grpc_url, INDEX))?),
        journal: Arc::new(RedisStore::connect(&RedisOptions::new(&servers.redis_url)).await?),
        position: None,
        repair: None,
    };
    let quick = AuditOptions::default();
    let whole = AuditOptions { payload: Some(PayloadOptions::default()), ..AuditOptions::default() };
    let mut seconds: [Vec<f64>; 3] = Default::default();
    for round in 1..=arguments.rounds {
        let begun = Instant::now();
        tokio::try_join!(read_source(&ports.source), read_index(&*ports.index))?;
        seconds[0].push(begun.elapsed().as_secs_f64());
        for (options, seconds) in [&quick, &whole].into_iter().zip(&mut seconds[1..]) {
            let found = audit(&ports, options, &(Arc::new(|_| {}) as _)).await?;
            if found.drift() + found.unsettled > 0 || found.documents < arguments.documents as u64 {
                return Err(format!("the index differs from the source: {found:?}").into());
            }
            seconds.push(found.seconds);
        }
        println!(
            "round {round}: {:.2} s raw scan, {:.2} s by digest, {:.2} s every field",
            last(&seconds[0]),
            last(&seconds[1]),
            last(&seconds[2])
        );
    }
    drop(services);
    let raw = median(seconds[0].clone());
    println!("\n{} documents, {} dimensions, {} rounds", arguments.documents, arguments.dimension, arguments.rounds);
    println!("{:28}{:>10}{:>14}{:>16}", "", "seconds", "documents/s", "vs. raw scan");
    for (name, seconds) in
        ["raw scan of both sides", "verify --quick (digest)", "verify (every field)"].iter().zip(&seconds)
    {
        let median = median(seconds.clone());
        println!("{name:28}{median:>10.2}{:>14.0}{:>16.2}", arguments.documents as f64 / median, median / raw);
    }
    Ok(())
}

fn last(seconds: &[f64]) -> f64 {
    seconds.last().copied().unwrap_or(f64::NAN)
}

async fn read_source(source: &Covered) -> Result<(), Box<dyn Error>> {
    for namespace in source.collections().await? {
        let mut scan = source.scan(&namespace, None, source.now().await?, None).await?;
        while !scan.next().await?.is_empty() {}
    }
    Ok(())
}

async fn read_index(index: &dyn IndexReader) -> Result<(), Box<dyn Error>> {
    let mut after = None;
    loop {
        let page = index.page(after, PAGE, STAMP).await?;
        let Some(last) = page.last() else { return Ok(()) };
        after = Some(last.id);
    }
}
