//! The catalog at one revision, with its targets ready for use.

use std::collections::BTreeMap;
use std::sync::Arc;

use tidewheel_core::catalog::{
    Catalog, Declaration, Generation, IndexName, Made, OnDeadLetter, TargetId, TargetRecord,
};
use tidewheel_core::error::{Cause, PortError, Server};
use tidewheel_core::ports::{
    AuditPosition, CatalogStore, Collection, CollectionAdmin, CollectionRegistry, Collections, Embedder, EmbedderInfo,
    Embedders, Index, KnownVectors, PortResult, TargetState, TargetStates, Tombstones,
};

/// The servers and collections of one target.
#[derive(Clone)]
pub struct TargetPorts {
    /// Reads and writes its collection.
    pub index: Arc<dyn Index>,
    /// Vectors of its collection to reuse; `None` if none are.
    pub known: Option<Arc<dyn KnownVectors>>,
    /// Creates and changes its collection as declared; `None` for a collection with the defaults of the index.
    pub admin: Option<Arc<dyn CollectionAdmin>>,
    /// Its tombstones.
    pub tombstones: Arc<dyn Tombstones>,
    /// Detects that its collection is missing; `None` for a collection that is still being filled.
    pub registry: Option<Arc<dyn CollectionRegistry>>,
    /// The position of its audit; `None` for that of the journal.
    pub audit: Option<Arc<dyn AuditPosition>>,
    /// Computes its vectors; the error if the settings here cannot reach such an embedder.
    pub embedder: PortResult<Arc<dyn Embedder>>,
}

impl TargetPorts {
    /// A collection with its tombstones, for a service that needs nothing else.
    pub fn new(index: Arc<dyn Index>, tombstones: Arc<dyn Tombstones>) -> Self {
        Self {
            index,
            known: None,
            admin: None,
            tombstones,
            registry: None,
            audit: None,
            embedder: Err(PortError::fatal("missing embedder")),
        }
    }

    /// Everything of a target; `reuse` if vectors of its collection are reused.
    pub fn of(
        collection: Arc<dyn Collection>,
        state: Arc<dyn TargetState>,
        embedder: PortResult<Arc<dyn Embedder>>,
        reuse: bool,
    ) -> Self {
        Self {
            index: collection.clone(),
            known: reuse.then(|| collection.clone() as Arc<dyn KnownVectors>),
            admin: Some(collection),
            tombstones: state.clone(),
            registry: Some(state.clone()),
            audit: Some(state),
            embedder,
        }
    }
}

/// The target of local settings, in effect until a catalog is applied.
#[derive(Clone)]
pub struct LocalTarget {
    /// The declaration that the settings are short for.
    pub declaration: Arc<Declaration>,
    /// Its servers.
    pub ports: TargetPorts,
}

impl LocalTarget {
    /// The name of its index.
    pub fn name(&self) -> &IndexName {
        &self.declaration.name
    }
}

/// What the targets of an applied catalog are made from.
#[derive(Clone)]
pub struct CatalogPorts {
    /// The applied catalog.
    pub store: Arc<dyn CatalogStore>,
    /// The collections.
    pub collections: Arc<dyn Collections>,
    /// What is stored about each target beside its collection.
    pub states: Arc<dyn TargetStates>,
    /// The embedders.
    pub embedders: Arc<dyn Embedders>,
    /// Whether vectors of collections are reused: a local setting.
    pub reuse: bool,
}

/// One generation of an index, ready for use.
#[derive(Clone)]
pub struct Target {
    /// Its name.
    pub id: TargetId,
    /// The generation, with its collection, state and declaration.
    pub generation: Generation,
    /// Whether it is the plain collection of the short form.
    pub plain: bool,
    /// What its points are made by, as they carry it; `None` before a catalog is applied.
    pub made: Option<Made>,
    /// Its servers and collections.
    pub ports: TargetPorts,
}

impl Target {
    /// The declaration to which its points conform, or will.
    pub fn declaration(&self) -> &Arc<Declaration> {
        &self.generation.declaration
    }

    /// Effect of a parked change on the indexed version of its document.
    pub fn on_dead_letter(&self) -> OnDeadLetter {
        self.generation.declaration.rules.on_dead_letter
    }

    /// Whether it is the target of local settings.
    pub fn is_local(&self) -> bool {
        self.made.is_none()
    }

    /// Fails if a model is not the one that the collection was created for, as far as its declaration leaves that to the
    /// embedder: vectors of two models must not be compared.
    ///
    /// # Errors
    /// Transient: the embedder may serve the model again.
    pub fn fits(&self, info: &EmbedderInfo) -> PortResult<()> {
        let Some(known) = &self.generation.embedder else { return Ok(()) };
        let is_other = self.declaration().embedding.is_nameless() && info.model != known.model;
        let (id, dimension) = (&self.id, known.dimension);
        let message = if info.dimension != dimension {
            let found = info.dimension;
            format!(
                "the embedder of {id} returns vectors of dimension {found}, but its collection has dimension {dimension}"
            )
        } else if is_other {
            format!("the embedder of {id} serves {}, but its collection has vectors of {}", info.model, known.model)
        } else {
            return Ok(());
        };
        let hint = "serve the model with which the generation was created, or run `tidewheel apply --generation`";
        Err(PortError::transient(message).because(Server::EMBEDDER, Cause::Refused).with_hint(hint))
    }

    /// Whether entries wait for it while its collection or its embedder is unavailable.
    pub fn may_block(&self) -> bool {
        self.is_local() || self.generation.may_block()
    }
}

/// The catalog at one revision, with its targets.
#[derive(Clone)]
pub struct Applied {
    catalog: Catalog,
    targets: BTreeMap<TargetId, Arc<Target>>,
    plain: Option<Arc<Target>>,
    /// Whether it comes from the store, or cannot change.
    known: bool,
    blocks: bool,
}

impl Applied {
    pub(super) fn of_local(local: Option<&LocalTarget>, known: bool) -> Self {
        let Some(LocalTarget { declaration, ports }) = local else {
            let (catalog, targets) = (Catalog::default(), BTreeMap::new());
            return Self { catalog, targets, plain: None, known, blocks: false };
        };
        let catalog = Catalog::short_form(declaration.clone());
        Self::new(catalog, known, |_, _| ports.clone())
    }

    /// Opens the targets of a catalog. Those that `before` has already are not opened again.
    pub(super) fn of_catalog(catalog: Catalog, ports: &CatalogPorts, before: &Self) -> Self {
        Self::new(catalog, true, |id, generation| {
            let before = before.targets.get(id).filter(|before| !before.is_local());
            let is_same = |before: &&Arc<Target>| {
                before.generation.collection == generation.collection
                    && before.generation.declaration.embedding == generation.declaration.embedding
            };
            if let Some(before) = before.filter(is_same) {
                return before.ports.clone();
            }
            let collection = ports.collections.open(&generation.collection);
            // The state of the plain target keeps its names as long as its collection does.
            let plain = generation.collection == id.index.as_str();
            let embedder = ports.embedders.of(&generation.declaration.embedding);
            TargetPorts::of(collection, ports.states.target(id, plain), embedder, ports.reuse)
        })
    }

    fn new(catalog: Catalog, known: bool, ports: impl Fn(&TargetId, &Generation) -> TargetPorts) -> Self {
        let is_local = catalog.is_short_form();
        let open = |(id, generation): (TargetId, &Generation)| {
            let declaration = &generation.declaration;
            let target = Target {
                plain: catalog.indexes[&id.index].is_plain(&id.index, id.generation),
                made: (!is_local).then(|| declaration.made()),
                ports: ports(&id, generation),
                generation: generation.clone(),
                id: id.clone(),
            };
            (id, Arc::new(target))
        };
        let targets: BTreeMap<TargetId, Arc<Target>> = catalog.targets().map(open).collect();
        let is_routed = |target: &&Arc<Target>| target.generation.state.is_routed();
        let plain = targets.values().filter(is_routed).find(|target| target.plain).cloned();
        let blocks = targets.values().any(|target| target.may_block());
        Self { targets, plain, known, blocks, catalog }
    }

    /// The catalog.
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// Its revision; 0 for local settings.
    pub fn revision(&self) -> u64 {
        self.catalog.revision
    }

    /// The target of this name, if changes are routed to it. `None` names the plain target: that of entries without
    /// targets.
    pub fn target(&self, id: Option<&TargetId>) -> Option<&Arc<Target>> {
        let Some(id) = id else { return self.plain.as_ref() };
        self.targets.get(id).filter(|target| target.generation.state.is_routed())
    }

    /// The targets that changes are routed to, by name.
    pub fn routed(&self) -> impl Iterator<Item = &Arc<Target>> {
        self.every().filter(|target| target.generation.state.is_routed())
    }

    /// The targets of all generations, by name: also those that are not created yet, and those to be deleted.
    pub fn every(&self) -> impl Iterator<Item = &Arc<Target>> {
        self.targets.values()
    }

    /// The target that searches of this index read.
    pub fn serving(&self, index: &IndexName) -> Option<&Arc<Target>> {
        let serving = self.catalog.indexes.get(index)?.serving?;
        self.targets.get(&index.target(serving))
    }

    /// Whether entries wait for any target. If not, none is skipped: a first installation waits out an outage.
    pub fn blocks(&self) -> bool {
        self.blocks
    }

    /// Whether records of this target may be skipped, so that it does not delay the others.
    pub fn may_skip(&self, target: &Target) -> bool {
        self.blocks && !target.may_block()
    }

    /// What the collection of this target records; `None` for local settings, which record nothing.
    pub fn record(&self, id: &TargetId) -> Option<TargetRecord> {
        if self.catalog.is_short_form() {
            return None;
        }
        self.catalog.indexes.get(&id.index)?.record(&id.index, id.generation, self.revision())
    }

    /// Local settings, once the store is known to have no catalog.
    pub(super) fn known(&self) -> Self {
        Self { known: true, ..self.clone() }
    }

    /// Whether a store with this revision has nothing newer or older. A catalog that vanished is lost, not withdrawn.
    pub(super) fn is_at(&self, revision: u64) -> bool {
        self.known && (revision == self.revision() || revision == 0)
    }

    /// Whether it can serve entries of this revision.
    pub(super) fn serves(&self, revision: u64) -> bool {
        self.known && self.revision() >= revision && (self.revision() > 0 || self.plain.is_some())
    }
}
