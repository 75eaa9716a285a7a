//! Strict mode: limits on requests. Stored and reported, so that clients find what they have set; not enforced.

use qdrant_client::qdrant::StrictModeConfig;
use serde::{Deserialize, Serialize};

/// Declares the limits once for storage, REST and gRPC, which use the same names.
macro_rules! strict_mode {
    ($($field:ident: $kind:ty,)*) => {
        /// The limits of a collection; absent ones do not apply.
        #[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
        pub(crate) struct StrictMode {
            $(
                #[serde(default, skip_serializing_if = "Option::is_none")]
                pub(crate) $field: Option<$kind>,
            )*
        }

        impl StrictMode {
            /// Replaces the limits that the changes name.
            pub(crate) fn merge(&mut self, changes: &Self) {
                $(self.$field = changes.$field.or(self.$field);)*
            }
        }

        #[allow(deprecated, reason = "current clients send `max_resident_memory_percent`")]
        impl From<StrictModeConfig> for StrictMode {
            fn from(config: StrictModeConfig) -> Self {
                Self { $($field: config.$field,)* }
            }
        }

        #[allow(deprecated, reason = "current clients read `max_resident_memory_percent`")]
        impl From<&StrictMode> for StrictModeConfig {
            fn from(mode: &StrictMode) -> Self {
                Self { $($field: mode.$field,)* ..Self::default() }
            }
        }
    };
}

strict_mode! {
    enabled: bool,
    max_query_limit: u32,
    max_timeout: u32,
    unindexed_filtering_retrieve: bool,
    unindexed_filtering_update: bool,
    search_max_hnsw_ef: u32,
    search_allow_exact: bool,
    search_max_oversampling: f32,
    upsert_max_batchsize: u64,
    search_max_batchsize: u64,
    max_collection_vector_size_bytes: u64,
    read_rate_limit: u32,
    write_rate_limit: u32,
    max_collection_payload_size_bytes: u64,
    filter_max_conditions: u64,
    condition_max_size: u64,
    max_points_count: u64,
    max_payload_index_count: u64,
    max_resident_memory_percent: u32,
}
