//! Changes of a declaration, with and without a new generation.

use tidewheel_core::catalog::{ApplyOptions, Declaration, State};
use tidewheel_testkit::fakes::embedder::broken;

use crate::declared::{Installation, LARGE, SMALL, declaration, open, ticket};
use crate::world::{PROCESSOR, PRODUCER, SERVICES, TAKEN_OVER, UPSERTER, seconds, until};

const TICKETS: &str = "tickets";

/// Documents at the start.
const DOCUMENTS: i32 = 7;

fn tickets(model: &str) -> Declaration {
    declaration(TICKETS, &["shop.tickets"], model)
}

/// An installation with one index of some documents.
async fn with_documents(mut installation: Installation) -> Installation {
    for id in 0..DOCUMENTS {
        installation.source.insert(TICKETS, ticket(id, &format!("tide {id}"), "open"));
    }
    installation.start_all();
    installation.settle("at the start").await;
    installation
}

async fn serving() -> Installation {
    with_documents(Installation::new(&[tickets(SMALL)])).await
}

/// Some writes.
fn write(installation: &Installation, round: i32) {
    installation.source.replace(TICKETS, ticket(round % DOCUMENTS, &format!("wave {round}"), "open"));
    installation.source.insert(TICKETS, ticket(100 + round, &format!("surf {round}"), "closed"));
}

#[tokio::test(start_paused = true)]
async fn model_change_switches_the_alias_and_a_rollback_returns_it() {
    let installation = serving().await;
    installation.apply(&[tickets(LARGE)]).await;
    write(&installation, 0);
    installation.settle("by the new model").await;
    assert_eq!(installation.alias(TICKETS).as_deref(), Some("tickets.g2"));
    assert_eq!(installation.state(TICKETS, 1).await, Some(State::Kept));
    let embedded = installation.embedded();

    installation.roll_back(TICKETS).await;
    installation.settle("by the former model").await;
    assert_eq!(installation.alias(TICKETS).as_deref(), Some("tickets.g1"));
    assert_eq!(installation.embedded(), embedded, "both generations were kept up");

    write(&installation, 1);
    installation.settle("more writes").await;
    let embedded = installation.embedded();
    installation.apply(&[tickets(LARGE)]).await;
    installation.settle("forward again").await;
    assert_eq!(installation.alias(TICKETS).as_deref(), Some("tickets.g2"));
    assert_eq!(installation.embedded(), embedded);
}

#[tokio::test(start_paused = true)]
async fn model_change_continues_after_crashes_at_any_time() {
    for pause in [0.3, 0.8, 1.7, 2.9] {
        let mut installation = serving().await;
        installation.apply(&[open(tickets(LARGE))]).await;
        for (round, service) in (0..9).zip(SERVICES.into_iter().cycle()) {
            seconds(pause).await;
            write(&installation, round);
            installation.kill(service);
            installation.start(service);
            seconds(TAKEN_OVER.as_secs_f64()).await;
        }
        installation.settle("after the crashes").await;
        assert_eq!(installation.alias(TICKETS).as_deref(), Some("tickets.g2"));
        assert_eq!(installation.index(TICKETS).await.generations.len(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn withdrawn_generation_is_deleted_and_searches_stay() {
    let installation = serving().await;
    installation.apply(&[tickets(LARGE)]).await;
    until("the new collection exists", || installation.collection("tickets.g2").is_there()).await;
    installation.apply(&[tickets(SMALL)]).await;
    write(&installation, 0);
    installation.settle("withdrawn").await;
    assert_eq!(installation.alias(TICKETS).as_deref(), Some("tickets.g1"));
    assert_eq!(installation.collections.names(), ["tickets.g1"]);
}

#[tokio::test(start_paused = true)]
async fn generation_with_the_same_model_reuses_every_vector() {
    let installation = serving().await;
    let before = installation.embedded();
    let declared = tickets(SMALL);
    let options = ApplyOptions { forced: true, only: [declared.name.clone()].into(), ..ApplyOptions::default() };
    installation.apply_with(&[declared], options).await;
    installation.settle("in a new generation").await;
    assert_eq!(installation.alias(TICKETS).as_deref(), Some("tickets.g2"));
    assert_eq!(installation.embedded(), before);
}

#[tokio::test(start_paused = true)]
async fn text_change_embeds_changed_texts_only() {
    let installation = serving().await;
    // The title of this one is a text that its point has already.
    let mut same = ticket(50, "about tide", "open");
    same["title"] = same["text"].clone();
    installation.source.insert(TICKETS, same);
    installation.settle("one more").await;
    let before = installation.embedded();
    let mut titles = tickets(SMALL);
    titles.text.fields = vec!["title".to_owned()];
    installation.apply(&[titles]).await;
    installation.settle("by their titles").await;
    assert_eq!(installation.embedded(), (before.0 + DOCUMENTS as usize, before.1));
    assert_eq!(installation.alias(TICKETS).as_deref(), Some("tickets.g1"));
}

#[tokio::test(start_paused = true)]
async fn two_text_changes_while_the_source_is_idle_both_reach_every_document() {
    let installation = serving().await;
    let mut titles = tickets(SMALL);
    titles.text.fields = vec!["title".to_owned()];
    installation.apply(&[titles]).await;
    installation.settle("by their titles").await;
    installation.apply(&[tickets(SMALL)]).await;
    installation.settle("by their texts again").await;
}

#[tokio::test(start_paused = true)]
async fn payload_change_embeds_nothing() {
    let installation = serving().await;
    let before = installation.embedded();
    let mut without_status = tickets(SMALL);
    without_status.payload.exclude = vec!["status".to_owned()];
    installation.apply(&[without_status]).await;
    installation.settle("without a field").await;
    assert_eq!(installation.embedded(), before);
}

#[tokio::test(start_paused = true)]
async fn unavailable_model_of_a_new_generation_does_not_delay_the_serving_one() {
    let installation = serving().await;
    installation.large.faults().always("embed", broken());
    installation.apply(&[tickets(LARGE)]).await;
    until("the new model is asked", || installation.large.faults().hits("embed") > 0).await;
    let points = installation.collection("tickets.g1").points().len();
    write(&installation, 0);
    until("the serving generation has the new document", || {
        installation.collection("tickets.g1").points().len() > points
    })
    .await;
    assert_eq!(installation.alias(TICKETS).as_deref(), Some("tickets.g1"));
    installation.large.faults().heal();
    installation.settle("when it works again").await;
    assert_eq!(installation.alias(TICKETS).as_deref(), Some("tickets.g2"));
}

#[tokio::test(start_paused = true)]
async fn alias_names_the_kept_generation_while_the_serving_one_is_filled_again() {
    let mut installation = serving().await;
    installation.apply(&[tickets(LARGE)]).await;
    installation.settle("by the new model").await;
    installation.kill(PROCESSOR);
    installation.collection("tickets.g2").drop_collection();
    until("the alias returns", || installation.alias(TICKETS).as_deref() == Some("tickets.g1")).await;
    installation.start(PROCESSOR);
    installation.settle("filled again").await;
    assert_eq!(installation.alias(TICKETS).as_deref(), Some("tickets.g2"));
}

#[tokio::test(start_paused = true)]
async fn plain_collection_is_replaced_by_an_alias() {
    for service in [PRODUCER, PROCESSOR, UPSERTER] {
        let mut installation = with_documents(Installation::of_short_form(tickets(SMALL))).await;
        installation.apply(&[tickets(LARGE)]).await;
        for round in 0..5 {
            seconds(1.3).await;
            write(&installation, round);
            installation.kill(service);
            installation.start(service);
            seconds(TAKEN_OVER.as_secs_f64()).await;
        }
        installation.settle("in the second generation").await;
        assert_eq!(installation.alias(TICKETS).as_deref(), Some("tickets.g2"));
        assert_eq!(installation.collections.names(), ["tickets.g2"]);
    }
}
