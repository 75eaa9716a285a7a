//! `tidewheel status`: the streams, the collection and the embedder as they are now.

use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;
use tidewheel_core::ports::{Index as _, PortResult, StageStatus};
use tidewheel_core::streams::{STAGE_1, STAGE_2, Stage};
use tidewheel_stores::redis::RedisStore;

use crate::cli::{Output, StatusArgs};
use crate::connect;
use crate::exit::{Answer, Failure};
use crate::printer::{self, BAD, DIM, GOOD, STRONG, WARN, styled};
use crate::settings::{Settings, redact_address};

/// How long a server may take to answer before it counts as unreachable.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often `--watch` looks.
const AGAIN: Duration = Duration::from_secs(1);

/// Clears the terminal and goes to its top left corner (ECMA-48: ED 2, CUP).
const CLEAR: &str = "\x1b[2J\x1b[H";

/// Prints the status once, or again and again.
pub(crate) async fn run(args: &StatusArgs, settings: &Settings) -> Result<Answer, Failure> {
    loop {
        let status = Status::gather(settings).await;
        match args.output.output {
            Output::Json => printer::json(&status),
            Output::Text if args.watch && printer::shows_a_person() => {
                printer::raw(&format!("{CLEAR}{}", status.text()));
            }
            Output::Text => printer::raw(&status.text()),
        }
        if !args.watch {
            return Ok(if status.complete() { Answer::Fine } else { Answer::Unknown });
        }
        tokio::select! {
            () = tokio::time::sleep(AGAIN) => {}
            () = crate::services::a_signal() => return Ok(Answer::Fine),
        }
    }
}

/// Something that was asked, and what it said.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Told<T> {
    Known(T),
    Unknown { error: String },
}

#[derive(Debug, Serialize)]
struct Status {
    stages: Vec<Told<StageStatus>>,
    collection: Told<CollectionStatus>,
    embedder: Told<EmbedderStatus>,
}

#[derive(Debug, Serialize)]
struct CollectionStatus {
    url: String,
    name: String,
    exists: bool,
    status: Option<String>,
    points: Option<u64>,
    dimension: Option<u64>,
}

#[derive(Debug, Serialize)]
struct EmbedderStatus {
    url: String,
    model: String,
    dimension: usize,
    max_tokens: usize,
}

impl Status {
    async fn gather(settings: &Settings) -> Self {
        let (one, two, collection, embedder) = tokio::join!(
            told(stage(settings, STAGE_1)),
            told(stage(settings, STAGE_2)),
            told(collection(settings)),
            told(embedder(settings)),
        );
        Self { stages: vec![one, two], collection, embedder }
    }

    fn complete(&self) -> bool {
        let stages = self.stages.iter().all(|stage| matches!(stage, Told::Known(_)));
        stages && matches!(self.collection, Told::Known(_)) && matches!(self.embedder, Told::Known(_))
    }

    fn text(&self) -> String {
        let mut text = String::new();
        let head = format!(
            "{:<22} {:>9} {:>9} {:>9} {:>9} {:>6} {:>10}",
            "stream", "entries", "lag", "pending", "oldest", "dead", "consumers"
        );
        let _ = writeln!(text, "{}", styled(STRONG, head));
        for stage in &self.stages {
            let _ = match stage {
                Told::Known(stage) => writeln!(text, "{}", stage_line(stage)),
                Told::Unknown { error } => writeln!(text, "{}", styled(BAD, error)),
            };
        }
        let _ = match &self.collection {
            Told::Known(collection) => writeln!(text, "\n{}", collection_line(collection)),
            Told::Unknown { error } => writeln!(text, "\n{} {}", styled(STRONG, "collection"), styled(BAD, error)),
        };
        let _ = match &self.embedder {
            Told::Known(embedder) => writeln!(
                text,
                "{}   {}  {} dimensions, {} tokens  {}",
                styled(STRONG, "embedder"),
                embedder.model,
                embedder.dimension,
                embedder.max_tokens,
                styled(DIM, &embedder.url)
            ),
            Told::Unknown { error } => writeln!(text, "{}   {}", styled(STRONG, "embedder"), styled(BAD, error)),
        };
        text
    }
}

fn stage_line(stage: &StageStatus) -> String {
    let lag = stage.lag.map_or_else(|| "?".into(), |lag| lag.to_string());
    let oldest = stage.oldest_age_ms.map_or_else(|| "-".into(), age);
    let dead = format!("{:>6}", stage.dead_letters);
    let dead = if stage.dead_letters > 0 { styled(WARN, dead) } else { dead };
    format!(
        "{:<22} {:>9} {lag:>9} {:>9} {oldest:>9} {dead} {:>10}",
        stage.stream,
        stage.length,
        stage.pending,
        stage.consumers.len()
    )
}

fn collection_line(collection: &CollectionStatus) -> String {
    let facts = match (&collection.status, collection.points) {
        (Some(status), Some(points)) => {
            let style = if status == "red" { BAD } else { GOOD };
            let dimension = collection.dimension.map_or_else(|| "?".into(), |dimension| dimension.to_string());
            format!("{points} points, {dimension} dimensions, {}", styled(style, status))
        }
        _ => "not there yet; the upserter creates it with the first document".into(),
    };
    format!("{} {}  {facts}  {}", styled(STRONG, "collection"), collection.name, styled(DIM, &collection.url))
}

/// Two digits are enough to see whether something is stuck.
fn age(millis: u64) -> String {
    match millis {
        0..=999 => format!("{millis} ms"),
        1_000..=59_999 => format!("{:.1} s", millis as f64 / 1e3),
        60_000..=3_599_999 => format!("{:.1} min", millis as f64 / 6e4),
        _ => format!("{:.1} h", millis as f64 / 3.6e6),
    }
}

async fn told<T>(answer: impl Future<Output = PortResult<T>>) -> Told<T> {
    match tokio::time::timeout(PATIENCE, answer).await {
        Ok(Ok(answer)) => Told::Known(answer),
        Ok(Err(error)) => Told::Unknown { error: error.message },
        Err(_) => Told::Unknown { error: format!("no answer within {} s", PATIENCE.as_secs()) },
    }
}

async fn stage(settings: &Settings, stage: Stage) -> PortResult<StageStatus> {
    let redis: RedisStore = connect::redis(settings)?;
    redis.status(stage).await
}

async fn collection(settings: &Settings) -> PortResult<CollectionStatus> {
    let index = connect::index(settings)?;
    let facts = index.inspect().await?.collection;
    Ok(CollectionStatus {
        url: redact_address(settings.qdrant.url.reveal()),
        name: settings.qdrant.collection.clone(),
        exists: facts.is_some(),
        // The collection's own number is an estimate.
        points: index.count().await?,
        dimension: facts.as_ref().and_then(|facts| facts.dimension),
        status: facts.map(|facts| facts.status),
    })
}

async fn embedder(settings: &Settings) -> PortResult<EmbedderStatus> {
    let info = connect::embedder(settings, Some(PATIENCE))?.info().await?;
    Ok(EmbedderStatus {
        url: redact_address(connect::embedder_url(settings)),
        model: info.model,
        dimension: info.dimension,
        max_tokens: info.max_tokens,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unknown<T>() -> Told<T> {
        Told::Unknown { error: "could not reach it".into() }
    }

    #[test]
    fn what_cannot_be_told_is_said() {
        let stage = StageStatus {
            stream: "raw_document_changes".into(),
            group: "embedding_processors".into(),
            length: 7,
            lag: None,
            pending: 2,
            oldest_age_ms: Some(90_000),
            dead_letters: 1,
            consumers: Vec::new(),
        };
        let status = Status { stages: vec![Told::Known(stage), unknown()], collection: unknown(), embedder: unknown() };
        assert!(!status.complete());
        let text = anstream::adapter::strip_str(&status.text()).to_string();
        assert!(
            text.contains("raw_document_changes           7         ?         2   1.5 min      1          0"),
            "{text}"
        );
        assert!(text.contains("embedder   could not reach it"), "{text}");
        let json = serde_json::to_value(&status).unwrap();
        assert_eq!(json["stages"][0]["pending"], 2);
        assert_eq!(json["collection"]["error"], "could not reach it");
    }
}
