//! The catalog: which indexes exist, what each was declared to be, and the generations of its collection.
//!
//! A [`Declaration`] states what an index covers and how its documents become points. Each of its parts has a
//! fingerprint, and a difference in a part requires an [`Action`]. An index has one [`Generation`] for each of its
//! collections; a [`TargetId`] names one. The [`Catalog`] holds what was applied, at one revision.
//!
//! Without a declared index, local settings make a catalog of revision 0 with one index: the short form.
//!
//! [`submit()`] computes the catalog that declarations lead to, [`advance()`] the steps that follow from it,
//! [`next_scope`] the targets of the next snapshot, [`routes()`] the targets of each change, and [`restore()`] the catalog
//! after a loss of its store.
//!
//! No function here has an effect. JSON forms are stable: unknown fields are ignored, and absent ones have defaults.

mod action;
mod advance;
mod collection;
mod declaration;
mod embedding;
mod generation;
mod name;
mod parts;
mod payload;
mod restore;
mod routes;
#[cfg(test)]
mod samples;
mod scope;
mod selector;
mod submit;
#[cfg(test)]
mod walks;
#[cfg(test)]
mod world;

pub use action::Action;
pub use advance::{Facts, Step, advance, advance_beside};
pub use collection::{
    CollectionSpec, Datatype, Distance, PayloadIndex, PayloadKind, ShardingMethod, TargetRecord, VectorLayout,
};
pub use declaration::{Blank, ChunkDeclaration, Declaration, OnDeadLetter, PayloadDeclaration, Rules, TextDeclaration};
pub use embedding::{EmbedderIdentity, EmbeddingSpec, Provider, Rounding};
pub use generation::{Catalog, Compared, Generation, Index, Needs, Rows, State, Switch};
pub use name::{Due, IndexName, MAX_NAME_BYTES, NameError, TargetId};
pub use parts::{Difference, Fp, Made, Part, Parts};
pub use restore::restore;
pub use routes::{Routed, Routes, routes};
pub use scope::{Lost, is_futile, next_scope};
pub use selector::{Databases, Glob, NamespacePattern, Selector, SelectorError};
pub use submit::{ApplyOptions, Choice, IndexAction, Refusal, Submitted, submit};
