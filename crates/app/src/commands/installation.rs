//! `tidewheel installation`: shows and takes over the ownership of Redis and of the collections.

use std::sync::Arc;

use tidewheel_core::installation::Installation;
use tidewheel_ops::installation::{self, CollectionOwner, OwnerPorts, TakeOver};
use tidewheel_stores::redis::RedisStore;

use crate::audit_log::Actor;
use crate::cli::{AdoptArgs, InstallationCommand, Output, OutputArgs};
use crate::exit::{Answer, Failure};
use crate::printer::{self, GOOD, STRONG, styled};
use crate::settings::Settings;
use crate::{compose, connect};

/// Shows the owners, or takes over ownership.
pub(crate) async fn run(command: &InstallationCommand, settings: &Settings) -> Result<Answer, Failure> {
    let redis = connect::redis(settings)?;
    let targets = compose::read_targets(settings, &redis)?;
    let mut collections = installation::collections(&targets, None).await?;
    if collections.is_empty() {
        collections.push(Arc::new(connect::index(settings)?));
    }
    let ports = OwnerPorts { registry: &redis, collection: &*collections[0], others: &collections[1..] };
    match command {
        InstallationCommand::Show(args) => show(args, &redis, ports).await,
        InstallationCommand::Adopt(args) => adopt(args, settings, &redis, ports).await,
    }
}

async fn show(args: &OutputArgs, redis: &RedisStore, ports: OwnerPorts<'_>) -> Result<Answer, Failure> {
    let owners = installation::owners(ports).await?;
    match args.output {
        Output::Json => printer::json(&owners),
        Output::Text => {
            row("Redis", &format!("{}: {}", redis.address(), described(owners.redis.as_ref())));
            row("Qdrant", &format!("collection {:?}: {}", owners.collection, described(owners.qdrant.as_ref())));
            for CollectionOwner { collection, owner } in &owners.others {
                row("", &format!("collection {collection:?}: {}", described(owner.as_ref())));
            }
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

async fn adopt(
    args: &AdoptArgs,
    settings: &Settings,
    redis: &RedisStore,
    ports: OwnerPorts<'_>,
) -> Result<Answer, Failure> {
    let options = connect::mongo_options(settings, "the installation")?;
    let source = connect::source(options).await?.identity().await?;
    let mut plan = installation::plan(ports, source).await?;
    if args.yes {
        if plan.changes() {
            let others: String = plan.changes_others.iter().map(|name| format!(", {name:?}")).collect();
            let (collection, id) = (&plan.owners.collection, &plan.installation.id);
            let detail = format!("collection {collection:?}{others}, installation {id}");
            Actor::cli().records(redis, "installation adopt", detail).await?;
        }
        installation::take_over(ports, &mut plan).await?;
    }
    match args.output.output {
        Output::Json => printer::json(&plan),
        Output::Text => print(&plan),
    }
    Ok(Answer::Fine)
}

fn print(plan: &TakeOver) {
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
    for CollectionOwner { collection, owner } in &plan.owners.others {
        let changes = plan.changes_others.contains(collection);
        row("", &format!("collection {collection:?}: {}", change(changes, owner.as_ref())));
    }
    match (plan.changes(), plan.done) {
        (false, _) => printer::message("\nNothing to do."),
        (true, false) => printer::message("\nPlan only, nothing was changed. Add --yes to apply it."),
        (true, true) => printer::message(format_args!("{} ownership taken over", styled(GOOD, "✔"))),
    }
}
