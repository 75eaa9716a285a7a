//! The contract of [`Source`], its feed and its scan.
//!
//! Each function is one clause. [`source_contract_tests`](crate::source_contract_tests) makes a test of every clause.

pub mod collections;
pub mod feed;
pub mod scan;
mod steps;

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;
use tidewheel_core::ports::Source;

/// A write to the source. Documents and values are extended JSON.
#[derive(Clone, Debug)]
pub enum SourceWrite {
    /// A new document.
    Insert {
        /// Where.
        collection: String,
        /// With its `_id`.
        document: Value,
    },
    /// Another document with the same `_id`.
    Replace {
        /// Where.
        collection: String,
        /// With its `_id`.
        document: Value,
    },
    /// One field gets another value.
    Set {
        /// Where.
        collection: String,
        /// Of which document.
        id: Value,
        /// Which field.
        field: String,
        /// Its new value.
        value: Value,
    },
    /// The document goes.
    Delete {
        /// Where.
        collection: String,
        /// Which document.
        id: Value,
    },
    /// The collection goes. Not in a transaction, as all that follow.
    Drop {
        /// Which one.
        collection: String,
    },
    /// The collection gets another name; one of that name goes.
    Rename {
        /// The old name.
        from: String,
        /// The new name.
        to: String,
    },
    /// All collections go.
    DropDatabase,
}

/// What the contract needs to know of an implementation.
#[async_trait]
pub trait SourceHarness: Send + Sync {
    /// The database, which is empty at first.
    fn database(&self) -> &str;

    /// A source of these collections of the database; of all if none is named.
    async fn source(&self, collections: &[&str]) -> Arc<dyn Source>;

    /// Commits the writes: several of them in one transaction.
    async fn commit(&self, writes: Vec<SourceWrite>);
}

/// Makes one test of each clause of the contract; the expression makes a new harness and may `await`.
#[macro_export]
macro_rules! source_contract_tests {
    ($harness:expr) => {
        $crate::source_contract_tests! { $harness; feed:
            every_operation_arrives_with_its_document
            an_update_of_a_document_that_is_gone_has_no_document
            every_kind_of_id_keeps_its_identity
            an_id_that_changes_its_type_of_number_keeps_its_key
            events_of_a_transaction_share_their_time_and_keep_their_order
            a_token_resumes_exactly_behind_its_batch
            a_token_resumes_in_the_middle_of_a_transaction
            a_time_starts_at_its_own_events
            an_idle_feed_moves_its_token
            a_feed_says_up_to_which_time_it_is_complete
            a_dropped_call_loses_nothing
            an_unknown_position_is_lost_history
        }
        $crate::source_contract_tests! { $harness; collections:
            the_end_of_a_collection_is_an_event
            a_renamed_collection_ends_and_appears
            a_dropped_database_does_not_end_the_feed
            only_selected_collections_are_listed
            the_selection_tells_choices_apart
        }
        $crate::source_contract_tests! { $harness; scan:
            a_scan_reads_in_the_order_of_ids_of_all_types
            a_scan_resumes_behind_any_row
            a_scan_sees_what_was_committed_before
            a_long_scan_comes_in_pages
            a_scan_of_nothing_ends_at_once
            scan_and_feed_together_have_no_gap
            existence_is_told_by_exact_key
            documents_are_fetched_by_exact_key
            a_scan_may_be_filtered
        }
    };
    ($harness:expr; $part:ident: $($clause:ident)*) => {
        $(#[tokio::test]
        async fn $clause() {
            $crate::contracts::source::$part::$clause(&$harness).await;
        })*
    };
}
