//! `tidewheel installation`: shows and takes over the ownership of Redis and of the collection.

use serde::Serialize;
use tidewheel_core::error::{Cause, ErrorClass, PortError};
use tidewheel_core::installation::{CollectionMark, Installation, SourceIdentity};
use tidewheel_core::ports::{Ownable as _, PortResult, Registry as _};
use tidewheel_core::time::now_ms;
use tidewheel_pipeline::ownership::{Ownership, Registration, Serves, ownership, registration};
use tidewheel_stores::qdrant::QdrantIndex;
use tidewheel_stores::redis::RedisStore;

use crate::audit_log::Actor;
use crate::cli::{AdoptArgs, InstallationCommand, Output, OutputArgs};
use crate::connect;
use crate::exit::{Answer, Failure};
use crate::printer::{self, GOOD, STRONG, styled};
use crate::settings::Settings;

/// Shows the owners, or takes over ownership.
pub(crate) async fn run(command: &InstallationCommand, settings: &Settings) -> Result<Answer, Failure> {
    let redis = connect::redis(settings)?;
    let index = connect::index(settings)?;
    match command {
        InstallationCommand::Show(args) => show(args, &redis, &index).await,
        InstallationCommand::Adopt(args) => adopt(args, settings, &redis, &index).await,
    }
}

/// Owners of Redis and of the collection.
#[derive(Serialize)]
struct Owners {
    /// The installation registered in Redis.
    redis: Option<Installation>,
    collection: String,
    /// The installation recorded in the collection.
    qdrant: Option<Installation>,
}

async fn owners(redis: &RedisStore, index: &QdrantIndex) -> PortResult<Owners> {
    let (installation, mark) = tokio::try_join!(redis.installation(), index.mark())?;
    Ok(Owners { redis: installation, collection: index.collection().to_owned(), qdrant: marked(mark) })
}

fn marked(mark: CollectionMark) -> Option<Installation> {
    match mark {
        CollectionMark::Of(installation) => Some(installation),
        CollectionMark::NoCollection | CollectionMark::Unmarked => None,
    }
}

async fn show(args: &OutputArgs, redis: &RedisStore, index: &QdrantIndex) -> Result<Answer, Failure> {
    let owners = owners(redis, index).await?;
    match args.output {
        Output::Json => printer::json(&owners),
        Output::Text => {
            row("Redis", &format!("{}: {}", redis.address(), described(owners.redis.as_ref())));
            row("Qdrant", &format!("collection {:?}: {}", owners.collection, described(owners.qdrant.as_ref())));
        }
    }
    Ok(Answer::Fine)
}

fn row(name: &str, text: &str) {
    printer::data(format_args!("{} {text}", styled(STRONG, format_args!("{name:<8}"))));
}

fn described(installation: Option<&Installation>) -> String {
    installation.map_or_else(
        || "no owner".to_owned(),
        |installation| format!("installation {} of {}", installation.id, installation.source),
    )
}

/// Changes made by a take-over.
#[derive(Serialize)]
struct Plan {
    #[serde(flatten)]
    owners: Owners,
    /// The new owner of both.
    installation: Installation,
    /// Whether the owner of Redis changes.
    changes_redis: bool,
    /// Whether the owner of the collection changes.
    changes_qdrant: bool,
    done: bool,
}

async fn adopt(
    args: &AdoptArgs,
    settings: &Settings,
    redis: &RedisStore,
    index: &QdrantIndex,
) -> Result<Answer, Failure> {
    let options = connect::mongo_options(settings, "the installation")?;
    let source = connect::source(options).await?.identity().await?;
    let (found, mark) = (redis.installation().await, index.mark().await);
    // An unreadable owner is replaced, except by an older release.
    let replaceable = |error: &PortError| error.class == ErrorClass::Fatal && error.cause != Cause::Newer;
    let found = match found {
        Err(error) if !replaceable(&error) => return Err(error.into()),
        found => found.ok().flatten(),
    };
    let mark = match mark {
        Err(error) if !replaceable(&error) => return Err(error.into()),
        mark => mark.unwrap_or(CollectionMark::Unmarked),
    };
    let mut plan = plan(index.collection(), found, &mark, source);
    if args.yes {
        if plan.changes_redis || plan.changes_qdrant {
            let detail = format!("collection {:?}, installation {}", plan.owners.collection, plan.installation.id);
            Actor::cli().records(redis, "installation adopt", detail).await?;
        }
        if plan.changes_redis {
            redis.replace(&plan.installation).await?;
        }
        if plan.changes_qdrant {
            index.set_mark(&plan.installation).await?;
        }
        plan.done = true;
    }
    match args.output.output {
        Output::Json => printer::json(&plan),
        Output::Text => print(&plan),
    }
    Ok(Answer::Fine)
}

/// Keeps the installation registered in Redis if it reads the same database; otherwise a new one replaces it.
fn plan(collection: &str, found: Option<Installation>, mark: &CollectionMark, source: SourceIdentity) -> Plan {
    let serves = Serves { source: Some(source.clone()), database: None };
    let (installation, changes_redis) = match (registration(found.as_ref(), None, &serves), &found) {
        (Registration::Keep | Registration::Refresh(_), Some(found)) => {
            let bound = Installation { collection: collection.to_owned(), ..found.clone() };
            (bound, found.collection.is_empty())
        }
        _ => {
            let now = now_ms() / 1_000;
            (Installation { collection: collection.to_owned(), ..Installation::new(source, now) }, true)
        }
    };
    let changes_qdrant = !matches!(ownership(&installation, collection, mark), Ownership::Keep | Ownership::Wait);
    let owners = Owners { redis: found, collection: collection.to_owned(), qdrant: marked(mark.clone()) };
    Plan { owners, installation, changes_redis, changes_qdrant, done: false }
}

fn print(plan: &Plan) {
    let change = |changes: bool, from: Option<&Installation>| match changes {
        false => format!("{} (unchanged)", described(from)),
        true => format!("{} → {}", described(from), described(Some(&plan.installation))),
    };
    row("Redis", &change(plan.changes_redis, plan.owners.redis.as_ref()));
    row(
        "Qdrant",
        &format!(
            "collection {:?}: {}",
            plan.owners.collection,
            change(plan.changes_qdrant, plan.owners.qdrant.as_ref())
        ),
    );
    match (plan.changes_redis || plan.changes_qdrant, plan.done) {
        (false, _) => printer::message("\nNothing to do."),
        (true, false) => printer::message("\nPlan only, nothing was changed. Add --yes to apply it."),
        (true, true) => printer::message(format_args!("{} ownership taken over", styled(GOOD, "✔"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(database: &str) -> SourceIdentity {
        SourceIdentity { database: database.to_owned(), hosts: vec!["db:1".to_owned()], ..SourceIdentity::default() }
    }

    fn of(database: &str, collection: &str) -> Installation {
        Installation { collection: collection.to_owned(), ..Installation::new(source(database), 1) }
    }

    #[test]
    fn take_over_changes_only_foreign_ownership() {
        let (own, other) = (of("shop", "documents"), of("crm", "documents"));
        let mark = |installation: &Installation| CollectionMark::Of(installation.clone());
        let plans = |found: Option<&Installation>, mark: CollectionMark| {
            let plan = plan("documents", found.cloned(), &mark, source("shop"));
            (plan.changes_redis, plan.changes_qdrant, plan.installation.id == own.id)
        };
        assert_eq!(plans(Some(&own), mark(&own)), (false, false, true));
        assert_eq!(plans(Some(&own), mark(&other)), (false, true, true));
        assert_eq!(plans(Some(&own), mark(&of("shop", "documents"))), (false, true, true));
        assert_eq!(plans(Some(&own), CollectionMark::NoCollection), (false, false, true));
        assert_eq!(plans(Some(&other), mark(&other)), (true, true, false));
        assert_eq!(plans(None, mark(&other)), (true, true, false));
        assert_eq!(plans(None, CollectionMark::Unmarked), (true, true, false));
    }
}
