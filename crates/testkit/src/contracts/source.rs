//! The contract of [`Source`](tidewheel_core::ports::Source), its feed and its scan.
//!
//! Each function is one clause. [`source_contract_tests`](crate::source_contract_tests) generates a test per clause.

pub mod collections;
pub mod coverage;
pub mod feed;
pub mod filters;
pub mod inspector;
pub mod scan;
mod steps;

use std::sync::Arc;

use async_trait::async_trait;
use tidewheel_core::ports::{Covered, SourceInspector};

pub use crate::source_write::SourceWrite;

/// Access of the contract to an implementation.
#[async_trait]
pub trait SourceHarness: Send + Sync {
    /// The database, initially empty.
    fn database(&self) -> &str;

    /// Another database of the deployment, initially empty.
    fn other_database(&self) -> String {
        format!("{}_b", self.database())
    }

    /// The source, restricted to these collections of the database; to all of it if none is named.
    async fn source(&self, collections: &[&str]) -> Covered;

    /// The source of these collections for operators.
    async fn inspector(&self, collections: &[&str]) -> Arc<dyn SourceInspector>;

    /// Commits the writes to this database: several of them in one transaction.
    async fn commit_in(&self, database: &str, writes: Vec<SourceWrite>);

    /// Commits the writes to [`Self::database`]: several of them in one transaction.
    async fn commit(&self, writes: Vec<SourceWrite>) {
        self.commit_in(self.database(), writes).await;
    }
}

/// Generates one test per clause of the contract; the expression returns a new harness and may `await`.
#[macro_export]
macro_rules! source_contract_tests {
    ($harness:expr) => {
        $crate::source_contract_tests! { $harness; feed:
            every_operation_is_delivered_with_its_document
            update_of_deleted_document_has_no_document
            ids_of_every_type_keep_their_identity
            id_with_changed_number_type_keeps_its_key
            transaction_events_share_cluster_time_and_keep_order
            token_resumes_exactly_after_its_batch
            token_resumes_within_a_transaction
            narrow_feed_delivers_every_event_once_in_growing_batches
            start_time_is_inclusive
            idle_feed_advances_its_token
            feed_reports_time_up_to_which_it_is_complete
            cancelled_next_loses_no_event
            unknown_token_is_history_lost
        }
        $crate::source_contract_tests! { $harness; collections:
            dropped_collection_emits_a_drop
            renamed_collection_is_dropped_and_appears
            feed_survives_a_dropped_database
            only_selected_collections_are_listed
            scope_differs_between_selections
        }
        $crate::source_contract_tests! { $harness; coverage:
            feed_covers_several_databases
            dropped_database_leaves_the_others
            excluded_collections_have_no_events_and_are_not_listed
            databases_are_matched_by_patterns
            scope_depends_on_selectors_and_not_on_filters
            changed_filter_resumes_at_the_token
            changed_scope_resumes_at_the_time
        }
        $crate::source_contract_tests! { $harness; filters:
            events_carry_a_verdict_for_each_filter
            updates_name_the_paths_that_they_touched
            rows_carry_a_verdict_for_each_filter
            existing_documents_match_the_filter
            fetched_documents_carry_verdicts
            sampled_documents_carry_verdicts
            unsupported_filters_are_refused_by_name
        }
        $crate::source_contract_tests! { $harness; inspector:
            unselected_collections_are_named_if_none_is_selected
            history_covers_the_newest_write
        }
        $crate::source_contract_tests! { $harness; scan:
            scan_orders_ids_of_all_types
            scan_resumes_after_any_row
            scan_reads_earlier_commits
            long_scan_is_paged
            scan_of_missing_collection_is_empty
            scan_and_feed_together_have_no_gap
            existence_is_checked_by_exact_key
            documents_are_fetched_by_exact_key
            scan_applies_a_filter
        }
    };
    ($harness:expr; $part:ident: $($clause:ident)*) => {
        $(#[tokio::test]
        async fn $clause() {
            $crate::contracts::source::$part::$clause(&$harness).await;
        })*
    };
}
