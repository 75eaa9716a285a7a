//! A safetensors file: validates the header and reads tensors one at a time.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, Metadata};

use super::LoadError;
use crate::hasher::hash_bytes;

/// Maximum header size; the format allows 100 MB, a BERT's has some tens of kilobytes.
const MAX_HEADER: u64 = 16 << 20;

/// The sizes and offsets of the tensors in a file, validated against the file's length.
#[derive(Debug)]
pub(super) struct Header {
    metadata: Metadata,
    /// Offset of the tensor data in the file.
    start: u64,
    pub(super) hash: u64,
}

impl Header {
    /// Reads the header of a file of `length` bytes.
    ///
    /// # Errors
    /// The cause, if the header is invalid.
    pub(super) fn read(source: &mut impl Read, length: u64) -> Result<Self, String> {
        let failed = |cause: std::io::Error| cause.to_string();
        let mut size = [0; 8];
        source.read_exact(&mut size).map_err(failed)?;
        let size = u64::from_le_bytes(size);
        // Never larger than the file.
        if size > MAX_HEADER.min(length.saturating_sub(8)) {
            return Err(format!("invalid header size {size} in a file of {length} bytes"));
        }
        let mut header = Vec::new();
        source.take(size).read_to_end(&mut header).map_err(failed)?;
        if header.len() as u64 != size {
            return Err("truncated header".to_owned());
        }
        // Deserialization checks that tensors are contiguous, and that each has the bytes its shape requires.
        let metadata: Metadata = serde_json::from_slice(&header).map_err(|cause| cause.to_string())?;
        let start = 8 + size;
        let end = start.checked_add(metadata.data_len() as u64).ok_or("tensor sizes overflow")?;
        if length != end {
            return Err(format!("file has {length} bytes, header describes {end}"));
        }
        Ok(Self { metadata, start, hash: hash_bytes(&header) })
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.metadata.offset_keys()
    }

    pub(super) fn shape(&self, name: &str) -> Option<&[usize]> {
        self.metadata.info(name).map(|info| &info.shape[..])
    }
}

/// An open safetensors file.
#[derive(Debug)]
pub(super) struct Tensors {
    pub(super) path: PathBuf,
    file: File,
    pub(super) header: Header,
}

impl Tensors {
    pub(super) fn open(path: &Path) -> Result<Self, LoadError> {
        let io = |cause| LoadError::io(path, cause);
        let mut file = File::open(path).map_err(io)?;
        let length = file.metadata().map_err(io)?.len();
        let header = Header::read(&mut file, length).map_err(|cause| LoadError::malformed(path, cause))?;
        Ok(Self { path: path.to_owned(), file, header })
    }

    /// Reads the values of a tensor. Returns them with a hash of its bytes.
    pub(super) fn read(&mut self, model: &Path, name: &str) -> Result<(Vec<f32>, u64), LoadError> {
        let Some(info) = self.header.metadata.info(name) else {
            return Err(LoadError::malformed(&self.path, format!("missing tensor {name}")));
        };
        let (dtype, (begin, end)) = (info.dtype, info.data_offsets);
        if !matches!(dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16) {
            let problem = format!("tensor {name} has type {dtype:?} (supported: F32, F16, BF16)");
            return Err(LoadError::unsupported(model, problem));
        }
        // The header check guarantees that the file contains these bytes.
        let mut bytes = vec![0; end - begin];
        self.file
            .seek(SeekFrom::Start(self.header.start + begin as u64))
            .and_then(|_| self.file.read_exact(&mut bytes))
            .map_err(|cause| LoadError::io(&self.path, cause))?;
        let halves = || bytes.as_chunks().0.iter().map(|value| u16::from_le_bytes(*value));
        let values = match dtype {
            Dtype::F32 => bytes.as_chunks().0.iter().map(|value| f32::from_le_bytes(*value)).collect(),
            Dtype::F16 => halves().map(f16_to_f32).collect(),
            _ => halves().map(|half| f32::from_bits(u32::from(half) << 16)).collect(),
        };
        Ok((values, hash_bytes(&bytes)))
    }
}

/// Converts IEEE 754 binary16 to binary32 exactly.
fn f16_to_f32(half: u16) -> f32 {
    let sign = u32::from(half >> 15) << 31;
    let exponent = u32::from(half >> 10) & 31;
    let fraction = u32::from(half) & 0x3ff;
    let magnitude = match exponent {
        // Zero and subnormals: a multiple of 2^-24.
        #[expect(clippy::cast_precision_loss, reason = "ten bits")]
        0 => (fraction as f32 * 2f32.powi(-24)).to_bits(),
        31 => 0x7f80_0000 | fraction << 13,
        _ => (exponent + 112) << 23 | fraction << 13,
    };
    f32::from_bits(sign | magnitude)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Header, f16_to_f32};

    #[test]
    fn f16_is_converted_exactly() {
        for (half, value) in [
            (0x0000, 0.0),
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x7bff, 65504.0),
            (0x0400, 6.103_515_6e-5),
            (0x0001, 5.960_464_5e-8),
            (0x3555, 0.333_251_95),
            (0x7c00, f32::INFINITY),
        ] {
            assert_eq!(f16_to_f32(half).to_bits(), f32::to_bits(value), "{half:#x}");
        }
        assert_eq!(f16_to_f32(0x8000).to_bits(), (-0f32).to_bits());
        assert!(f16_to_f32(0x7e00).is_nan());
    }

    fn header(json: &str, claimed: u64, data: u64) -> Result<Header, String> {
        let bytes = [&claimed.to_le_bytes()[..], json.as_bytes()].concat();
        Header::read(&mut &bytes[..], bytes.len() as u64 + data)
    }

    #[test]
    fn headers_with_sizes_beyond_the_file_are_rejected() {
        let tensor = |shape: &str, offsets: &str| {
            let json = format!(r#"{{"a":{{"dtype":"F32","shape":{shape},"data_offsets":{offsets}}}}}"#);
            header(&json, json.len() as u64, 16)
        };
        assert!(tensor("[4]", "[0,16]").is_ok());
        for (shape, offsets) in [
            ("[4]", "[0,17]"),
            ("[4]", "[16,0]"),
            ("[5]", "[0,20]"),
            ("[4]", "[4,20]"),
            ("[4611686018427387904,4]", "[0,16]"),
            ("[4611686018427387905]", "[0,16]"),
            ("[9223372036854775807,2]", "[0,18446744073709551612]"),
            ("[4]", "[18446744073709551600,18446744073709551615]"),
            ("[-4]", "[0,16]"),
        ] {
            assert!(tensor(shape, offsets).is_err(), "{shape} {offsets}");
        }
        assert!(header("{}", u64::MAX, 0).is_err());
        assert!(header("{}", 100, 0).is_err());
        assert!(header("{}", 1, 0).is_err());
        assert!(header("", 0, 0).is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_yield_header_or_error(bytes in prop::collection::vec(any::<u8>(), 0..64), length: u64) {
            let _ = Header::read(&mut &bytes[..], length);
        }

        #[test]
        fn accepted_tensors_are_within_the_file(
            shape in prop::collection::vec(prop_oneof![0u64..5, any::<u64>()], 0..4),
            begin in prop_oneof![Just(0u64), any::<u64>()],
            end in prop_oneof![0u64..100, any::<u64>()],
            data in 0u64..100,
        ) {
            let json = serde_json::json!({"a": {"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}}).to_string();
            if let Ok(found) = header(&json, json.len() as u64, data) {
                let info = found.metadata.info("a").unwrap();
                prop_assert!(info.data_offsets.0 <= info.data_offsets.1 && info.data_offsets.1 as u64 <= data);
                let values: usize = info.shape.iter().product();
                prop_assert_eq!(values * 4, info.data_offsets.1 - info.data_offsets.0);
            }
        }
    }
}
