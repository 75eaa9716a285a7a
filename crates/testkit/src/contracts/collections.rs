//! The contract of [`Collections`] and [`CollectionAdmin`](tidewheel_core::ports::CollectionAdmin).

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Map, Value, json};
use tidewheel_core::catalog::{
    CollectionSpec, Datatype, Declaration, EmbeddingSpec, Generation, Index, IndexName, PayloadIndex, PayloadKind,
    Selector, TargetId, TargetRecord, VectorLayout,
};
use tidewheel_core::error::ErrorClass;
use tidewheel_core::identity::Namespace;
use tidewheel_core::installation::CollectionMark;
use tidewheel_core::ports::{Collection, Collections, DocumentPoints, Written};
use tidewheel_core::version::{ClusterTime, Version};

use super::index::{DIMENSION, document};
use super::ownership::installation;

/// A server on which the names that start with the harness's own are free.
#[async_trait]
pub trait CollectionsHarness: Send + Sync {
    /// The collections. Every call returns another handle to the same server.
    fn collections(&self) -> Arc<dyn Collections>;

    /// The name of an index, whose collections and alias do not exist yet. Every call returns the same one.
    fn index_name(&self) -> IndexName;

    /// Creates a collection with vectors of [`DIMENSION`], as another client may.
    async fn create_foreign(&self, name: &str);

    /// Creates a payload index, as another client may.
    async fn index_field(&self, collection: &str, field: &str, kind: PayloadKind);

    /// The payload indexes of a collection with their types, without those that tidewheel itself requires.
    async fn indexed_fields(&self, collection: &str) -> BTreeMap<String, String>;
}

/// Every contract of the collections, as tests on a harness: `collections_contract_tests!(harness().await)`.
#[macro_export]
macro_rules! collections_contract_tests {
    ($harness:expr) => {
        $crate::contract_tests!(
            collections,
            $harness,
            [
                creation_is_idempotent_and_rejects_another_layout,
                concurrent_creations_create_one_collection,
                collection_of_another_client_is_not_adopted,
                collections_share_no_points,
                created_collection_keeps_and_finds_points,
                missing_collection_is_an_error_or_absent,
                record_owner_and_payload_indexes_are_kept_beside_each_other,
                only_own_payload_indexes_are_deleted,
                alteration_keeps_points_and_can_be_repeated,
                collections_and_aliases_are_listed,
                alias_moves_and_is_deleted,
                alias_needs_a_collection_and_a_free_name,
                deletion_takes_aliases_along,
            ]
        );
    };
}

fn target(harness: &dyn CollectionsHarness, generation: u32) -> TargetId {
    harness.index_name().target(generation)
}

fn open(harness: &dyn CollectionsHarness, generation: u32) -> Arc<dyn Collection> {
    harness.collections().open(&target(harness, generation).collection())
}

/// The collection of a generation, created with defaults.
async fn created(harness: &dyn CollectionsHarness, generation: u32) -> Arc<dyn Collection> {
    let collection = open(harness, generation);
    let (spec, layout) = (CollectionSpec::default(), VectorLayout::default());
    assert!(collection.create(&spec, &layout, DIMENSION).await.unwrap());
    collection
}

fn spec(settings: Value) -> CollectionSpec {
    let Value::Object(settings) = settings else { panic!("an object") };
    CollectionSpec { settings, ..CollectionSpec::default() }
}

fn record(harness: &dyn CollectionsHarness, settings: Value) -> TargetRecord {
    let name = harness.index_name();
    let source = Selector::of_database("shop", &["tickets"]);
    let embedding = EmbeddingSpec::new("default", "tidewheel", "minilm");
    let mut declaration = Declaration::new(name.clone(), source, embedding);
    declaration.collection = spec(settings);
    declaration.payload_indexes.insert("customer.name".to_owned(), PayloadIndex::new(PayloadKind::Keyword));
    let generation = Generation::new(&name.target(1), Arc::new(declaration), 1_764_489_600_123);
    let index = Index { generations: BTreeMap::from([(1, generation)]), ..Index::default() };
    index.record(&name, 1, 1_764_489_600_123).expect("generation 1")
}

fn ticket(key: &str, seconds: u32) -> DocumentPoints {
    let version = Version { epoch: 0, time: ClusterTime { seconds, increment: 1 }, ordinal: 1, replay: 0 };
    document(&Namespace::new("shop", "tickets"), key, version, &["a"])
}

async fn write(collection: &dyn Collection, key: &str) {
    assert_eq!(collection.upsert(&[&ticket(key, 1)]).await.unwrap(), Written::Durably);
}

/// A repeated creation changes nothing; a collection of another layout is named with what was found.
pub async fn creation_is_idempotent_and_rejects_another_layout(harness: &dyn CollectionsHarness) {
    let collection = open(harness, 1);
    let mut spec = spec(json!({"hnsw": {"m": 8}, "on_disk_payload": true}));
    spec.shard_number = Some(1);
    let layout = VectorLayout { datatype: Datatype::Float16, ..VectorLayout::default() };
    assert!(!collection.exists().await.unwrap());
    assert!(collection.create(&spec, &layout, DIMENSION).await.unwrap());
    write(&*collection, "1").await;
    assert!(!collection.create(&spec, &layout, DIMENSION).await.unwrap());
    assert_eq!(collection.count().await.unwrap(), Some(1));
    for (layout, dimension) in [(layout.clone(), DIMENSION + 3), (VectorLayout::default(), DIMENSION)] {
        let error = collection.create(&spec, &layout, dimension).await.unwrap_err();
        assert_eq!(error.class, ErrorClass::Fatal);
        assert!(error.message.contains(&dimension.to_string()) && error.message.contains("Float16"), "{error}");
    }
    assert_eq!(collection.count().await.unwrap(), Some(1));
}

/// Upserters and the producer may create at once.
pub async fn concurrent_creations_create_one_collection(harness: &dyn CollectionsHarness) {
    let (spec, layout) = (CollectionSpec::default(), VectorLayout::default());
    let creators: Vec<_> = (0..5).map(|_| open(harness, 1)).collect();
    let creations = creators.iter().map(|collection| collection.create(&spec, &layout, DIMENSION));
    let created = futures::future::join_all(creations).await;
    assert_eq!(created.into_iter().filter(|created| *created.as_ref().unwrap()).count(), 1);
}

/// Under the name of a generation; a plain collection may be older than its declaration.
pub async fn collection_of_another_client_is_not_adopted(harness: &dyn CollectionsHarness) {
    let (name, plain) = (target(harness, 1).collection(), harness.index_name());
    harness.create_foreign(&name).await;
    let (spec, layout) = (CollectionSpec::default(), VectorLayout::default());
    let error = open(harness, 1).create(&spec, &layout, DIMENSION).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Fatal);
    assert!(error.message.contains(&name) && error.hint.is_some(), "{error}");
    harness.create_foreign(plain.as_str()).await;
    let plain = harness.collections().open(plain.as_str());
    assert!(!plain.create(&spec, &layout, DIMENSION).await.unwrap());
}

/// Generations of one index have points with the same ids.
pub async fn collections_share_no_points(harness: &dyn CollectionsHarness) {
    let (first, second) = (created(harness, 1).await, created(harness, 2).await);
    write(&*first, "1").await;
    write(&*first, "2").await;
    write(&*second, "1").await;
    assert_eq!((first.count().await.unwrap(), second.count().await.unwrap()), (Some(2), Some(1)));
    first.drop_collection().await.unwrap();
    assert_eq!((first.count().await.unwrap(), second.count().await.unwrap()), (None, Some(1)));
}

/// With every setting of the documented example.
pub async fn created_collection_keeps_and_finds_points(harness: &dyn CollectionsHarness) {
    let collection = open(harness, 1);
    let mut spec = spec(json!({
        "replication_factor": 1,
        "on_disk_payload": true,
        "vectors": {"on_disk": true},
        "quantization": {"scalar": {"type": "int8", "always_ram": true}},
        "hnsw": {"m": 16},
    }));
    spec.shard_number = Some(6);
    let layout = VectorLayout { datatype: Datatype::Float16, ..VectorLayout::default() };
    assert!(collection.create(&spec, &layout, DIMENSION).await.unwrap());
    write(&*collection, "1").await;
    write(&*collection, "2").await;
    let point = ticket("1", 1).points.remove(0);
    let hits = collection.search(point.vector.clone(), 10, None, &["_id"]).await.unwrap();
    assert_eq!(hits.len(), 2);
    assert!((hits[0].score - 1.0).abs() < 0.01, "{hits:?}");
    assert_eq!(collection.known(&[point.id]).await.unwrap().len(), 1);
    assert!(collection.is_settled().await.unwrap());
}

/// Questions have an answer, deletion has nothing to do, and changes fail as transient: the collection may come back.
pub async fn missing_collection_is_an_error_or_absent(harness: &dyn CollectionsHarness) {
    let collection = open(harness, 1);
    assert!(!collection.is_settled().await.unwrap());
    assert_eq!(collection.record().await.unwrap(), None);
    assert_eq!(collection.mark().await.unwrap(), CollectionMark::NoCollection);
    collection.drop_collection().await.unwrap();
    let spec = spec(json!({"hnsw": {"m": 8}}));
    for changed in [
        collection.alter(&spec).await,
        collection.field_indexes(&BTreeMap::new()).await,
        collection.set_record(&record(harness, json!({}))).await,
    ] {
        assert_eq!(changed.unwrap_err().class, ErrorClass::Transient);
    }
    assert!(!collection.exists().await.unwrap());
}

/// Each is an entry of its own, and each is deleted with the collection.
pub async fn record_owner_and_payload_indexes_are_kept_beside_each_other(harness: &dyn CollectionsHarness) {
    let collection = created(harness, 1).await;
    let (mut record, owner) = (record(harness, json!({"hnsw": {"m": 16}})), installation("shop"));
    assert_eq!(collection.record().await.unwrap(), None);
    collection.set_record(&record).await.unwrap();
    collection.set_mark(&owner).await.unwrap();
    collection.field_indexes(&record.declaration.payload_indexes).await.unwrap();
    assert_eq!(collection.record().await.unwrap(), Some(record.clone()));
    record.revision += 1;
    collection.set_record(&record).await.unwrap();
    assert_eq!(collection.record().await.unwrap(), Some(record));
    assert_eq!(collection.mark().await.unwrap(), CollectionMark::Of(owner));
    collection.drop_collection().await.unwrap();
    let again = created(harness, 1).await;
    assert_eq!((again.record().await.unwrap(), again.mark().await.unwrap()), (None, CollectionMark::Unmarked));
}

/// Others may have created indexes for their own searches.
pub async fn only_own_payload_indexes_are_deleted(harness: &dyn CollectionsHarness) {
    let (collection, name) = (created(harness, 1).await, target(harness, 1).collection());
    let types = |types: &[(&str, &str)]| -> BTreeMap<String, String> {
        types.iter().map(|(field, kind)| ((*field).to_owned(), (*kind).to_owned())).collect()
    };
    harness.index_field(&name, "team", PayloadKind::Keyword).await;
    harness.index_field(&name, "status", PayloadKind::Keyword).await;
    let tenant = Map::from_iter([("is_tenant".to_owned(), json!(true))]);
    let mut wanted = BTreeMap::from([
        ("status".to_owned(), PayloadIndex::new(PayloadKind::Keyword)),
        ("date".to_owned(), PayloadIndex::new(PayloadKind::Datetime)),
        ("tenant".to_owned(), PayloadIndex { options: tenant, ..PayloadIndex::new(PayloadKind::Keyword) }),
        ("size".to_owned(), PayloadIndex::new(PayloadKind::Float)),
    ]);
    collection.field_indexes(&wanted).await.unwrap();
    let all = types(&[
        ("team", "keyword"),
        ("status", "keyword"),
        ("date", "datetime"),
        ("tenant", "keyword"),
        ("size", "float"),
    ]);
    assert_eq!(harness.indexed_fields(&name).await, all);
    collection.field_indexes(&wanted).await.unwrap();
    assert_eq!(harness.indexed_fields(&name).await, all, "a repetition changes nothing");

    wanted.remove("status");
    wanted.remove("date");
    wanted.insert("size".to_owned(), PayloadIndex::new(PayloadKind::Integer));
    collection.field_indexes(&wanted).await.unwrap();
    let left = [("team", "keyword"), ("status", "keyword"), ("tenant", "keyword"), ("size", "integer")];
    assert_eq!(harness.indexed_fields(&name).await, types(&left), "`status` is another client's");
    collection.field_indexes(&BTreeMap::new()).await.unwrap();
    assert_eq!(harness.indexed_fields(&name).await, types(&[("team", "keyword"), ("status", "keyword")]));
}

/// Everything that can be altered in place.
pub async fn alteration_keeps_points_and_can_be_repeated(harness: &dyn CollectionsHarness) {
    let collection = created(harness, 1).await;
    write(&*collection, "1").await;
    collection.alter(&CollectionSpec::default()).await.unwrap();
    let spec = spec(json!({
        "replication_factor": 1,
        "write_consistency_factor": 1,
        "on_disk_payload": false,
        "vectors": {"on_disk": true},
        "quantization": {"scalar": {"type": "int8"}},
        "hnsw": {"m": 8, "ef_construct": 64},
        "optimizers": {"indexing_threshold": 5_000},
        "strict_mode": {"enabled": true, "unindexed_filtering_update": false, "max_query_limit": 100},
    }));
    for _ in 0..2 {
        collection.alter(&spec).await.unwrap();
    }
    write(&*collection, "2").await;
    assert_eq!(collection.upsert(&[&ticket("1", 2)]).await.unwrap(), Written::Durably, "strict mode allows the fence");
    assert_eq!(collection.count().await.unwrap(), Some(2));
}

/// Those of this harness; a server may have others.
pub async fn collections_and_aliases_are_listed(harness: &dyn CollectionsHarness) {
    let (collections, alias) = (harness.collections(), harness.index_name().as_str().to_owned());
    let (first, second) = (target(harness, 1).collection(), target(harness, 2).collection());
    let listed = collections.list().await.unwrap();
    assert!(!listed.collections.contains(&first) && !listed.aliases.contains_key(&alias));
    created(harness, 1).await;
    created(harness, 2).await;
    collections.point(&alias, Some(&first)).await.unwrap();
    let listed = collections.list().await.unwrap();
    assert!(listed.collections.contains(&first) && listed.collections.contains(&second));
    assert!(!listed.collections.contains(&alias));
    assert_eq!(listed.aliases.get(&alias), Some(&first));
    collections.point(&alias, None).await.unwrap();
}

/// Repeated, and without an alias before it.
pub async fn alias_moves_and_is_deleted(harness: &dyn CollectionsHarness) {
    let (collections, alias) = (harness.collections(), harness.index_name().as_str().to_owned());
    let names = [target(harness, 1).collection(), target(harness, 2).collection()];
    write(&*created(harness, 1).await, "1").await;
    created(harness, 2).await;
    collections.point(&alias, None).await.unwrap();
    for (to, points) in [(0, 1), (0, 1), (1, 0), (0, 1)] {
        collections.point(&alias, Some(&names[to])).await.unwrap();
        assert_eq!(collections.list().await.unwrap().aliases.get(&alias), Some(&names[to]));
        assert_eq!(collections.open(&alias).count().await.unwrap(), Some(points), "read by alias");
    }
    for _ in 0..2 {
        collections.point(&alias, None).await.unwrap();
        assert_eq!(collections.list().await.unwrap().aliases.get(&alias), None);
        assert_eq!(collections.open(&alias).count().await.unwrap(), None);
    }
    assert!(collections.open(&names[0]).exists().await.unwrap());
}

/// Neither error moves the alias.
pub async fn alias_needs_a_collection_and_a_free_name(harness: &dyn CollectionsHarness) {
    let (collections, alias) = (harness.collections(), harness.index_name().as_str().to_owned());
    let (first, missing) = (target(harness, 1).collection(), target(harness, 2).collection());
    created(harness, 1).await;
    collections.point(&alias, Some(&first)).await.unwrap();
    let error = collections.point(&alias, Some(&missing)).await.unwrap_err();
    assert!(error.class == ErrorClass::Fatal && error.message.contains(&missing), "{error}");
    assert_eq!(collections.list().await.unwrap().aliases.get(&alias), Some(&first));
    collections.point(&alias, None).await.unwrap();
    harness.create_foreign(&alias).await;
    let error = collections.point(&alias, Some(&first)).await.unwrap_err();
    assert!(error.class == ErrorClass::Fatal && error.message.contains(&alias), "{error}");
    collections.point(&alias, None).await.unwrap();
    assert!(collections.open(&alias).exists().await.unwrap());
}

/// Also when it is repeated.
pub async fn deletion_takes_aliases_along(harness: &dyn CollectionsHarness) {
    let (collections, alias) = (harness.collections(), harness.index_name().as_str().to_owned());
    let first = target(harness, 1).collection();
    let collection = created(harness, 1).await;
    collections.point(&alias, Some(&first)).await.unwrap();
    for _ in 0..2 {
        collection.drop_collection().await.unwrap();
        let listed = collections.list().await.unwrap();
        assert!(!listed.collections.contains(&first) && !listed.aliases.contains_key(&alias));
    }
}
