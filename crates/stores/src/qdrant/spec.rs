//! Requests that create or alter a collection, from its specification, as pure functions.
//!
//! The settings have the names of Qdrant's REST API. Every name that this file does not send is an error, so that no
//! setting is dropped silently.

use qdrant_client::qdrant::binary_quantization_query_encoding::{Setting as QueryEncoding, Variant as QueryVariant};
use qdrant_client::qdrant::max_optimization_threads::{Setting as ThreadsSetting, Variant as Threads};
use qdrant_client::qdrant::quantization_config::Quantization;
use qdrant_client::qdrant::{
    self as proto, BinaryQuantization, BinaryQuantizationEncoding, CollectionParamsDiff, CompressionRatio,
    CreateCollection, HnswConfigDiff, MaxOptimizationThreads, OptimizersConfigDiff, ProductQuantization,
    QuantizationConfig, QuantizationConfigDiff, QuantizationType, ScalarQuantization, StrictModeConfig,
    TurboQuantBitSize, TurboQuantization, UpdateCollection, VectorParams, VectorParamsDiff, VectorsConfig,
    VectorsConfigDiff, quantization_config_diff, vectors_config, vectors_config_diff,
};
use serde_json::Value;
use tidewheel_core::catalog::{CollectionSpec, Datatype, Distance, ShardingMethod, VectorLayout};
use tidewheel_core::error::PortError;

use super::typed::{Object, invalid, unsupported};

/// The name of the settings in a declaration.
const PATH: &str = "qdrant";

/// The word that turns quantization off.
const DISABLED: &str = "disabled";

/// The request that creates the collection, without metadata.
///
/// # Errors
/// Fatal, for a setting that is unknown, invalid or not supported.
#[allow(deprecated, reason = "servers since 1.16 understand the plain flags, `memory` is newer")]
pub(super) fn creation(
    collection: &str,
    spec: &CollectionSpec,
    layout: &VectorLayout,
    dimension: usize,
) -> Result<CreateCollection, PortError> {
    let settings = Settings::of(spec)?;
    if !layout.dense.is_empty() {
        return Err(unsupported("name of the dense vector", &layout.dense, "tidewheel writes the unnamed vector"));
    }
    if spec.sharding_method == Some(ShardingMethod::Custom) {
        let reason = "writes of tidewheel have no shard key";
        return Err(unsupported(&format!("{PATH}.sharding_method"), "custom", reason));
    }
    let datatype = Some(datatype(layout.datatype)).filter(|datatype| *datatype != proto::Datatype::Float32);
    let params = VectorParams {
        size: dimension as u64,
        distance: distance(layout.distance).into(),
        on_disk: settings.vectors_on_disk,
        datatype: datatype.map(Into::into),
        ..VectorParams::default()
    };
    Ok(CreateCollection {
        collection_name: collection.to_owned(),
        vectors_config: Some(VectorsConfig { config: Some(vectors_config::Config::Params(params)) }),
        shard_number: spec.shard_number,
        sharding_method: spec.sharding_method.map(|_| proto::ShardingMethod::Auto.into()),
        replication_factor: settings.replication_factor,
        write_consistency_factor: settings.write_consistency_factor,
        on_disk_payload: settings.on_disk_payload,
        hnsw_config: settings.hnsw,
        optimizers_config: settings.optimizers,
        quantization_config: match settings.quantization {
            Some(Quantize::By(method)) => Some(QuantizationConfig { quantization: Some(method) }),
            Some(Quantize::Off) | None => None,
        },
        strict_mode_config: settings.strict_mode,
        ..CreateCollection::default()
    })
}

/// The request that alters the collection; `None` if the specification leaves everything open that can be altered.
/// Quantization that an earlier specification has turned on and this one leaves open is turned off; Qdrant has no
/// request that resets other settings to their defaults.
///
/// # Errors
/// Fatal, for a setting that is unknown or invalid.
#[allow(deprecated, reason = "servers since 1.16 understand the plain flags, `memory` is newer")]
pub(super) fn alteration(
    collection: &str,
    spec: &CollectionSpec,
    was_quantized: bool,
) -> Result<Option<UpdateCollection>, PortError> {
    let settings = Settings::of(spec)?;
    let quantization = settings.quantization.or(was_quantized.then_some(Quantize::Off));
    let params = CollectionParamsDiff {
        replication_factor: settings.replication_factor,
        write_consistency_factor: settings.write_consistency_factor,
        on_disk_payload: settings.on_disk_payload,
        ..CollectionParamsDiff::default()
    };
    let vectors = settings.vectors_on_disk.map(|on_disk| {
        let diff = VectorParamsDiff { on_disk: Some(on_disk), ..VectorParamsDiff::default() };
        VectorsConfigDiff { config: Some(vectors_config_diff::Config::Params(diff)) }
    });
    let nothing = UpdateCollection { collection_name: collection.to_owned(), ..UpdateCollection::default() };
    let update = UpdateCollection {
        params: (params != CollectionParamsDiff::default()).then_some(params),
        vectors_config: vectors,
        hnsw_config: settings.hnsw,
        optimizers_config: settings.optimizers,
        quantization_config: quantization.map(quantization_diff),
        strict_mode_config: settings.strict_mode,
        ..nothing.clone()
    };
    Ok((update != nothing).then_some(update))
}

/// The distance in Qdrant.
pub(super) fn distance(distance: Distance) -> proto::Distance {
    match distance {
        Distance::Cosine => proto::Distance::Cosine,
    }
}

/// The datatype in Qdrant.
pub(super) fn datatype(datatype: Datatype) -> proto::Datatype {
    match datatype {
        Datatype::Float32 => proto::Datatype::Float32,
        Datatype::Float16 => proto::Datatype::Float16,
        Datatype::Uint8 => proto::Datatype::Uint8,
    }
}

/// The datatype that Qdrant's default stands for.
pub(super) fn or_default(datatype: proto::Datatype) -> proto::Datatype {
    if datatype == proto::Datatype::Default { proto::Datatype::Float32 } else { datatype }
}

/// What a specification sets, in Qdrant's types.
#[derive(Debug, Default, PartialEq)]
struct Settings {
    replication_factor: Option<u32>,
    write_consistency_factor: Option<u32>,
    on_disk_payload: Option<bool>,
    vectors_on_disk: Option<bool>,
    quantization: Option<Quantize>,
    hnsw: Option<HnswConfigDiff>,
    optimizers: Option<OptimizersConfigDiff>,
    strict_mode: Option<StrictModeConfig>,
}

/// Whether and how vectors are quantized.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Quantize {
    Off,
    By(Quantization),
}

impl Settings {
    fn of(spec: &CollectionSpec) -> Result<Self, PortError> {
        let mut object = Object::new(PATH, &spec.settings);
        let mut settings = Self {
            replication_factor: object.number("replication_factor")?,
            write_consistency_factor: object.number("write_consistency_factor")?,
            on_disk_payload: object.flag("on_disk_payload")?,
            vectors_on_disk: None,
            quantization: object.take("quantization").map(|(path, value)| quantization(&path, value)).transpose()?,
            hnsw: object.object("hnsw")?.map(hnsw).transpose()?,
            optimizers: object.object("optimizers")?.map(optimizers).transpose()?,
            strict_mode: object.object("strict_mode")?.map(strict_mode).transpose()?,
        };
        if let Some(mut vectors) = object.object("vectors")? {
            settings.vectors_on_disk = vectors.flag("on_disk")?;
            vectors.end()?;
        }
        object.end()?;
        Ok(settings)
    }
}

#[allow(deprecated, reason = "servers since 1.16 understand the plain flags, `memory` is newer")]
fn hnsw(mut object: Object<'_>) -> Result<HnswConfigDiff, PortError> {
    let hnsw = HnswConfigDiff {
        m: object.number("m")?,
        ef_construct: object.number("ef_construct")?,
        full_scan_threshold: object.number("full_scan_threshold")?,
        max_indexing_threads: object.number("max_indexing_threads")?,
        on_disk: object.flag("on_disk")?,
        payload_m: object.number("payload_m")?,
        inline_storage: object.flag("inline_storage")?,
        ..HnswConfigDiff::default()
    };
    object.end().map(|()| hnsw)
}

fn optimizers(mut object: Object<'_>) -> Result<OptimizersConfigDiff, PortError> {
    let optimizers = OptimizersConfigDiff {
        deleted_threshold: object.decimal("deleted_threshold")?,
        vacuum_min_vector_number: object.number("vacuum_min_vector_number")?,
        default_segment_number: object.number("default_segment_number")?,
        max_segment_size: object.number("max_segment_size")?,
        memmap_threshold: object.number("memmap_threshold")?,
        indexing_threshold: object.number("indexing_threshold")?,
        flush_interval_sec: object.number("flush_interval_sec")?,
        max_optimization_threads: object
            .take("max_optimization_threads")
            .map(|(path, value)| threads(&path, value))
            .transpose()?,
        prevent_unoptimized: object.flag("prevent_unoptimized")?,
        ..OptimizersConfigDiff::default()
    };
    object.end().map(|()| optimizers)
}

fn threads(path: &str, value: &Value) -> Result<MaxOptimizationThreads, PortError> {
    let variant = match (value.as_u64(), value.as_str()) {
        (Some(number), _) => Threads::Value(number),
        (None, Some("auto")) => Threads::Setting(ThreadsSetting::Auto.into()),
        _ => return Err(invalid(path, value, "a whole number or \"auto\"")),
    };
    Ok(MaxOptimizationThreads { variant: Some(variant) })
}

#[allow(deprecated, reason = "current servers read `max_resident_memory_percent`")]
fn strict_mode(mut object: Object<'_>) -> Result<StrictModeConfig, PortError> {
    let strict_mode = StrictModeConfig {
        enabled: object.flag("enabled")?,
        max_query_limit: object.number("max_query_limit")?,
        max_timeout: object.number("max_timeout")?,
        unindexed_filtering_retrieve: object.flag("unindexed_filtering_retrieve")?,
        unindexed_filtering_update: object.flag("unindexed_filtering_update")?,
        search_max_hnsw_ef: object.number("search_max_hnsw_ef")?,
        search_allow_exact: object.flag("search_allow_exact")?,
        search_max_oversampling: object.decimal("search_max_oversampling")?.map(|ratio| ratio as f32),
        upsert_max_batchsize: object.number("upsert_max_batchsize")?,
        search_max_batchsize: object.number("search_max_batchsize")?,
        max_collection_vector_size_bytes: object.number("max_collection_vector_size_bytes")?,
        read_rate_limit: object.number("read_rate_limit")?,
        write_rate_limit: object.number("write_rate_limit")?,
        max_collection_payload_size_bytes: object.number("max_collection_payload_size_bytes")?,
        filter_max_conditions: object.number("filter_max_conditions")?,
        condition_max_size: object.number("condition_max_size")?,
        max_points_count: object.number("max_points_count")?,
        max_payload_index_count: object.number("max_payload_index_count")?,
        max_resident_memory_percent: object.number("max_resident_memory_percent")?,
        ..StrictModeConfig::default()
    };
    object.end().map(|()| strict_mode)
}

#[allow(deprecated, reason = "servers since 1.16 understand `always_ram`, `memory` is newer")]
fn quantization(path: &str, value: &Value) -> Result<Quantize, PortError> {
    const METHODS: &str = "a table with one of scalar, product, binary, turbo; or \"disabled\"";
    if value.as_str().is_some_and(|word| word.eq_ignore_ascii_case(DISABLED)) {
        return Ok(Quantize::Off);
    }
    let Value::Object(fields) = value else { return Err(invalid(path, value, METHODS)) };
    let mut object = Object::new(path, fields);
    let method = if let Some(mut scalar) = object.object("scalar")? {
        let kind = scalar.choice("type", &[("int8", QuantizationType::Int8)])?;
        let quantization = ScalarQuantization {
            r#type: kind.unwrap_or(QuantizationType::Int8).into(),
            quantile: scalar.decimal("quantile")?.map(|quantile| quantile as f32),
            always_ram: scalar.flag("always_ram")?,
            ..ScalarQuantization::default()
        };
        scalar.end()?;
        Quantization::Scalar(quantization)
    } else if let Some(mut product) = object.object("product")? {
        use CompressionRatio::{X4, X8, X16, X32, X64};
        let ratios = [X4, X8, X16, X32, X64].map(|ratio| (ratio.as_str_name(), ratio));
        let Some(ratio) = product.choice("compression", &ratios)? else {
            return Err(invalid(path, value, "a table with product.compression"));
        };
        let always_ram = product.flag("always_ram")?;
        product.end()?;
        let compression = ratio.into();
        Quantization::Product(ProductQuantization { compression, always_ram, ..ProductQuantization::default() })
    } else if let Some(mut binary) = object.object("binary")? {
        use BinaryQuantizationEncoding::{OneAndHalfBits, OneBit, TwoBits};
        let encodings = [("one_bit", OneBit), ("two_bits", TwoBits), ("one_and_half_bits", OneAndHalfBits)];
        let queries = [
            ("default", QueryEncoding::Default),
            ("binary", QueryEncoding::Binary),
            ("scalar4bits", QueryEncoding::Scalar4Bits),
            ("scalar8bits", QueryEncoding::Scalar8Bits),
        ];
        let query = |setting: QueryEncoding| {
            let variant = Some(QueryVariant::Setting(setting.into()));
            proto::BinaryQuantizationQueryEncoding { variant }
        };
        let quantization = BinaryQuantization {
            always_ram: binary.flag("always_ram")?,
            encoding: binary.choice("encoding", &encodings)?.map(Into::into),
            query_encoding: binary.choice("query_encoding", &queries)?.map(query),
            ..BinaryQuantization::default()
        };
        binary.end()?;
        Quantization::Binary(quantization)
    } else if let Some(mut turbo) = object.object("turbo")? {
        use TurboQuantBitSize::{Bits1, Bits2, Bits4, Bits8, Bits15};
        let sizes = [("bits1", Bits1), ("bits1_5", Bits15), ("bits2", Bits2), ("bits4", Bits4), ("bits8", Bits8)];
        let always_ram = turbo.flag("always_ram")?;
        let bits = turbo.choice("bits", &sizes)?.map(Into::into);
        turbo.end()?;
        Quantization::Turboquant(TurboQuantization { always_ram, bits, ..TurboQuantization::default() })
    } else {
        return Err(invalid(path, value, METHODS));
    };
    object.end().map(|()| Quantize::By(method))
}

fn quantization_diff(quantize: Quantize) -> QuantizationConfigDiff {
    use quantization_config_diff::Quantization as Diff;
    let quantization = match quantize {
        Quantize::Off => Diff::Disabled(proto::Disabled {}),
        Quantize::By(Quantization::Scalar(scalar)) => Diff::Scalar(scalar),
        Quantize::By(Quantization::Product(product)) => Diff::Product(product),
        Quantize::By(Quantization::Binary(binary)) => Diff::Binary(binary),
        Quantize::By(Quantization::Turboquant(turbo)) => Diff::Turboquant(turbo),
    };
    QuantizationConfigDiff { quantization: Some(quantization) }
}

#[cfg(test)]
mod tests;
