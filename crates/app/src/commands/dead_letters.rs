//! `tidewheel dead-letters`: lists, shows, retries and deletes dead letters.

mod progress;

use serde::Serialize;
use serde_json::Value;
use tidewheel_core::catalog::IndexName;
use tidewheel_ops::dead_letters::{
    self as letters, Filter, LetterView, Listing, NAMED, OfIndex, Outcome, Plan, RecordView,
};
use tidewheel_ops::text::thousands;
use tidewheel_stores::redis::RedisStore;
use tidewheel_telemetry::escape;

use self::progress::Shown;
use crate::audit_log::Actor;
use crate::cli::{DeadLettersCommand, LettersActArgs, LettersListArgs, LettersShowArgs, Output};
use crate::compose::{self, LettersAction};
use crate::confirm::{agreed, may_ask};
use crate::exit::{Answer, Failure};
use crate::printer::{self, BAD, DIM, GOOD, STRONG, WARN, styled};
use crate::settings::Settings;
use crate::{connect, times};

/// Dead letters of a plan to print.
const SHOWN: usize = 10;

/// Width of the document column.
const DOCUMENT: usize = 32;

/// Width of all columns except the reason.
const COLUMNS: usize = 10 + 19 + 9 + 10 + DOCUMENT + 1;

/// Minimum width of the reason column; on a narrower terminal the reason is printed below.
const REASON: usize = 40;

/// Runs a subcommand of `dead-letters`.
pub(crate) async fn run(command: &DeadLettersCommand, settings: &Settings) -> Result<Answer, Failure> {
    let redis = connect::redis(settings)?;
    match command {
        DeadLettersCommand::List(args) => list(settings, &redis, args).await,
        DeadLettersCommand::Show(args) => show(settings, &redis, args).await,
        DeadLettersCommand::Retry(args) => retry(settings, &redis, args).await,
        DeadLettersCommand::Drop(args) => drop(settings, &redis, args).await,
    }
}

/// Selects an index of the catalog.
async fn of_index(
    settings: &Settings,
    redis: &RedisStore,
    index: Option<&IndexName>,
) -> Result<Option<OfIndex>, Failure> {
    let Some(name) = index else { return Ok(None) };
    let catalog = compose::catalog(settings, redis).read().await?;
    Ok(Some(OfIndex::new(&catalog, name)?))
}

async fn list(settings: &Settings, redis: &RedisStore, args: &LettersListArgs) -> Result<Answer, Failure> {
    let limit = usize::try_from(args.limit).unwrap_or(usize::MAX);
    let filter = args.filter.of(of_index(settings, redis, args.filter.index.as_ref()).await?);
    let listing = letters::list(redis, &filter, limit, false).await?;
    match args.output.output {
        Output::Json => printer::json(&listing),
        Output::Text if listing.matching == 0 && args.filter.is_empty() => printer::message("no dead letters"),
        Output::Text if listing.matching == 0 => printer::message("no matching dead letters"),
        Output::Text => table(&listing),
    }
    Ok(Answer::Fine)
}

async fn show(settings: &Settings, redis: &RedisStore, args: &LettersShowArgs) -> Result<Answer, Failure> {
    let index = of_index(settings, redis, args.index.as_ref()).await?;
    let (stage, ids) = (args.stage.map(Into::into), vec![args.id.clone()]);
    let filter = Filter { stage, index, ids, ..Filter::default() };
    let listing = letters::list(redis, &filter, SHOWN, true).await?;
    match args.output.output {
        Output::Json => printer::json(&listing.letters),
        Output::Text => {
            for letter in &listing.letters {
                whole(letter);
            }
        }
    }
    if listing.matching == 0 {
        printer::message(format_args!("no dead letter with id {0} or document _id {0}", args.id));
        return Ok(Answer::No);
    }
    Ok(Answer::Fine)
}

/// A plan and its outcome.
#[derive(Serialize)]
struct Acted<'a> {
    #[serde(flatten)]
    listing: &'a Listing,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<Outcome>,
}

/// Plans an action. JSON lists every dead letter; text shows the first ones, and the audit log names some more.
async fn planned(settings: &Settings, redis: &RedisStore, args: &LettersActArgs) -> Result<Plan, Failure> {
    let limit = match args.output.output {
        Output::Json => usize::MAX,
        Output::Text => NAMED.max(SHOWN),
    };
    let filter = args.filter.of(of_index(settings, redis, args.filter.index.as_ref()).await?);
    Ok(letters::plan(redis, &filter, limit).await?)
}

/// Records and applies a plan.
async fn apply(
    settings: &Settings,
    redis: &RedisStore,
    action: LettersAction,
    plan: &Plan,
) -> Result<Outcome, Failure> {
    let Listing { letters: first, matching } = &plan.listing;
    Actor::cli().records(redis, action.command(), letters::named(first, *matching)).await?;
    let shown = Shown::new(*matching);
    let report = |acted: letters::Acted| shown.report(acted);
    let acted = compose::act_on_letters(settings, redis, action, plan.pages(redis), &|_| true, &report).await;
    shown.finish();
    Ok(acted?.outcome_of(*matching))
}

async fn retry(settings: &Settings, redis: &RedisStore, args: &LettersActArgs) -> Result<Answer, Failure> {
    let plan = planned(settings, redis, args).await?;
    let Plan { listing, unreadable, reread, .. } = &plan;
    let text = args.output.output == Output::Text;
    if text && listing.matching > 0 {
        show_first(listing);
        let readable = listing.matching - unreadable;
        printer::message(match readable {
            1 => "1 dead letter to retry; a newer version of its document wins".to_owned(),
            _ => format!("{} dead letters to retry; newer versions of their documents win", thousands(readable)),
        });
        if *reread > 0 {
            printer::message(format_args!(
                "{reread} of them without a usable document: the current document is read from MongoDB"
            ));
        }
        if *unreadable > 0 {
            let note = format!("{unreadable} unreadable and not retried: `tidewheel dead-letters drop` deletes them");
            printer::message(styled(WARN, note));
        }
    }
    if listing.matching == 0 || !args.yes {
        return Ok(not_done(listing, args.output.output));
    }
    let outcome = apply(settings, redis, LettersAction::Retry, &plan).await?;
    show_outcome(listing, outcome, args.output.output, "requeued");
    Ok(if outcome.unreadable + outcome.gone == 0 { Answer::Fine } else { Answer::No })
}

async fn drop(settings: &Settings, redis: &RedisStore, args: &LettersActArgs) -> Result<Answer, Failure> {
    let plan = planned(settings, redis, args).await?;
    let listing = &plan.listing;
    if args.output.output == Output::Text && listing.matching > 0 {
        show_first(listing);
        let stays = match listing.matching {
            1 => "Its document stays in the index as it is, missing or outdated, until it changes",
            _ => "Their documents stay in the index as they are, missing or outdated, until they change",
        };
        printer::message(format_args!(
            "{} to delete. {stays}; `tidewheel verify` lists such documents.",
            printer::counted(listing.matching, "dead letter")
        ));
    }
    let may_ask = may_ask(args.output.output);
    if listing.matching == 0 || (!args.yes && !may_ask) {
        return Ok(not_done(listing, args.output.output));
    }
    if !args.yes && !agreed("Delete them? [y/N] ") {
        printer::message("nothing was deleted");
        return Ok(Answer::No);
    }
    let outcome = apply(settings, redis, LettersAction::Drop, &plan).await?;
    show_outcome(listing, outcome, args.output.output, "deleted");
    Ok(Answer::Fine)
}

/// Shows what an action has `done`.
fn show_outcome(listing: &Listing, outcome: Outcome, output: Output, done: &str) {
    match output {
        Output::Json => printer::json(&Acted { listing, outcome: Some(outcome) }),
        Output::Text => {
            let count = printer::counted(outcome.done, "dead letter");
            printer::message(format_args!("{} {count} {done}", styled(GOOD, "✔")));
            gone(outcome);
        }
    }
}

/// Ends a command that only has a plan, or nothing to do.
fn not_done(listing: &Listing, output: Output) -> Answer {
    let nothing = listing.matching == 0;
    match output {
        Output::Json => printer::json(&Acted { listing, outcome: None }),
        Output::Text if nothing => printer::message("no matching dead letters"),
        Output::Text => printer::message("\nPlan only, nothing was changed. Add --yes to apply it."),
    }
    if nothing { Answer::No } else { Answer::Fine }
}

fn gone(outcome: Outcome) {
    if outcome.gone > 0 {
        printer::message(styled(WARN, format_args!("{} already handled by another process", outcome.gone)));
    }
}

/// Prints the first dead letters of a plan.
fn show_first(listing: &Listing) {
    let first = Listing { letters: listing.letters.iter().take(SHOWN).cloned().collect(), matching: listing.matching };
    table(&first);
}

fn table(listing: &Listing) {
    let room = printer::width().saturating_sub(COLUMNS);
    let below = printer::stdout_is_terminal() && room < REASON;
    let head = format!("{:<9} {:<18} {:>8} {:>8}  {:<32}", "stage", "id", "age", "attempts", "document");
    printer::data(styled(STRONG, if below { head.trim_end().to_owned() } else { head + " reason" }));
    for letter in &listing.letters {
        let facts = format!(
            "{:<9} {:<18} {:>8} {:>8}  {}",
            letter.stage.short_name(),
            letter.id,
            times::span(letter.age_ms),
            letter.attempts,
            document(letter, DOCUMENT),
        );
        let reason = escape::line(&letter.reason.replace('\n', " ")).into_owned();
        if below {
            printer::data(format_args!("{}\n  {reason}", facts.trim_end()));
        } else {
            // In a pipe the reason is not truncated.
            let reason = if printer::stdout_is_terminal() { clipped(&reason, room) } else { reason };
            printer::data(format_args!("{facts} {reason}"));
        }
    }
    let left = listing.matching - listing.letters.len() as u64;
    if left > 0 {
        printer::data(styled(DIM, format_args!("… and {left} more")));
    }
}

/// The document of a dead letter, padded to `width`.
fn document(letter: &LetterView, width: usize) -> String {
    let text = match &letter.record {
        // Padding would count the characters of a style: pad before styling.
        RecordView::Unreadable { .. } => return styled(BAD, format_args!("{:<width$}", "unreadable")),
        RecordView::Change { namespace, document_id, operation, .. } if document_id.is_empty() => {
            format!("{operation} of {namespace}")
        }
        RecordView::Change { namespace, document_id, .. } => format!("{namespace} {}", escape::line(document_id)),
    };
    format!("{text:<width$}")
}

fn whole(letter: &LetterView) {
    let line = |name: &str, value: &str| {
        printer::data(format_args!("{} {value}", styled(STRONG, format_args!("{name:<10}"))));
    };
    line("id", &format!("{} of {}", letter.id, letter.stage.title()));
    line("entry", &format!("{} of {}", letter.entry, letter.stage.name()));
    line("reason", &letter.reason);
    line(
        "parked",
        &format!(
            "{}, {} ago, after {}",
            letter.parked_at,
            times::span(letter.age_ms),
            printer::counted(letter.attempts.into(), "attempt")
        ),
    );
    match &letter.record {
        RecordView::Unreadable { unreadable } => line("problem", &styled(BAD, unreadable)),
        RecordView::Change { operation, version, committed_at, key, embedding, document: text, .. } => {
            line("document", &document(letter, 0));
            line("key", key);
            if letter.reread {
                let note = if letter.is_readable() {
                    "not stored: a retry reads it from MongoDB"
                } else {
                    "not stored, and the `_id` is unknown: fix the document in MongoDB, then drop this dead letter"
                };
                line("text", note);
            }
            line("change", &format!("{operation}, committed {committed_at}, version {version}"));
            if let Some(embedding) = embedding {
                let chunks = embedding.chunks.len();
                line("vectors", &format!("{chunks}, {} dimensions, model {}", embedding.dimension, embedding.model));
            }
            if let Some(text) = text {
                let pretty =
                    if let Value::String(text) = text { Ok(text.clone()) } else { serde_json::to_string_pretty(text) };
                printer::exactly(pretty.unwrap_or_default());
            }
        }
    }
    printer::data("");
}

/// Truncates a text to `room` characters.
fn clipped(text: &str, room: usize) -> String {
    if text.chars().count() <= room {
        return text.to_owned();
    }
    text.chars().take(room - 1).chain(['…']).collect()
}
