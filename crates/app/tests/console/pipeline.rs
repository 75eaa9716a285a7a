//! One session at the console: in sync, a change is parked and retried, a service dies, Qdrant is down, a search, an
//! inspection, a replay, and a restart of the console itself.

use std::time::Duration;

use mongodb::bson::doc;
use tidewheel_stores::redis::keys::RAW_DEAD_LETTERS;

use super::browser::{Browser, Screen};
use super::pages;
use super::world::{SERVICES, World, free_port, ticket};

const TOKEN: &str = "a token for tests";
const STATE: &str = "document.querySelector('.verdict')?.dataset.state";

struct Session {
    world: World,
    browser: Browser,
    base: String,
    port: u16,
}

impl Session {
    /// Starts servers, services with 300 documents, the console, and a browser.
    async fn begin() -> Self {
        let (mut world, port) = (World::new().await, free_port());
        world.collection("tickets").insert_many((0..300).map(ticket)).await.unwrap();
        let day = |world, browser| Self { world, browser, base: format!("http://127.0.0.1:{port}"), port };
        settings(&world, port, TEMPLATE);
        for service in SERVICES {
            world.start(service);
        }
        world.start("console");
        let day = day(world, Browser::start().await);
        day.listens().await;
        day.browser.show_on(Screen { width: 1440, height: 900, theme: "light" }).await;
        day
    }

    async fn listens(&self) {
        let begun = std::time::Instant::now();
        while tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.is_err() {
            assert!(begun.elapsed() < Duration::from_secs(30), "{}", self.world.log("console"));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn open(&self, path: &str) {
        self.browser.open(&format!("{}/{path}", self.base)).await;
    }

    async fn is(&self, state: &str) {
        self.browser.until(&format!("the verdict is {state}"), &format!("{STATE} === {state:?}")).await;
    }
}

/// Fails on a document whose `pages` are a number.
const TEMPLATE: &str = "{{ subject }}\n{{ content }}{% if pages %}{{ pages|length }}{% endif %}";

fn settings(world: &World, port: u16, template: &str) {
    world.write_settings(&format!(
        "console.listen = \"127.0.0.1:{port}\"\nconsole.token = {TOKEN:?}\nmonitor.no_progress = \"2s\"\n\
         documents.template = {template:?}\n"
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn console_follows_pipeline_through_failures_and_repairs() {
    let mut day = Session::begin().await;
    overview_shows_pipeline_in_sync(&day).await;
    parked_change_is_retried(&mut day).await;
    search_hit_links_to_document(&day).await;
    dead_service_is_shown_and_cleared(&mut day).await;
    qdrant_outage_is_shown_and_cleared(&mut day).await;
    replay_is_shown(&mut day).await;
    index_has_a_page(&day).await;
    keyboard_shortcuts_open_every_page(&day).await;
    park_one(&mut day, 9_003).await;
    pages::all(&day.browser, &day.base, "").await;

    let elsewhere =
        day.browser.requests().into_iter().filter(|url| !url.starts_with(&day.base) && url != "about:blank");
    assert_eq!(elsewhere.collect::<Vec<_>>(), Vec::<String>::new(), "no requests to other hosts");
    // The browser logs every error response; there was one, to a wrong token.
    let wrong_token = |text: &String| text.contains("401") && text.contains("/api/session");
    let (rejected, errors): (Vec<_>, Vec<_>) = day.browser.errors().into_iter().partition(wrong_token);
    assert_eq!((rejected.len(), errors), (1, Vec::<String>::new()), "no errors in the browser's log");
    // From here on the browser logs connection errors, as expected.
    page_reconnects_after_console_restart(&mut day).await;
}

async fn overview_shows_pipeline_in_sync(day: &Session) {
    day.open("").await;
    day.browser.until_text("[aria-label=Qdrant] .part-big", "300 points").await;
    day.is("in_sync").await;
    day.browser.until_text(".connection", "Live").await;
    let title = day.browser.value("document.title").await;
    assert_eq!(title, "Overview · tidewheel");
    let parts = day.browser.value("[...document.querySelectorAll('.part')].map((part) => part.dataset.state)").await;
    let bad = parts.as_array().unwrap().iter().filter(|state| *state == "bad" || *state == "warn");
    assert_eq!((parts.as_array().unwrap().len(), bad.count()), (8, 0), "{parts}");
    // Live updates: new documents are counted without a reload.
    day.world.collection("tickets").insert_many((300..320).map(ticket)).await.unwrap();
    day.browser.until_text("[aria-label=Qdrant] .part-big", "320 points").await;
    // Chart values by keyboard.
    day.browser.value("document.querySelector('.plot').focus()").await;
    day.browser.press(&["ArrowLeft"]).await;
    day.browser.until("the chart shows a time", "document.querySelector('.chart-time').innerText !== ''").await;
}

/// Inserts a document on which the template fails.
async fn park_one(day: &mut Session, number: i32) {
    settings(&day.world, day.port, TEMPLATE);
    day.world.kill("processor");
    day.world.start("processor");
    let mut document = ticket(number);
    document.insert("pages", 5);
    day.world.collection("tickets").insert_one(document).await.unwrap();
    let redis = day.world.stack.redis_url();
    let letters = || async { super::world::redis_command::<u64>(&redis, &["XLEN", RAW_DEAD_LETTERS]).await > 0 };
    day.world.until("a parked change", letters).await;
}

async fn parked_change_is_retried(day: &mut Session) {
    let mut document = ticket(9_001);
    document.insert("pages", 5);
    day.world.collection("tickets").insert_one(document).await.unwrap();
    day.browser.until_text(".bubble", "1").await;
    day.browser.until_text(".problems", "dead-letters").await;
    day.browser.click(".problems a").await;
    day.browser.until_text(".letters .reason", "documents.template fails on this document").await;
    day.browser.click(".letters .reason").await;
    day.browser.until_text(".details .json", "Ticket 9001").await;
    day.browser.click(".letters td[data-label=Document] a").await;
    day.browser.until_text(".verdict-word", "PARKED").await;

    // The cause is fixed; dead letters are not retried automatically.
    settings(&day.world, day.port, "{{ subject }}\n{{ content }}");
    day.world.kill("processor");
    day.world.start("processor");
    day.open("#/dead-letters").await;
    day.browser.until_text(".actions", "unlock with the token").await;
    day.browser.click(".actions button").await;
    day.browser.write("not the token").await;
    day.browser.press(&["Enter"]).await;
    day.browser.until_text("dialog .wrong", "Wrong token").await;
    day.browser.write(TOKEN).await;
    day.browser.press(&["Enter"]).await;
    day.browser.until_text(".actions", "Retry all 1 matching").await;
    day.browser.click(".actions .primary").await;
    day.browser.until_text("dialog", "Retry 1 dead letter?").await;
    day.browser.click("dialog .primary").await;
    day.browser.until_text(".toasts", "1 dead letter requeued").await;
    day.browser.until_text(".empty", "No dead letters").await;
    day.open("#/document?id=9001").await;
    let again = "(document.querySelector('.page-head .button')?.click(), document.querySelector('.verdict-word')?.innerText === 'SEARCHABLE')";
    day.browser.until("the document is searchable", again).await;

    // Another dead letter is dropped.
    park_one(day, 9_002).await;
    day.open("#/dead-letters").await;
    day.browser.click(".row-actions .button:last-child").await;
    day.browser.until_text("dialog", "deleted permanently").await;
    day.browser.click("dialog .danger").await;
    day.browser.until_text(".empty", "No dead letters").await;
    let left: u64 = day.world.redis(&["XLEN", RAW_DEAD_LETTERS]).await;
    assert_eq!(left, 0);
}

async fn search_hit_links_to_document(day: &Session) {
    day.open("").await;
    day.is("in_sync").await;
    day.browser.press(&["/"]).await;
    day.browser.until("the search box has the focus", "document.activeElement?.id === 'q'").await;
    day.browser.write("Ticket 7\nThe parcel number 7 has not arrived, and nobody answers the telephone.").await;
    day.browser.press(&["Enter"]).await;
    day.browser.until("ten hits", "document.querySelectorAll('.hit').length === 10").await;
    assert!(day.browser.text(".hit h2").await.starts_with("Ticket"), "{}", day.browser.text(".hit").await);
    // With a filter, first an invalid one.
    day.browser.click("details summary").await;
    day.browser.click("#filter").await;
    day.browser.write("{\"must\": [{\"key\": \"subject\", \"match\": {\"value\": \"Ticket 7\"}}]").await;
    day.browser.click(".search .primary").await;
    day.browser.until_text("#filter-wrong", "not JSON").await;
    day.browser.value("document.querySelector('#filter').setRangeText('}', 1000, 1000, 'end')").await;
    day.browser.click(".search .primary").await;
    day.browser.until("one hit with the filter", "document.querySelectorAll('.hit').length === 1").await;
    day.browser.click(".hit summary").await;
    day.browser.until_text(".hit .json", "Customer 7").await;
    large_integers_are_exact(day).await;
    day.browser.click(".hit-foot a").await;
    day.browser.until_text(".verdict-word", "SEARCHABLE").await;
    for hop in ["MongoDB", "Stage 1", "Stage 2", "Qdrant"] {
        day.browser.until_text(".hops", hop).await;
    }
    day.open("#/document?id=nobody-knows-it").await;
    day.browser.until_text(".empty", "No record of nobody-knows-it").await;
}

/// JavaScript numbers are exact up to 2^53, MongoDB's up to 2^63: checks shown documents and a filter.
async fn large_integers_are_exact(day: &Session) {
    let numbers = doc! {"odd": (1_i64 << 53) + 1, "most": i64::MAX, "least": i64::MIN, "list": [(1_i64 << 53) + 3]};
    let text = "\"9007199254740993\" is text, 9007199254740995 in text too";
    let update = doc! {"$set": {"numbers": numbers, "text": text}};
    day.world.collection("tickets").update_one(doc! {"_id": 7}, update).await.unwrap();
    let mut wait = day.world.command(&["wait"]);
    assert!(tokio::task::spawn_blocking(move || wait.status().unwrap()).await.unwrap().success());
    let filter = "document.querySelector('#filter').value = '{\"must\": [{\"key\": \"numbers.odd\", \"match\": {\"value\": VALUE}}]}'";
    day.browser.value(&filter.replace("VALUE", "9007199254740992")).await;
    day.browser.click(".search .primary").await;
    day.browser.until_text(".empty", "Nothing found").await;
    day.browser.value(&filter.replace("VALUE", "9007199254740993")).await;
    day.browser.click(".search .primary").await;
    day.browser.until("one hit with the large integer", "document.querySelectorAll('.hit').length === 1").await;
    day.browser.click(".hit summary").await;
    for number in [
        "\"odd\": 9007199254740993",
        "\"most\": 9223372036854775807",
        "\"least\": -9223372036854775808",
        "9007199254740995\n",
        "9007199254740993\\\" is text, 9007199254740995 in text too",
    ] {
        day.browser.until_text(".hit .json", number).await;
    }
}

async fn dead_service_is_shown_and_cleared(day: &mut Session) {
    day.open("").await;
    day.is("in_sync").await;
    day.world.kill("upserter");
    day.world.collection("tickets").insert_many((400..440).map(ticket)).await.unwrap();
    day.is("stalled").await;
    day.browser.until_text(".verdict-summary", "stage 2").await;
    day.browser
        .until("stage 2 is marked", "document.querySelector('[aria-label=\"stage 2\"]').dataset.state === 'bad'")
        .await;
    day.browser
        .until(
            "the screen reader announcement",
            "document.querySelector('#announce').textContent.startsWith('Sync stalled')",
        )
        .await;
    day.world.start("upserter");
    day.is("in_sync").await;
}

async fn qdrant_outage_is_shown_and_cleared(day: &mut Session) {
    let qdrant = day.world.stack.qdrant.clone().unwrap();
    qdrant.kill().await;
    day.world.collection("tickets").insert_many((440..480).map(ticket)).await.unwrap();
    day.is("stalled").await;
    day.browser.until_text(".verdict-summary", "Qdrant is unreachable").await;
    day.browser.until_text("[aria-label=Qdrant]", "unreachable").await;
    if let Some(folder) = std::env::var_os("TIDEWHEEL_SCREENSHOTS").filter(|folder| !folder.is_empty()) {
        let picture = day.browser.picture(Screen { width: 1440, height: 900, theme: "light" }).await;
        std::fs::write(std::path::Path::new(&folder).join("outage-desk-light.png"), picture).unwrap();
    }
    qdrant.start().await.unwrap();
    day.is("in_sync").await;
    day.browser.until_text("[aria-label=Qdrant] .part-big", "401 points").await;
}

async fn replay_is_shown(day: &mut Session) {
    day.open("#/replays").await;
    day.browser.until_text(".empty", "No replay running").await;
    let mut command = day.world.command(&["replay", "raw", "--yes"]);
    let replayed = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert!(replayed.status.success(), "{}", String::from_utf8_lossy(&replayed.stderr));
    day.browser.until_text(".replay .badge", "done").await;
    day.browser.until_text(".replay", "raw_document_changes").await;
    day.browser.until_text(".replay-line", "100 %").await;
}

async fn index_has_a_page(day: &Session) {
    day.open("#/indexes").await;
    day.browser.until_text(".indexes .badge", "in sync").await;
    day.browser.click(".indexes tbody a").await;
    day.browser.until_text("h1", "documents").await;
    day.browser.until_text(".verdict-word", "IN SYNC").await;
    day.browser.until_text(".verdict-summary", "Searches read generation 1.").await;
    day.browser.until_text(".generations tbody", "401").await;
    let rollback = "document.querySelector('.actions')?.innerText ?? ''";
    assert_eq!(day.browser.value(rollback).await, "", "the short form has no generation to return to");
    day.open("#/indexes/nothing").await;
    day.browser.until_text(".empty", "There is no index nothing").await;
}

async fn keyboard_shortcuts_open_every_page(day: &Session) {
    day.open("").await;
    day.is("in_sync").await;
    for (key, heading) in
        [("x", "Indexes"), ("d", "Dead letters"), ("s", "Search"), ("i", "Inspect a document"), ("r", "Replays")]
    {
        day.browser.press(&["g", key]).await;
        day.browser.until_text("h1", heading).await;
    }
    day.browser.press(&["g", "o"]).await;
    day.is("in_sync").await;
    day.browser.press(&["?"]).await;
    day.browser.until_text("dialog", "Keyboard shortcuts").await;
    day.browser.press(&["Escape"]).await;
    day.browser.until("the dialog is closed", "document.querySelector('dialog') === null").await;
    // The theme persists.
    day.browser.click("[aria-label^=Theme]").await;
    day.browser.click("[aria-label^=Theme]").await;
    day.browser.until("the dark theme", "document.documentElement.dataset.theme === 'dark'").await;
    day.open("").await;
    day.browser
        .until("the dark theme after a reload", "getComputedStyle(document.documentElement).colorScheme === 'dark'")
        .await;
    day.browser.click("[aria-label^=Theme]").await;
}

async fn page_reconnects_after_console_restart(day: &mut Session) {
    day.open("").await;
    day.browser.until_text(".connection", "Live").await;
    day.world.kill("console");
    day.browser.until_text("#lost", "Connection lost").await;
    day.world.start("console");
    day.listens().await;
    day.browser.until_text(".connection", "Live").await;
    day.browser.until("the warning is hidden", "document.querySelector('#lost').hidden").await;
}
