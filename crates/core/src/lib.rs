//! Types and rules shared by every part of tidewheel. No network access.
//!
//! A change of a document travels as a [`change::Change`] through stage 1 and as an [`embedded::Embedded`] through
//! stage 2. Its [`version::Version`] orders it among all changes of the same document, wherever and however late it
//! arrives. [`ports`] are the interfaces to the source, the queues, the index and the embedder. The [`catalog`] holds the
//! declared indexes.

pub mod address;
pub mod catalog;
pub mod change;
pub mod chunking;
pub mod embedded;
pub mod error;
pub mod excerpt;
pub mod filter;
pub mod fingerprint;
pub mod health;
pub mod hex;
pub mod identity;
pub mod installation;
pub mod json;
pub mod key;
pub mod metric;
pub mod model_files;
pub mod paths;
pub mod payload;
pub mod ports;
pub mod report;
pub mod retry;
pub mod row;
pub mod secret;
pub mod stage;
pub mod time;
pub mod tls;
pub mod tokens;
pub mod trace;
pub mod version;
