//! Converts quantization parameters between protobuf and the engine, through the engine's JSON form.

use qdrant_client::qdrant::binary_quantization_query_encoding::{Setting, Variant};
use qdrant_client::qdrant::quantization_config::Quantization;
use qdrant_client::qdrant::{self as proto, quantization_config_diff};
use qdrant_edge::{BinaryQuantizationEncoding, BinaryQuantizationQueryEncoding, CompressionRatio, QuantizationConfig};
use serde_json::{Value, json};

use super::super::config::{Disabled, QuantizationChange};
use super::super::error::ApiError;

type Result<T> = std::result::Result<T, ApiError>;

pub(super) fn quantization_in(config: proto::QuantizationConfig) -> Result<QuantizationConfig> {
    match config.quantization {
        Some(quantization) => method_in(quantization),
        None => Err(ApiError::BadInput("missing quantization_config.quantization".to_owned())),
    }
}

pub(super) fn quantization_change_in(change: proto::QuantizationConfigDiff) -> Result<QuantizationChange> {
    use quantization_config_diff::Quantization as Diff;
    let method = match change.quantization {
        Some(Diff::Scalar(scalar)) => Quantization::Scalar(scalar),
        Some(Diff::Product(product)) => Quantization::Product(product),
        Some(Diff::Binary(binary)) => Quantization::Binary(binary),
        Some(Diff::Turboquant(turbo)) => Quantization::Turboquant(turbo),
        Some(Diff::Disabled(_)) => return Ok(QuantizationChange::Off(Disabled::Disabled)),
        None => return Err(ApiError::BadInput("missing quantization_config.quantization".to_owned())),
    };
    method_in(method).map(QuantizationChange::To)
}

#[allow(deprecated, reason = "the engine and current clients use `always_ram`")]
fn method_in(method: Quantization) -> Result<QuantizationConfig> {
    let json = match method {
        Quantization::Scalar(scalar) => {
            if scalar.r#type() != proto::QuantizationType::Int8 {
                return Err(ApiError::BadInput("unknown type of scalar quantization".to_owned()));
            }
            json!({"scalar": {"type": "int8", "quantile": scalar.quantile, "always_ram": scalar.always_ram}})
        }
        Quantization::Product(product) => {
            let compression = product.compression().as_str_name();
            json!({"product": {"compression": compression, "always_ram": product.always_ram}})
        }
        Quantization::Binary(binary) => json!({"binary": {
            "always_ram": binary.always_ram,
            "encoding": binary.encoding.map(|_| match binary.encoding() {
                proto::BinaryQuantizationEncoding::OneBit => "one_bit",
                proto::BinaryQuantizationEncoding::TwoBits => "two_bits",
                proto::BinaryQuantizationEncoding::OneAndHalfBits => "one_and_half_bits",
            }),
            "query_encoding": query_encoding_in(binary.query_encoding),
        }}),
        Quantization::Turboquant(turbo) => json!({"turbo": {
            "always_ram": turbo.always_ram,
            "bits": turbo.bits.map(|_| match turbo.bits() {
                proto::TurboQuantBitSize::Bits1 => "bits1",
                proto::TurboQuantBitSize::Bits15 => "bits1_5",
                proto::TurboQuantBitSize::Bits2 => "bits2",
                proto::TurboQuantBitSize::Bits4 => "bits4",
                // The engine has none.
                proto::TurboQuantBitSize::Bits8 => "bits8",
            }),
        }}),
    };
    serde_json::from_value(json).map_err(|error| ApiError::BadInput(format!("quantization_config: {error}")))
}

fn query_encoding_in(encoding: Option<proto::BinaryQuantizationQueryEncoding>) -> Option<&'static str> {
    let Variant::Setting(setting) = encoding?.variant?;
    Some(match Setting::try_from(setting).unwrap_or(Setting::Default) {
        Setting::Default => "default",
        Setting::Binary => "binary",
        Setting::Scalar4Bits => "scalar4bits",
        Setting::Scalar8Bits => "scalar8bits",
    })
}

#[allow(deprecated, reason = "current clients read `always_ram`")]
pub(super) fn quantization_out(config: &QuantizationConfig) -> proto::QuantizationConfig {
    let quantization = match config {
        QuantizationConfig::Scalar(config) => Quantization::Scalar(proto::ScalarQuantization {
            r#type: proto::QuantizationType::Int8.into(),
            quantile: config.scalar.quantile,
            always_ram: config.scalar.always_ram,
            ..proto::ScalarQuantization::default()
        }),
        QuantizationConfig::Product(config) => Quantization::Product(proto::ProductQuantization {
            compression: match config.product.compression {
                CompressionRatio::X4 => proto::CompressionRatio::X4,
                CompressionRatio::X8 => proto::CompressionRatio::X8,
                CompressionRatio::X16 => proto::CompressionRatio::X16,
                CompressionRatio::X32 => proto::CompressionRatio::X32,
                CompressionRatio::X64 => proto::CompressionRatio::X64,
            }
            .into(),
            always_ram: config.product.always_ram,
            ..proto::ProductQuantization::default()
        }),
        QuantizationConfig::Binary(config) => Quantization::Binary(proto::BinaryQuantization {
            always_ram: config.binary.always_ram,
            encoding: config.binary.encoding.map(|encoding| {
                match encoding {
                    BinaryQuantizationEncoding::OneBit => proto::BinaryQuantizationEncoding::OneBit,
                    BinaryQuantizationEncoding::TwoBits => proto::BinaryQuantizationEncoding::TwoBits,
                    BinaryQuantizationEncoding::OneAndHalfBits => proto::BinaryQuantizationEncoding::OneAndHalfBits,
                }
                .into()
            }),
            query_encoding: config.binary.query_encoding.map(query_encoding_out),
            ..proto::BinaryQuantization::default()
        }),
        QuantizationConfig::Turbo(config) => Quantization::Turboquant(proto::TurboQuantization {
            always_ram: config.turbo.always_ram,
            // The engine does not export the type of `bits`.
            bits: config.turbo.bits.and_then(|bits| bits_out(&json!(bits))).map(Into::into),
            ..proto::TurboQuantization::default()
        }),
    };
    proto::QuantizationConfig { quantization: Some(quantization) }
}

fn bits_out(bits: &Value) -> Option<proto::TurboQuantBitSize> {
    match bits.as_str()? {
        "bits1" => Some(proto::TurboQuantBitSize::Bits1),
        "bits1_5" => Some(proto::TurboQuantBitSize::Bits15),
        "bits2" => Some(proto::TurboQuantBitSize::Bits2),
        "bits4" => Some(proto::TurboQuantBitSize::Bits4),
        _ => None,
    }
}

fn query_encoding_out(encoding: BinaryQuantizationQueryEncoding) -> proto::BinaryQuantizationQueryEncoding {
    let setting = match encoding {
        BinaryQuantizationQueryEncoding::Default => Setting::Default,
        BinaryQuantizationQueryEncoding::Binary => Setting::Binary,
        BinaryQuantizationQueryEncoding::Scalar4Bits => Setting::Scalar4Bits,
        BinaryQuantizationQueryEncoding::Scalar8Bits => Setting::Scalar8Bits,
    };
    proto::BinaryQuantizationQueryEncoding { variant: Some(Variant::Setting(setting.into())) }
}
