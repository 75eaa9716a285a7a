//! Views, time series and unusable URIs.

use bson::doc;
use serde_json::json;
use tidewheel_core::error::ErrorClass;
use tidewheel_core::identity::Namespace;
use tidewheel_core::ports::{FeedError, Source, StartAt};
use tidewheel_core::secret::Secret;
use tidewheel_stores::mongo::{MongoOptions, MongoSource};
use tidewheel_testkit::contracts::source::{SourceHarness, SourceWrite};

use super::server::TestMongo;

#[tokio::test]
async fn views_and_time_series_are_rejected_by_name_and_excluded_from_patterns() {
    let mongo = TestMongo::start().await;
    mongo.commit(vec![SourceWrite::Insert { collection: "open_tickets".into(), document: json!({"_id": 1}) }]).await;
    let database = mongo.client.database(&mongo.database);
    database.run_command(doc! {"create": "open_view", "viewOn": "open_tickets", "pipeline": []}).await.unwrap();
    database.run_command(doc! {"create": "open_series", "timeseries": {"timeField": "at"}}).await.unwrap();
    for patterns in [&[][..], &["*"], &["open_*"], &["open_tickets"]] {
        let source = mongo.covered(patterns).await;
        let listed = source.collections().await.unwrap();
        assert_eq!(listed.iter().map(Namespace::collection).collect::<Vec<_>>(), ["open_tickets"], "{patterns:?}");
        assert!(source.open(StartAt::Time(source.now().await.unwrap())).await.is_ok(), "{patterns:?}");
    }
    for (name, kind) in [("open_view", "a view"), ("open_series", "a time-series collection")] {
        let inspected = mongo.mongo_source(&["open_tickets", name]).await;
        let source = inspected.covered();
        let start = StartAt::Time(source.now().await.unwrap());
        let Err(FeedError::Port(opening)) = source.open(start).await else { panic!("a feed of {kind}") };
        let checking = source.source.check(&source.coverage).await.unwrap_err();
        let listing = source.collections().await.unwrap_err();
        for error in [opening, checking, listing, inspected.inspect().await.unwrap_err()] {
            assert_eq!(error.class, ErrorClass::Fatal, "{error}");
            assert!(error.message.contains(&format!("{}.{name} is {kind}", mongo.database)), "{error}");
            assert!(error.hint.is_some(), "{error:?}");
        }
    }
}

#[tokio::test]
async fn unresolvable_member_name_hints_at_direct_connection() {
    for host in ["mongo-0.mongo.invalid:27017", "nowhere.invalid", "a.invalid,b.invalid:1"] {
        let uri = format!("mongodb://{host}/?replicaSet=rs0&serverSelectionTimeoutMS=300");
        let options = MongoOptions::of_database(Secret::new(uri), "shop", &[]);
        let error = MongoSource::connect(options).await.unwrap().now().await.unwrap_err();
        assert_eq!(error.class, ErrorClass::Transient, "{error}");
        assert!(error.hint.as_ref().is_some_and(|hint| hint.contains("directConnection=true")), "{error:?}");
    }
}

#[tokio::test]
async fn unsupported_uri_options_do_not_prevent_connecting() {
    let mongo = TestMongo::start().await;
    let uri = format!("{}&compressors=zstd&timeoutMS=5000&zlibCompressionLevel=3", mongo.uri);
    let options = MongoOptions::of_database(Secret::new(uri), &mongo.database, &[]);
    let facts = MongoSource::connect(options).await.unwrap().inspect().await.unwrap();
    assert_eq!(facts.ignored, ["compressors", "timeoutMS", "zlibCompressionLevel"]);
}
